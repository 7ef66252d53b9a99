"""Memory and precision: what was chosen for this process, and what a graph's models take before any is read."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.inline import execute
from sigmagraph.engine.graph.graph import Graph, GraphNode
from sigmagraph.engine.graph.node import Services
from sigmagraph.engine.graph.plan import plan as planned
from sigmagraph.engine.graph.workflow import Link
from sigmagraph.engine.models.memory.plan import MemoryPlan
from sigmagraph.engine.models.memory.residency import RESIDENCY, Loaded

__all__ = ["Loads", "choose", "chosen", "memory_plan"]

MODEL_FOLDERS = frozenset(("checkpoints", "diffusion_models", "text_encoders", "vae", "controlnet", "diffusers"))


def choose(
    precision: str | None = None, memory: str | None = None, device: str | None = None, compile_: str | None = None
) -> None:
    """Set what this process computes in and on from now on; what is not given stays. Raises `BadValue`."""
    RESIDENCY.choices = RESIDENCY.choices.changed(precision, memory, device, compile_)


@contextmanager
def chosen(
    precision: str | None = None, memory: str | None = None, device: str | None = None, compile_: str | None = None
) -> Iterator[None]:
    """`choose` for as long as the block lasts."""
    before = RESIDENCY.choices
    choose(precision, memory, device, compile_)
    try:
        yield
    finally:
        RESIDENCY.choices = before


class Loads:
    """The networks this process made since then: how each was kept, and in what it computed."""

    def __init__(self) -> None:
        self._before = RESIDENCY.load_count

    def _made(self) -> list[Loaded]:
        count = RESIDENCY.load_count - self._before
        return RESIDENCY.loads[-count:] if count else []

    def lines(self) -> list[str]:
        """One for each network, and one for what was compiled."""
        compiled = RESIDENCY.compiled
        graphs = [f"compiled: {compiled.graphs} graphs, {compiled.recompiles} recompiles"] if compiled.graphs else []
        return [*map(str, self._made()), *graphs, *([compiled.failure] if compiled.failure else [])]

    def written(self) -> dict[str, Any]:
        """The same as JSON values."""
        networks = [made.written() for made in self._made()]
        return {"networks": networks, "compiled": RESIDENCY.compiled.stats()}


def memory_plan(graph: Graph, services: Services) -> MemoryPlan:
    """What the graph's loaders would bring, and where it would go; only headers are read."""
    loaders = [vertex.id for vertex in graph.nodes.values() if _is_loader(vertex)]
    alone = replace(graph, roots=loaders)
    with RESIDENCY.planning() as recipes:
        execute(planned(alone, services), services, MemoryCache(0)).or_raise()
        return RESIDENCY.plan(recipes)


def _is_loader(vertex: GraphNode) -> bool:
    """Whether a node reads model files, and nothing else has to run first."""
    folders = {declared.file.folder for declared in vertex.node.declared.values() if declared.file is not None}
    return bool(folders & MODEL_FOLDERS) and not any(isinstance(value, Link) for value in vertex.inputs.values())
