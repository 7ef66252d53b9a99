"""The recorded cases of ComfyUI's nodes: inputs and outputs as values of ours, and how close a result has to be."""

import json
import lzma
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from sigmagraph.nodes.support.borders import TRANSLATIONS
from sigmagraph.nodes.support.packs.controls import ControlBase, PackControlNet

FOLDER = Path(__file__).parents[1] / "data/nodes/goldens"
PICTURES = FOLDER / "png"


@cache
def family(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Every case of a family, and the tensors they name."""
    cases = json.loads(lzma.decompress((FOLDER / f"{name}.json.xz").read_bytes()))
    return cases, load(lzma.decompress((FOLDER / f"{name}.safetensors.xz").read_bytes()))


def content(written: Any, tensors: Mapping[str, Tensor]) -> Any:
    """A content as the README of the recordings writes it; stubs and other objects stay as they are written."""
    if not isinstance(written, dict):
        return written
    ((kind, value),) = written.items() if len(written) == 1 else (("object", written),)
    if kind == "tensor":
        return tensors[value].clone()
    if kind == "dict":
        return {name: content(part, tensors) for name, part in value.items()}
    if kind == "pairs":
        return {name: content(part, tensors) for name, part in value}
    if kind in ("list", "tuple"):
        return [list, tuple][kind == "tuple"](content(part, tensors) for part in value)
    if kind == "float":
        return float(value)
    if kind == "control":
        return recorded_control(value, tensors)
    return written


def recorded_control(written: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> PackControlNet:
    """A recorded ControlNet as packs have it, the one before it behind it."""
    made = PackControlNet(StubControlNet(options=written["extra_args"]))  # type: ignore[arg-type]  # see there
    if "hint" in written:
        masks = [content(mask, tensors) for mask in written.get("extra_concat", ())]
        span = tuple(written["timestep_percent_range"])
        made.set_cond_hint(content(written["hint"], tensors), written["strength"], span, None, masks)
    before = written.get("previous")
    return made.set_previous_controlnet(None if before is None else content(before, tensors))


@dataclass(frozen=True, eq=False)
class StubControlNet:
    """The recordings' ControlNet, which is never asked for anything."""

    takes_mask: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    needs_vae = False

    def with_options(self, **options: Any) -> "StubControlNet":
        return replace(self, options=options)


def described(control: ControlBase | None) -> dict[str, Any] | None:
    """What was set on a ControlNet and on those before it."""
    if control is None:
        return None
    facts = {"strength": control.strength, "range": list(control.timestep_percent_range), "args": control.extra_args}
    drawn = {"hint": control.cond_hint_original, "masks": control.extra_concat_orig}
    return facts | drawn | {"before": described(control.previous_controlnet)}


def ours(value: Any, kind: str) -> Any:
    """A recorded value as it travels on our edges."""
    if isinstance(value, list) and kind == "LATENT":
        return [ours(one, kind) for one in value]
    return TRANSLATIONS[kind].back(value) if kind in TRANSLATIONS else value


def theirs(value: Any, kind: str) -> Any:
    """A value of ours as ComfyUI's nodes write it."""
    if isinstance(value, list) and kind == "LATENT":
        return [theirs(one, kind) for one in value]
    return TRANSLATIONS[kind].out(value) if kind in TRANSLATIONS else value


def difference(found: Any, expected: Any, tolerance: float, place: str = "") -> str | None:
    """What is not equal, up to `tolerance` in tensors; None where all is. NaN equals NaN."""
    if isinstance(expected, Tensor):
        return _tensors(found, expected, tolerance, place)
    if isinstance(expected, PackControlNet) and isinstance(found, PackControlNet):
        return difference(described(found), described(expected), tolerance, place)
    if isinstance(expected, dict) and isinstance(found, dict):
        if set(found) != set(expected):
            return f"{place}: keys {sorted(found)} instead of {sorted(expected)}"
        parts = [(name, found[name], expected[name]) for name in expected]
    elif isinstance(expected, list | tuple) and isinstance(found, list | tuple):
        if len(found) != len(expected):
            return f"{place}: {len(found)} instead of {len(expected)}"
        parts = list(zip(range(len(found)), found, expected, strict=True))
    else:
        same = found == expected and isinstance(found, bool) == isinstance(expected, bool)
        return None if same else f"{place}: {found!r} instead of {expected!r}"
    said = (difference(one, other, tolerance, f"{place}.{name}") for name, one, other in parts)
    return next((reason for reason in said if reason is not None), None)


def _tensors(found: Any, expected: Tensor, tolerance: float, place: str) -> str | None:
    if not isinstance(found, Tensor):
        return f"{place}: {found!r} instead of a tensor"
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return f"{place}: {found.dtype} {tuple(found.shape)} instead of {expected.dtype} {tuple(expected.shape)}"
    one, other = found.double(), expected.double()
    gap = torch.where(one.isnan() & other.isnan() | (one == other), 0.0, (one - other).abs())
    worst = float(gap.max()) if gap.numel() else 0.0
    return None if worst <= tolerance else f"{place}: off by {worst:.3g} in {int((gap > tolerance).sum())} places"
