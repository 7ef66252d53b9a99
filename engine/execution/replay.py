"""Was it the same again? A recorded output against a new one: the verdict, and the named things that differ.

Pictures are compared elsewhere (`PictureComparison`); here only their figures are judged. Knows no file and no pixel.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sigmagraph.engine.errors import BadDocument
from sigmagraph.engine.graph.graph import Graph
from sigmagraph.engine.graph.lock import (
    CHUNK,
    Difference,
    Lock,
    differences,
    input_differences,
    named_samplers,
    read_lock,
    with_precision,
)
from sigmagraph.engine.graph.reading.carried import Form
from sigmagraph.engine.graph.reading.document import read_workflow
from sigmagraph.engine.graph.reading.image_metadata import carried_texts, is_carrier
from sigmagraph.engine.graph.workflow import Workflow

__all__ = [
    "PictureComparison",
    "Recorded",
    "Verdict",
    "judged",
    "output_of",
    "read_recorded",
    "what_differs",
    "with_revisions",
]

Kind = Literal["identical", "within tolerance", "different", "nothing to compare"]
TOLERABLE_DB = 40.0
TOLD = ("environment.", "samplers.")
NO_LOCK = Difference("lock", None, "this program's")


@dataclass(frozen=True, slots=True)
class PictureComparison:
    """Two pictures: the largest difference of a channel (of 255) and the peak signal-to-noise ratio in dB."""

    max_abs: int
    psnr: float
    is_same_size: bool = True


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a file says about its making. `lock` is None in files of other programs; `picture` in plain documents."""

    workflow: Workflow
    lock: Lock | None = None
    picture: bytes | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a replay."""

    kind: Kind
    comparison: PictureComparison | None = None
    differences: Sequence[Difference] = ()

    def __str__(self) -> str:
        if self.kind == "different" and self.comparison is not None and not self.comparison.is_same_size:
            return "different: another size"
        if self.comparison is None or self.kind == "identical":
            return self.kind
        return f"{self.kind}: max abs {self.comparison.max_abs}/255, PSNR {self.comparison.psnr:.1f} dB"

    def written(self) -> dict[str, Any]:
        """As JSON values; an infinite ratio is null."""
        figures = self.comparison
        return {
            "verdict": self.kind,
            "max_abs": figures.max_abs if figures else None,
            "psnr": figures.psnr if figures and math.isfinite(figures.psnr) else None,
            "differences": [{"field": d.field, "recorded": d.recorded, "now": d.now} for d in self.differences],
        }


def read_recorded(data: bytes, declarations: Mapping[str, Any] | None = None, form: Form = "auto") -> Recorded:
    """A document or a picture, with what it says about its making; an unreadable lock counts as none."""
    workflow = read_workflow(data, declarations, form)
    if not is_carrier(data):
        return Recorded(workflow)
    text = carried_texts(data).get(CHUNK)
    try:
        lock = read_lock(text) if text is not None else None
    except BadDocument as problem:
        workflow = replace(workflow, warnings=(*workflow.warnings, str(problem)))
        lock = None
    return Recorded(workflow, lock, data)


def output_of(recorded: Recorded, graph: Graph) -> str:
    """The output node a replay is about: the recorded one, else the first."""
    if recorded.lock is not None and recorded.lock.output in graph.roots:
        return recorded.lock.output
    return graph.roots[0]


def with_revisions(
    lock: Lock,
    prompt: Mapping[str, Any],
    known: Mapping[str, int | str],
    versions: Mapping[str, str],
    precisions: Mapping[str, str] | None = None,
) -> Lock:
    """The lock completed with what a worker told about itself; `precisions` are those of files it has used."""
    used = {name: known[name] for _, name in named_samplers(prompt, lock) if name in known}
    return lock.completed(used, with_precision(lock, versions, precisions or {}))


def what_differs(recorded: Recorded, changed: Workflow, now: Lock) -> list[Difference]:
    """Inputs set for this replay, then what has changed behind an unchanged graph."""
    is_part = {*now.nodes, *(recorded.lock.nodes if recorded.lock is not None else ())}
    before, after = (
        {i: n for i, n in workflow.prompt().items() if i in is_part} for workflow in (recorded.workflow, changed)
    )
    inputs = input_differences(before, after)
    if recorded.lock is None:
        return inputs + [NO_LOCK] * (recorded.picture is not None)
    is_told = bool(now.environment)  # a front that has not heard of its workers' cannot compare it
    named = [
        difference for difference in differences(recorded.lock, now) if is_told or not difference.field.startswith(TOLD)
    ]
    return inputs + [difference for difference in named if not (inputs and difference.field == "graph")]


def judged(
    comparison: PictureComparison | None, found: Sequence[Difference], tolerable_db: float = TOLERABLE_DB
) -> Verdict:
    """The verdict for two pictures; without two there is nothing to compare."""
    if comparison is None:
        return Verdict("nothing to compare", None, found)
    if comparison.is_same_size and comparison.max_abs == 0:
        return Verdict("identical", comparison, found)
    is_near = comparison.is_same_size and comparison.psnr >= tolerable_db
    return Verdict("within tolerance" if is_near else "different", comparison, found)
