"""One workflow under many samplers, schedules and step counts; everything before the sampler is computed once."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from torch import Tensor

from sigmagraph.engine.compose.workspace import Workspace
from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.events import Event, NodeFinished, NodeProgress
from sigmagraph.engine.execution.inline import execute
from sigmagraph.engine.graph.lock import STEP_CACHE
from sigmagraph.engine.graph.node import Node, Socket, node
from sigmagraph.engine.graph.plan import Plan, plan
from sigmagraph.engine.graph.sweep import GUIDANCE, SEEDS, SWEPT, find_sweep
from sigmagraph.engine.graph.validate import validate
from sigmagraph.engine.graph.workflow import Link, Workflow, WorkflowNode
from sigmagraph.engine.models.value import Model
from sigmagraph.engine.sampling import run_sigmas
from sigmagraph.nodes.sampling.step_caches import written_cache
from sigmagraph.nodes.support.graph_names import schedule_in_graph, solver_in_graph

__all__ = ["Cell", "CellOutcome", "run_cells"]

COLLECTOR, CACHE = "CompareCollector", "CompareStepCache"


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination."""

    sampler: str
    schedule: str
    steps: int
    seed: int | None = None
    guidance: float | None = None
    cache: str = ""

    def __str__(self) -> str:
        return " / ".join([self.sampler, self.schedule, str(self.steps), *self.extras])

    @property
    def extras(self) -> list[str]:
        """Step cache, guidance and seed in words, where the cell sets them."""
        guidance = [f"guidance {self.guidance:g}"] if self.guidance is not None else []
        cache = [self.cache] if self.cache else []
        return [*cache, *guidance, *([f"seed {self.seed}"] if self.seed is not None else [])]


@dataclass(frozen=True, slots=True)
class CellOutcome:
    """What a cell gave: the latent [B, C, h, w], the first picture [H, W, 3], its levels and cost; or the problem.

    Under a step cache `evaluations` are those it did not leave out, and `drift_estimate` is what it says of itself.
    """

    cell: Cell
    latent: Tensor | None = None
    picture: Tensor | None = None
    sigmas: tuple[float, ...] = ()
    evaluations: float = 0
    seconds: float = 0.0
    problem: str = ""
    drift_estimate: float | None = None


@dataclass(frozen=True, slots=True)
class _Collected:
    latent: Tensor
    picture: Tensor
    model: Model


def run_cells(
    space: Workspace, workflow: Workflow, cells: Sequence[Cell], began: Callable[[str], None]
) -> list[CellOutcome]:
    """Run every cell; one that fails is an outcome with a problem. All are validated before the first one runs."""
    kept: list[_Collected] = []
    nodes = {**space.nodes, COLLECTOR: _collector(kept)}
    extended, sampler_id = _extended(workflow)
    planned = [_planned(space, nodes, extended, sampler_id, cell) for cell in cells]
    cache = MemoryCache()
    outcomes = []
    for cell, ready in zip(cells, planned, strict=True):
        kept.clear()
        began(str(cell))
        outcomes.append(_outcome(cell, ready, kept, cache, space, sampler_id))
    return outcomes


def _outcome(
    cell: Cell, ready: Plan, kept: list[_Collected], cache: MemoryCache, space: Workspace, sampler_id: str
) -> CellOutcome:
    evaluations, told = 0, dict[str, Any]()

    def count(event: Event) -> None:
        nonlocal evaluations
        evaluations += isinstance(event, NodeProgress) and event.node_id == sampler_id
        if isinstance(event, NodeFinished) and event.node_id == sampler_id and STEP_CACHE in (event.ui or {}):
            told.update(event.ui[STEP_CACHE][0])  # type: ignore[index]  # looked at just now

    start = time.perf_counter()
    try:
        execute(ready, space.folders, cache, count).or_raise()
    except EngineError as error:
        return CellOutcome(cell, evaluations=evaluations, problem=str(error))
    [found] = kept
    blank = CellOutcome(cell, found.latent, found.picture, _sigmas(cell, found.model))
    seconds = time.perf_counter() - start
    if not told:
        return replace(blank, evaluations=evaluations, seconds=seconds)
    made = round(evaluations * (1 - told["skipped"] / told["asked"]), 2)
    return replace(blank, evaluations=made, seconds=seconds, drift_estimate=told["drift_estimate"])


def _sigmas(cell: Cell, model: Model) -> tuple[float, ...]:
    solver, schedule = solver_in_graph(cell.sampler), schedule_in_graph(cell.schedule)
    levels = model.parameterisation.levels
    return tuple(run_sigmas(schedule, levels, cell.steps, drops_penultimate=solver.drops_penultimate))


def _planned(space: Workspace, nodes: dict[str, Node], workflow: Workflow, sampler_id: str, cell: Cell) -> Plan:
    values: dict[str, object] = dict(zip(SWEPT, (cell.sampler, cell.schedule, cell.steps), strict=True))
    if cell.seed is not None:
        values |= {name: cell.seed for name in SEEDS if name in workflow.nodes[sampler_id].inputs}
    if cell.guidance is not None:
        values[GUIDANCE] = cell.guidance
    if cell.cache:
        class_type, inputs = written_cache(cell.cache)
        inputs["model"] = workflow.nodes[sampler_id].inputs.get("model")
        workflow = replace(workflow, nodes={**workflow.nodes, CACHE: WorkflowNode(class_type, inputs)})
        values["model"] = Link(CACHE, 0)
    graph = validate(workflow.with_inputs({sampler_id: values}), nodes, space.folders, targets={COLLECTOR})
    return plan(graph, space.folders, {COLLECTOR})


def _extended(workflow: Workflow) -> tuple[Workflow, str]:
    """The workflow with a collector behind its sampler and decoder, and the sampler's id."""
    found = find_sweep(workflow)
    model = workflow.nodes[found.sampler].inputs.get("model")
    inputs = {"samples": Link(found.sampler, 0), "images": Link(found.decoder, 0), "model": model}
    extended = {**workflow.nodes, COLLECTOR: WorkflowNode(COLLECTOR, inputs)}
    return replace(workflow, nodes=extended), found.sampler


def _collector(kept: list[_Collected]) -> Node:
    """An output node that hands latent, picture and model over to us."""
    from sigmagraph.nodes.support.types import LatentValue

    @node(COLLECTOR, category="", output_node=True, outputs=())
    def collect(
        *,
        samples: Annotated[LatentValue, Socket("LATENT")],
        images: Annotated[Tensor, Socket("IMAGE")],
        model: Annotated[Model, Socket("MODEL")],
    ) -> None:
        """Keep what the cell made."""
        kept.append(_Collected(samples.samples, images[0], model))

    return collect
