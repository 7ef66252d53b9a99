"""Documents into `Workflow`: API form, editor form, and pictures that carry either. Knows nothing about node code.

Every refusal is a `BadDocument` that names the place. The caller's objects are never changed.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sigmagraph.engine.errors import BadDocument, MissingFile
from sigmagraph.engine.graph.declarations import known_replacements
from sigmagraph.engine.graph.editor import convert
from sigmagraph.engine.graph.reading.carried import Form, chosen
from sigmagraph.engine.graph.reading.image_metadata import carried_texts, is_carrier
from sigmagraph.engine.graph.reading.prompt import kind_of_value, nodes_of, without_page_nodes
from sigmagraph.engine.graph.replacements import replaced
from sigmagraph.engine.graph.workflow import Workflow

MAX_BYTES = 256 * 1024 * 1024
MAX_VALUES = 1_000_000  # of one JSON text: a workflow of 20,000 nodes has half as many, and twice as many take a second
UNREAD = "the picture's drawing cannot be read"


def load_workflow(path: Path, declarations: Mapping[str, Any] | None = None, form: Form = "auto") -> Workflow:
    """Read a workflow file of any kind: JSON in API or editor form, or a picture, drawing or latent that carries one.

    `declarations` (class -> `/object_info` form) are needed for the editor form only. `form` says which of a picture's
    two texts counts: `auto` follows the rule of `carried.py`.
    """
    data = read_file(path)
    try:
        return read_workflow(data, declarations, form)
    except BadDocument as problem:
        raise BadDocument(f"{path}: {problem}") from problem


def read_file(path: Path) -> bytes:
    """The bytes of a file that is no larger than a workflow may be."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadDocument(f"{path}: larger than {MAX_BYTES} bytes; no workflow is")
        return path.read_bytes()
    except OSError as error:
        raise MissingFile(path, error.strerror or "cannot be read") from error
    except ValueError as error:  # a zero byte
        raise MissingFile(repr(str(path)), "no file can be called that") from error


def read_workflow(data: bytes | str, declarations: Mapping[str, Any] | None = None, form: Form = "auto") -> Workflow:
    """The bytes or the text of a document -> Workflow."""
    if isinstance(data, bytes) and is_carrier(data):
        warnings: list[str] = []
        workflow = read_texts(carried_texts(data, warnings.append), declarations, form)
        return Workflow(workflow.nodes, workflow.editor, (*warnings, *workflow.warnings))
    return parse_workflow(parse_json(data), declarations)


def parse_workflow(document: Any, declarations: Mapping[str, Any] | None = None) -> Workflow:
    """A parsed JSON document in API form, editor form, or an API body (`{"prompt": ..., "extra_data": ...}`).

    Classes that are gone become those that stand in for them, as far as `declarations` (of type `Declarations`) know.
    """
    return replaced(_parsed(document, declarations), known_replacements(declarations))


def _parsed(document: Any, declarations: Mapping[str, Any] | None) -> Workflow:
    if not isinstance(document, dict):
        raise BadDocument(f"the document is {kind_of_value(document)}; expected an object")
    if isinstance(document.get("nodes"), list):
        prompt, warnings = convert(document, declarations or {})
        return Workflow(nodes_of(prompt), document, tuple(warnings))
    if "prompt" in document and "class_type" not in _mapping(document["prompt"]):
        picture = _mapping(_mapping(document.get("extra_data")).get("extra_pnginfo"))
        editor = picture.get("workflow")
        nodes, left_out = without_page_nodes(nodes_of(document["prompt"]))
        return Workflow(nodes, editor if isinstance(editor, dict) else None, left_out)
    nodes, left_out = without_page_nodes(nodes_of(document))
    return Workflow(nodes, warnings=left_out)


def parse_json(data: bytes | str) -> Any:
    """Strict enough JSON: says line and column; `NaN` is let through, because saved pictures contain it.

    Values are counted before any is made, by the characters that separate them: a small text can be a lot of objects.
    """
    if (count := _count_values(data)) > MAX_VALUES:
        raise BadDocument(f"the JSON holds about {count} values; expected at most {MAX_VALUES}")
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        raise BadDocument(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from error
    except UnicodeDecodeError as error:
        raise BadDocument(f"not JSON and not a picture we read: byte {error.start} is not text") from error
    except ValueError as error:
        raise BadDocument(f"not a workflow: {error}") from error  # a number of more digits than Python reads
    except RecursionError as error:
        raise BadDocument("not a workflow: the JSON is nested too deeply") from error


def _count_values(data: bytes | str) -> int:
    """About how many, before any is made; separators inside texts count too."""
    if isinstance(data, str):
        return sum(data.count(mark) for mark in ",[{")
    return sum(data.count(mark) for mark in b",[{")


def read_texts(
    texts: Mapping[str, str], declarations: Mapping[str, Any] | None = None, form: Form = "auto"
) -> Workflow:
    """A picture holds a prompt, a drawing or both; of two that differ, `chosen` says which counts."""
    try:
        editor = parse_json(texts["workflow"]) if "workflow" in texts else None
    except BadDocument as problem:  # the prompt is whole
        if "prompt" not in texts or form == "drawing":
            raise
        workflow = parse_workflow(parse_json(texts["prompt"]), declarations)
        return Workflow(workflow.nodes, None, (*workflow.warnings, f"{UNREAD}: {problem}"))
    if "prompt" not in texts or form == "drawing":
        if editor is None:
            missing = "drawing: no text 'workflow'" if form == "drawing" else "workflow: no text 'prompt' or 'workflow'"
            raise BadDocument(f"the picture carries no {missing}")
        if "prompt" not in texts and form == "prompt":
            raise BadDocument("the picture carries no prompt: no text 'prompt'")
        return parse_workflow(editor, declarations)
    workflow = parse_workflow(parse_json(texts["prompt"]), declarations)
    prompt = Workflow(workflow.nodes, editor if isinstance(editor, dict) else None, workflow.warnings)
    if form == "prompt" or "lock" in texts or declarations is None or not isinstance(editor, dict):
        return prompt
    try:
        return chosen(prompt, parse_workflow(editor, declarations), declarations)
    except BadDocument as problem:
        return Workflow(prompt.nodes, editor, (*prompt.warnings, f"{UNREAD}: {problem}"))


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
