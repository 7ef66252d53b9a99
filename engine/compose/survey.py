"""A folder of workflow files, looked at one by one: what can be read, whose classes are all here, what would run.

One file's trouble is its own: whatever is wrong with it is in its line, and the others go on.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    files: Iterable[Path],
    root: Path,
    nodes: Mapping[str, Node],
    declarations: Mapping[str, Any],
    services: Services,
    looked_at: Callable[[], None] = lambda: None,
) -> Iterator[Surveyed]:
    """A record for each file that is a workflow; other JSON files and pictures are passed over."""
    for path in files:
        record = _look(path, str(path.relative_to(root)), nodes, declarations, services)
        looked_at()
        if record is not None:
            yield record


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
