"""What made a picture, as far as the graph cannot know it: sampler revisions, library versions, device, precision."""

import platform
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import torch

from sigmagraph.engine.errors import UnknownName
from sigmagraph.engine.graph.lock import CHUNK, Lock, named_samplers, with_precision
from sigmagraph.engine.graph.node import Hidden
from sigmagraph.engine.models.memory.residency import RESIDENCY
from sigmagraph.engine.sampling.plugins import content_of
from sigmagraph.nodes.support.graph_names import sampler_names, schedule_in_graph, schedule_names, solver_in_graph

__all__ = ["LockInput", "environment", "known_revisions", "locked", "sealed"]

LockInput = Annotated[Lock | None, Hidden("LOCK")]
PACKAGES = ("sigmagraph", "torch", "transformers", "safetensors", "numpy", "pillow")
KINDS = {"sampler_name": "sampler", "scheduler": "schedule"}
FINDERS: Mapping[str, Callable[..., Any]] = {"sampler_name": solver_in_graph, "scheduler": schedule_in_graph}


def locked(lock: Lock | None, prompt: Mapping[str, Any] | None, image: int) -> dict[str, Any]:
    """The text chunk of one image, ready to be merged into what a picture carries; nothing without a lock."""
    return {CHUNK: sealed(lock, prompt or {}).of_image(image).written()} if lock is not None else {}


def sealed(lock: Lock, prompt: Mapping[str, Any]) -> Lock:
    """The lock with everything that is known here; `prompt` is in API form."""
    now = with_precision(lock, environment(), RESIDENCY.precisions)
    return lock.completed(revisions(named_samplers(prompt, lock)), now)


def revisions(names: Iterable[tuple[str, str]]) -> dict[str, int | str]:
    """The revision behind every sampler and schedule name, with the file of those from outside; packs' have none."""
    found: dict[str, int | str] = {}
    for kind, name in names:
        with suppress(UnknownName):
            revision, content = FINDERS[kind](name).revision, content_of(KINDS[kind], name)
            found[name] = f"{revision} {content}" if content else revision
    return found


def known_revisions() -> dict[str, int | str]:
    """All names there are, for a front that has no sampler to ask."""
    samplers, schedules = sampler_names(), schedule_names()
    return revisions([("sampler_name", name) for name in samplers] + [("scheduler", name) for name in schedules])


def environment() -> dict[str, str]:
    """Versions, device and precision: whatever may change an image's last bits without a change in the graph."""
    choices = RESIDENCY.choices
    usual = str(choices.placement("model", torch.float16).dtype).removeprefix("torch.")
    is_compiled = choices.compile == "auto" and RESIDENCY.compiles(choices.on)
    named = ", ".join(word for word in (choices.named, "compile=on" if is_compiled else "") if word)
    precision = f"{usual}; {named}" if named else usual
    return {**_environment(torch.get_num_threads(), choices.on), "precision": precision}


@cache
def _environment(threads: int, device: torch.device) -> Mapping[str, str]:
    return {
        **{name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "device": _device_name(device, threads),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a checkout
        return "uninstalled"


def _device_name(device: torch.device, threads: int) -> str:
    """The card, or the processor's instruction set: sums are ordered by both."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    if device.type == "cpu":
        return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}, {threads} threads"
    return device.type
