"""What made a picture, as far as the graph cannot know it: sampler revisions, library versions, device, precision."""

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import torch

from engine.errors import UnknownName
from engine.graph.lock import CHUNK, Lock
from engine.graph.node import Hidden
from engine.models.memory.device import best_device, compute_dtype
from engine.sampling import find_schedule, find_solver
from nodes.widgets import OLD_GRAPHS

__all__ = ["LockInput", "environment", "locked", "sealed"]

LockInput = Annotated[Lock | None, Hidden("LOCK")]
PACKAGES = ("sigmagraph", "torch", "transformers", "safetensors", "numpy", "pillow")
FINDERS = {"sampler_name": find_solver, "scheduler": find_schedule}


def locked(lock: Lock | None, prompt: Mapping[str, Any] | None, image: int) -> dict[str, Any]:
    """The text chunk of one image, ready to be merged into what a picture carries; nothing without a lock."""
    return {CHUNK: sealed(lock, prompt or {}).of_image(image).written()} if lock is not None else {}


def sealed(lock: Lock, prompt: Mapping[str, Any]) -> Lock:
    """The lock with everything that is known here; `prompt` is in API form."""
    nodes = [node for node_id, node in prompt.items() if node_id in lock.nodes]
    return lock.completed(samplers(nodes), environment())


def samplers(nodes: list[Mapping[str, Any]]) -> dict[str, int]:
    """The revision behind every sampler and schedule name the nodes use."""
    found: dict[str, int] = {}
    for node in nodes:
        for name, find in FINDERS.items():
            value = node.get("inputs", {}).get(name)
            if isinstance(value, str) and (revision := _revision(find, value)) is not None:
                found[value] = revision
    return found


def _revision(find: Any, name: str) -> int | None:
    try:
        return int(find(name, OLD_GRAPHS).revision)
    except UnknownName:  # a node pack's own sampler or schedule
        return None


def environment() -> dict[str, str]:
    """Versions, device and precision: whatever may change an image's last bits without a change in the graph."""
    return dict(_environment(torch.get_num_threads()))


@cache
def _environment(threads: int) -> Mapping[str, str]:
    device = best_device()
    return {
        **{name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "device": _device_name(device, threads),
        "precision": str(compute_dtype(device, torch.float16)).removeprefix("torch."),
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
