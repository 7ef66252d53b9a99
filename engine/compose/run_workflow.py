"""A workflow run in this process, and what it leaves: pictures, a report per node, the lock."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sigmagraph.engine.compose.workspace import Workspace
from sigmagraph.engine.execution.cache.result_store import ResultStore
from sigmagraph.engine.execution.events import Event
from sigmagraph.engine.execution.inline import execute
from sigmagraph.engine.execution.result import NodeReport, RunResult
from sigmagraph.engine.graph.graph import Graph
from sigmagraph.engine.graph.lock import Lock, lock_of
from sigmagraph.engine.graph.plan import plan
from sigmagraph.engine.graph.workflow import Workflow
from sigmagraph.engine.models.memory.residency import RESIDENCY
from sigmagraph.nodes.support.provenance import sealed

__all__ = ["Ran", "execute_graph", "run_workflow"]


@dataclass(frozen=True)
class Ran:
    """The end of a run that went well.

    `images`: the files of its pictures, in the order they were made. `reports`: per node, how its result was come by
    and how long that took. `locks`: per output node, what its pictures depend on. `ui`: what output nodes show.
    """

    images: tuple[Path, ...]
    reports: Mapping[str, NodeReport]
    locks: Mapping[str, Lock] = field(repr=False)
    ui: Mapping[str, Mapping[str, Any]] = field(repr=False)
    seconds: float = 0.0

    @property
    def lock(self) -> Lock:
        """The lock of the first output."""
        return next(iter(self.locks.values()))


def execute_graph(
    space: Workspace, graph: Graph, workflow: Workflow, store: ResultStore, emit: Callable[[Event], None]
) -> RunResult:
    """Run a validated graph; its pictures carry the editor's document, if the workflow came as one."""
    space.require_output()
    extra = {"extra_pnginfo": {"workflow": workflow.editor}} if workflow.editor is not None else {}
    prepared = plan(graph, space.folders)
    return execute(prepared, space.folders, store, emit, extra_data=extra, free=RESIDENCY.relieve)


def run_workflow(space: Workspace, workflow: Workflow, store: ResultStore, emit: Callable[[Event], None]) -> Ran:
    """Validate and run; raises `InvalidWorkflow` with all problems, or what a node raised."""
    began = time.perf_counter()
    graph = space.validated(workflow)
    result = execute_graph(space, graph, workflow, store, emit).or_raise()
    seconds = time.perf_counter() - began
    shown = [record for ui in result.ui.values() for record in ui.get("images", ())]
    prompt = graph.prompt()
    bare = {root: lock_of(graph, root, space.folders).with_step_caches(result.ui) for root in graph.roots}
    locks = {root: sealed(lock, prompt) for root, lock in bare.items()}
    return Ran(tuple(space.picture(record) for record in shown), result.nodes, locks, result.ui, seconds)
