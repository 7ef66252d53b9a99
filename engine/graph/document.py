"""Documents into `Workflow`: API form, editor form, and pictures that carry either. Knows nothing about node code.

Every refusal is a `BadDocument` that names the place. The caller's objects are never changed.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sigmagraph.engine.errors import BadDocument, MissingFile
from sigmagraph.engine.graph.editor import convert
from sigmagraph.engine.graph.image_metadata import carried_texts, is_carrier
from sigmagraph.engine.graph.workflow import NOTHING, Workflow, WorkflowNode, as_link

MAX_BYTES = 256 * 1024 * 1024
MAX_VALUES = 1_000_000  # of one JSON text: a workflow of 20,000 nodes has half as many, and twice as many take a second
KINDS = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", int: "a number", float: "a number"}


def load_workflow(path: Path, declarations: Mapping[str, Any] | None = None) -> Workflow:
    """Read a workflow file of any kind: JSON in API or editor form, or a PNG, WebP or JPEG that carries one.

    `declarations` (class -> `/object_info` form) are needed for the editor form only.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadDocument(f"{path}: larger than {MAX_BYTES} bytes; no workflow is")
        data = path.read_bytes()
    except OSError as error:
        raise MissingFile(path, error.strerror or "cannot be read") from error
    try:
        return read_workflow(data, declarations)
    except BadDocument as problem:
        raise BadDocument(f"{path}: {problem}") from problem


def read_workflow(data: bytes | str, declarations: Mapping[str, Any] | None = None) -> Workflow:
    """Bytes or text of a document -> Workflow."""
    if isinstance(data, bytes) and is_carrier(data):
        return _from_picture(carried_texts(data), declarations)
    return parse_workflow(parse_json(data), declarations)


def parse_workflow(document: Any, declarations: Mapping[str, Any] | None = None) -> Workflow:
    """A parsed JSON document in API form, editor form, or an API body (`{"prompt": ..., "extra_data": ...}`)."""
    if not isinstance(document, dict):
        raise BadDocument(f"the document is {_kind(document)}; expected an object")
    if isinstance(document.get("nodes"), list):
        prompt, warnings = convert(document, declarations or {})
        return Workflow(_nodes(prompt), document, tuple(warnings))
    if "prompt" in document and "class_type" not in _mapping(document["prompt"]):
        picture = _mapping(_mapping(document.get("extra_data")).get("extra_pnginfo"))
        editor = picture.get("workflow")
        return Workflow(_nodes(document["prompt"]), editor if isinstance(editor, dict) else None)
    return Workflow(_nodes(document))


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
        raise BadDocument(f"not JSON and not a picture we read: byte {error.start} is no text") from error
    except ValueError as error:
        raise BadDocument(f"not a workflow: {error}") from error  # a number of more digits than Python reads
    except RecursionError as error:
        raise BadDocument("not a workflow: the JSON is nested too deeply") from error


def _count_values(data: bytes | str) -> int:
    """About how many, before any is made; separators inside texts count too."""
    if isinstance(data, str):
        return sum(data.count(mark) for mark in ",[{")
    return sum(data.count(mark) for mark in b",[{")


def _from_picture(texts: Mapping[str, str], declarations: Mapping[str, Any] | None) -> Workflow:
    """Prefer `prompt`: it is exact and needs no conversion; keep `workflow` beside it."""
    editor = parse_json(texts["workflow"]) if "workflow" in texts else None
    if "prompt" in texts:
        workflow = parse_workflow(parse_json(texts["prompt"]), declarations)
        return Workflow(workflow.nodes, editor if isinstance(editor, dict) else None, workflow.warnings)
    if editor is None:
        raise BadDocument("the picture carries no workflow: no text 'prompt' or 'workflow'")
    return parse_workflow(editor, declarations)


def _nodes(prompt: Any) -> dict[str, WorkflowNode]:
    """Read an API prompt; a node without class stays, validation names it beside all other problems."""
    if not isinstance(prompt, dict):
        raise BadDocument(f"the prompt is {_kind(prompt)}; expected an object of nodes")
    return {node_id: _node(node_id, node) for node_id, node in prompt.items()}


def _node(node_id: str, node: Any) -> WorkflowNode:
    if not isinstance(node, dict):
        raise BadDocument(f"node {node_id}: is {_kind(node)}; expected an object with class_type and inputs")
    class_type, inputs = node.get("class_type", ""), node.get("inputs", {})
    if not isinstance(class_type, str):
        raise BadDocument(f"node {node_id}: class_type is {_kind(class_type)}; expected a text")
    if not isinstance(inputs, dict):
        raise BadDocument(f"node {node_id} ({class_type}): inputs is {_kind(inputs)}; expected an object")
    read = {name: as_link(value) or value if type(value) is list else value for name, value in inputs.items()}
    meta = node.get("_meta")
    return WorkflowNode(class_type, read, meta if isinstance(meta, dict) else NOTHING)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _kind(value: Any) -> str:
    return KINDS.get(type(value), "null" if value is None else type(value).__name__)
