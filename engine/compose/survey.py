"""A folder of workflow files, looked at one by one: what can be read, whose classes are all here, what would run.

One file's trouble is its own: whatever is wrong with it is in its line, and the others go on. Many files are shared
among processes that are copies of this one, nodes and packs included.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sigmagraph.engine.errors import BadDocument, EngineError, InvalidWorkflow
from sigmagraph.engine.graph.node import Node, Services
from sigmagraph.engine.graph.reading.carried import agree
from sigmagraph.engine.graph.reading.document import parse_json, parse_workflow, read_file, read_texts
from sigmagraph.engine.graph.reading.image_metadata import carried_texts, is_carrier
from sigmagraph.engine.graph.validate import validate
from sigmagraph.engine.graph.workflow import Workflow

__all__ = ["Surveyed", "files_in", "survey", "totals"]

ENDINGS = frozenset((".json", ".png", ".webp", ".jpg", ".jpeg", ".avif", ".svg", ".latent"))
CHUNK = 16
"""Files that a process is handed at once."""
FEW = 200
"""Files that one process has looked at before others have begun."""
TRACES = (b"workflow", b"prompt", b"class_type")  # one of these stands in every picture that carries a workflow


@dataclass(frozen=True)
class Surveyed:
    """One file, and how far it came.

    `state` is the furthest: refused, converted, understood (every class is here), files missing (valid but for models
    and pictures that are not here), or valid. `agrees`: whether a picture's drawing converts to its prompt. `ms`:
    milliseconds of processor time that reading and converting took.
    """

    file: str
    state: str
    nodes: int = 0
    missing: Sequence[str] = ()
    problems: Sequence[str] = ()
    agrees: bool | None = None
    warnings: Sequence[str] = field(default_factory=list)
    ms: float = 0.0


def files_in(folder: Path) -> list[Path]:
    """The files that may carry a workflow, by name."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())


def survey(
    files: Sequence[Path],
    root: Path,
    nodes: Mapping[str, Node],
    declarations: Mapping[str, Any],
    services: Services,
    processes: int | None = None,
    looked_at: Callable[[int], None] = lambda count: None,
) -> Iterator[Surveyed]:
    """A record for each file that is a workflow, in their order; other JSON files and pictures are passed over.

    `processes` is how many look at once: as a rule one for each core where there are many files. `looked_at` is told
    how many files more are done.
    """
    look = _Look(root, nodes, declarations, services)
    chunks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    count = min(len(chunks), _cores(len(files)) if processes is None else processes)
    for chunk, records in zip(chunks, _shared(chunks, look, count) if count > 1 else map(look, chunks), strict=True):
        yield from records
        looked_at(len(chunk))


@dataclass(frozen=True)
class _Look:
    """Looks at files. What it needs to know is never sent between processes: a copy has it."""

    root: Path
    nodes: Mapping[str, Node]
    declarations: Mapping[str, Any]
    services: Services

    def __call__(self, files: Sequence[Path]) -> list[Surveyed]:
        known = self.nodes, self.declarations, self.services
        records = (_look(path, str(path.relative_to(self.root)), *known) for path in files)
        return [record for record in records if record is not None]


_HERE: list[_Look] = []
"""What this process looks with, where it is a copy that looks."""


def _cores(files: int) -> int:
    """How many processes are worth it. Only Linux copies a process with its threads' libraries safely."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" and files > FEW else 1


def _shared(chunks: Sequence[Sequence[Path]], look: _Look, processes: int) -> Iterator[list[Surveyed]]:
    """The records of each chunk, in their order; what a process that died had and was to get is looked at here."""
    copies = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, copies, initializer=_begin, initargs=(look,)) as pool:
        try:
            for chunk, waiting in zip(chunks, list(_submitted(pool, chunks)), strict=True):
                try:
                    yield waiting.result()
                except BrokenProcessPool:
                    yield look(chunk)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _submitted(pool: ProcessPoolExecutor, chunks: Sequence[Sequence[Path]]) -> Iterator[Future[list[Surveyed]]]:
    """Each chunk handed on; where a copy died already, the future says so."""
    for chunk in chunks:
        try:
            yield pool.submit(_look_here, chunk)
        except BrokenProcessPool as broken:
            refused: Future[list[Surveyed]] = Future()
            refused.set_exception(broken)
            yield refused


def _begin(look: _Look) -> None:
    """A copy begins: whoever interrupts means the process that asked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _HERE.append(look)


def _look_here(files: Sequence[Path]) -> list[Surveyed]:
    return _HERE[-1](files)


def _look(
    path: Path, name: str, nodes: Mapping[str, Node], declarations: Mapping[str, Any], services: Services
) -> Surveyed | None:
    data, began = b"", time.process_time()
    try:
        data = read_file(path)
        found = _read(data, declarations)
    except EngineError as error:
        is_other = path.suffix.lower() != ".json" and data and not any(trace in data for trace in TRACES)
        return None if is_other else Surveyed(name, "refused", problems=(str(error),))
    if found is None:
        return None
    workflow, both = found
    took = round(1000 * (time.process_time() - began), 2)
    missing = sorted({node.class_type for node in workflow.nodes.values()} - set(nodes))
    agrees = _agrees(both, declarations) if both else None
    seen: dict[str, Any] = {"nodes": len(workflow.nodes), "warnings": workflow.warnings, "agrees": agrees, "ms": took}
    if missing:
        return Surveyed(name, "converted", missing=missing, **seen)
    try:
        validate(workflow, nodes, services)
    except InvalidWorkflow as invalid:
        problems = [str(problem) for problem in invalid.problems]
        is_files = all(_is_file(workflow, nodes, problem) for problem in invalid.problems)
        return Surveyed(name, "files missing" if is_files else "understood", problems=problems, **seen)
    return Surveyed(name, "valid", **seen)


def _read(data: bytes, declarations: Mapping[str, Any]) -> tuple[Workflow, Mapping[str, str]] | None:
    """What a file holds, and the two texts of a picture with both; None where it does not mean to hold a workflow.

    Lists, settings and pictures without one are not counted as failures.
    """
    if not is_carrier(data):
        document = parse_json(data)
        return (parse_workflow(document, declarations), {}) if _is_workflow(document) else None
    warnings: list[str] = []
    texts = carried_texts(data, warnings.append)
    if not {"prompt", "workflow"} & texts.keys():
        return None
    workflow = read_texts(texts, declarations)
    whole = Workflow(workflow.nodes, workflow.editor, (*warnings, *workflow.warnings))
    return whole, texts if {"prompt", "workflow"} <= texts.keys() else {}


def _is_workflow(document: Any) -> bool:
    if not isinstance(document, dict):
        return False
    has_nodes = isinstance(document.get("nodes"), list)
    return has_nodes or any(isinstance(node, dict) and "class_type" in node for node in document.values())


def _agrees(texts: Mapping[str, str], declarations: Mapping[str, Any]) -> bool:
    """Whether a picture's drawing converts to its prompt."""
    try:
        prompt, drawing = (parse_workflow(parse_json(texts[name]), declarations) for name in ("prompt", "workflow"))
    except BadDocument:
        return False
    return agree(prompt, drawing)


def _is_file(workflow: Workflow, nodes: Mapping[str, Node], problem: Any) -> bool:
    """Whether a problem is a model or picture that is not in its folder here."""
    node = workflow.nodes.get(problem.node_id or "")
    declared = nodes[node.class_type].declared.get(problem.input or "") if node is not None else None
    return problem.code == "value_not_in_list" and declared is not None and declared.file is not None


def totals(records: Sequence[Surveyed]) -> dict[str, Any]:
    """How many files came how far, and the missing classes by the number of files that want them."""
    states = Counter(record.state for record in records)
    missing = Counter(name for record in records for name in record.missing)
    both = [record.agrees for record in records if record.agrees is not None]
    return {
        "files": len(records),
        "converted": len(records) - states["refused"],
        "understood": states["understood"] + states["files missing"] + states["valid"],
        "valid but for files": states["files missing"] + states["valid"],
        "valid": states["valid"],
        "pictures with both": len(both),
        "of them equal": sum(both),
        "missing classes": [{"class": name, "files": count} for name, count in missing.most_common()],
    }
