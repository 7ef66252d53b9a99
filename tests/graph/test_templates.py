"""The files of comfyui-workflow-templates convert to what ComfyUI's own editor makes of them, node by node.

Needs the extra `templates`; run with `pytest -m templates`. What is compared with: tests/data/conversion/README.md.
"""

import gzip
import hashlib
import importlib.metadata
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from sigmagraph.engine.errors import BadDocument
from sigmagraph.engine.graph.editor import convert, drawn

pytestmark = pytest.mark.templates

DATA = Path(__file__).parents[1] / "data/conversion"
VERSION = "0.1.95"


def read(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(gzip.decompress((DATA / f"{name}.json.gz").read_bytes()))
    return data


EXPECTED, DECLARATIONS = read("expected"), read("declarations")


@cache
def folder() -> Path:
    package = importlib.metadata.distribution("comfyui-workflow-templates")
    assert package.version == VERSION
    return Path(str(package.locate_file("comfyui_workflow_templates/templates")))


def template(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder() / name).read_text())
    return document


def digest(node: Any) -> str:
    text = json.dumps(plain(node), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def plain(value: Any) -> Any:
    """As JavaScript writes numbers: 1.0 is 1."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def test_there_are_107_files_and_16_inputs_a_browser_alone_makes() -> None:
    assert len(EXPECTED) == 107
    browser = [place for expected in EXPECTED.values() for place in expected["browser"]]
    assert len(browser) == 16
    assert {place.split(".")[-1] for place in browser} == {"audioUI", "preview", "image"}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_real_file_converts_to_the_editors_own_prompt(name: str) -> None:
    prompt, _ = convert(template(name), DECLARATIONS)
    assert {node_id: digest(node) for node_id, node in prompt.items()} == EXPECTED[name]["nodes"]
    for node_id, _, left_out in (place.rpartition(".") for place in EXPECTED[name]["browser"]):
        assert left_out not in DECLARATIONS[prompt[node_id]["class_type"]]["input"].get("required", {})


@pytest.mark.parametrize("name", EXPECTED)
def test_editor_to_api_and_back_twice_is_stable(name: str) -> None:
    prompt, _ = convert(template(name), DECLARATIONS)
    unknown = {node["class_type"] for node in prompt.values()} - set(DECLARATIONS)
    if unknown:
        with pytest.raises(BadDocument) as refusal:
            drawn(prompt, DECLARATIONS)
        assert all(repr(class_type) in str(refusal.value) for class_type in unknown)
        return
    document = drawn(prompt, DECLARATIONS)
    again, warnings = convert(document, DECLARATIONS)
    assert (again, warnings) == (prompt, [])
    assert drawn(again, DECLARATIONS) == document
