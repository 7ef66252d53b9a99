"""What a user may choose about memory and precision, and what `auto` makes of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models.memory.device import Placement, compute_dtype, holds, named_device
from sigmagraph.engine.models.memory.plan import Memory

Precision = Literal["auto", "fp32", "bf16", "fp16", "fp8"]
Compile = Literal["auto", "on", "off"]
COMPILE: tuple[Compile, ...] = ("auto", "on", "off")
PARTS = ("text", "model", "vae")
DTYPES: Mapping[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS: Mapping[str, tuple[Precision, ...]] = {
    "text": ("auto", "fp32", "bf16", "fp16"),
    "model": ("auto", "fp32", "bf16", "fp16", "fp8"),
    "vae": ("auto", "fp32", "bf16", "fp16"),
}
PRECISION_FORM = "auto, fp32, bf16, fp16 or fp8 for the diffusion model, or text=, model= and vae= with a comma between"
PAIR = "+"  # between two devices that make the halves of guidance
MEMORY_FORM = "auto, resident, stream, or how much of the device may be taken, such as 12GB"
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b?)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class MemoryChoices:
    """What was chosen; what nobody chose is `auto`. `limit_bytes` bounds what networks take of a device."""

    text: Precision = "auto"
    model: Precision = "auto"
    vae: Precision = "auto"
    memory: Memory = "auto"
    limit_bytes: int | None = None
    device: str = "auto"
    compile: Compile = "auto"

    @classmethod
    def parse(
        cls, precision: str = "auto", memory: str = "auto", device: str = "auto", compile_: str = "auto"
    ) -> "MemoryChoices":
        """Read the four options. Raises `BadValue`, naming the option and what it takes."""
        return cls().changed(precision, memory, device, compile_)

    @property
    def on(self) -> torch.device:
        """The device that was chosen, the first of two. Raises `BadValue` where it is not there."""
        return named_device(self.device.partition(PAIR)[0])

    @property
    def second(self) -> torch.device | None:
        """The device that makes guidance's other half, if two were chosen. Raises `BadValue`."""
        name = self.device.partition(PAIR)[2]
        if PAIR not in self.device:
            return None
        if not name:
            raise BadValue("--device", self.device, "one device, or two of one kind, such as cuda:0+cuda:1")
        second = named_device(name)
        if second == self.on or second.type != self.on.type:
            raise BadValue("--device", self.device, "two devices of one kind, such as cuda:0+cuda:1")
        return second

    def changed(
        self, precision: str | None, memory: str | None, device: str | None, compile_: str | None = None
    ) -> "MemoryChoices":
        """With what is given in place of what was. Raises `BadValue` where it cannot be had."""
        changes: dict[str, Any] = dict(parse_precision(precision)) if precision else {}
        if memory:
            changes["memory"], changes["limit_bytes"] = parse_memory(memory)
        if device:
            changes["device"] = device
        if compile_:
            changes["compile"] = parse_compile(compile_)
        choices = replace(self, **changes)
        if device:
            _ = choices.on, choices.second  # raises where one is not there
        if choices.model == "fp8" and not holds(choices.on, torch.float8_e4m3fn):
            raise BadValue("--precision", "model=fp8", f"bf16 or fp16 on {choices.on}, which has no float8")
        return choices

    @property
    def named(self) -> str:
        """The choices that change numbers, in one line; empty where all is `auto`."""
        parts = [f"{part}={getattr(self, part)}" for part in PARTS if getattr(self, part) != "auto"]
        compiled, halves = self.compile == "on", PAIR in self.device
        return ", ".join([*parts, *(["compile=on"] if compiled else []), *(["guidance in halves"] if halves else [])])

    @property
    def numbers(self) -> str:
        """All that changes what networks compute, the numbers of `auto` too: it belongs into the keys of results.

        Raises `BadValue` where the device is not there. `named` is part of it: a further choice goes there.
        """
        where = self.on
        usual = [self.placement(part, stored, where) for part in PARTS for stored in (torch.float16, torch.bfloat16)]
        return f"{where.type}: {[str(placement.dtype) for placement in usual]}; {self.named}"

    def placement(self, kind: str, stored: torch.dtype, device: torch.device | None = None) -> Placement:
        """Where a network of this kind computes, and in which precision.

        Text encoders compute in float32, and so does a VAE on a CPU, unless a precision was chosen for them. float8 is
        a way of keeping a diffusion model's weights, which computes in the precision of 16-bit files.
        """
        where, chosen = self.on if device is None else device, str(getattr(self, kind))
        if chosen in DTYPES:
            return Placement(where, DTYPES[chosen])
        if kind == "text" or (kind == "vae" and where.type == "cpu"):
            return Placement(where, torch.float32)
        return Placement(where, compute_dtype(where, stored))


def parse_precision(text: str) -> dict[str, Precision]:
    """`bf16` (the diffusion model and the VAE; fp8 the model alone), or `text=bf16,model=fp8,vae=fp32`.

    What names a part counts before what does not. Raises `BadValue`, also for a part that is told two things.
    """
    general: dict[str, Precision] = {}
    named: dict[str, Precision] = {}
    for item in text.split(","):
        part, equals, name = item.strip().lower().rpartition("=")
        places = (part,) if equals else ("model",) if name == "fp8" else ("model", "vae")
        for place in places:
            found = next((precision for precision in PRECISIONS.get(place, ()) if precision == name), None)
            if found is None:
                raise BadValue("--precision", text, PRECISION_FORM)
            chosen = named if equals else general
            if place in chosen:
                raise BadValue("--precision", text, f"one precision for {place}, not two")
            chosen[place] = found
    return general | named


def parse_compile(text: str) -> Compile:
    """`auto`, `on` or `off`. Raises `BadValue`."""
    found = next((choice for choice in COMPILE if choice == text.strip().lower()), None)
    if found is None:
        raise BadValue("--compile", text, ", ".join(COMPILE))
    return found


def parse_memory(text: str) -> tuple[Memory, int | None]:
    """The way weights are kept, and how many bytes they may take. K, M, G and T with `i` count in steps of 1024."""
    plain = text.strip().lower()
    for mode in ("auto", "resident", "stream"):
        if plain == mode:
            return mode, None
    match = SIZE.fullmatch(plain)
    step = 1024 if match is not None and match[3].startswith("i") else 1000
    size = int(float(match[1]) * step ** ("kmgt".index(match[2]) + 1 if match[2] else 0)) if match is not None else 0
    if not size:
        raise BadValue("--memory", text, MEMORY_FORM)
    return "auto", size
