"""Of a picture that holds a prompt and a drawing, the right one is taken, and what was taken is said."""

import io
import json
from typing import Any

import PIL.Image
import PIL.PngImagePlugin
import pytest

from sigmagraph.engine.errors import BadDocument
from sigmagraph.engine.graph.reading.document import read_texts, read_workflow
from tests.graph.test_editor import NODES

PROMPT: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 32, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "from the prompt"}},
}
DRAWING: dict[str, Any] = {
    "nodes": [
        {"id": 1, "type": "EmptyImage", "outputs": [{"links": [1]}], "widgets_values": [64, 32, 1, 0]},
        {
            "id": 2,
            "type": "SaveImage",
            "inputs": [{"name": "images", "type": "IMAGE", "link": 1}],
            "widgets_values": ["from the drawing"],
        },
    ],
    "links": [[1, 1, 0, 2, 0, "IMAGE"]],
}


def png(**texts: Any) -> bytes:
    info = PIL.PngImagePlugin.PngInfo()
    for name, value in texts.items():
        info.add_text(name, json.dumps(value))
    data = io.BytesIO()
    PIL.Image.new("RGB", (1, 1)).save(data, "PNG", pnginfo=info)
    return data.getvalue()


def without(prompt: dict[str, Any], node_id: str, name: str) -> dict[str, Any]:
    inputs = {key: value for key, value in prompt[node_id]["inputs"].items() if key != name}
    return {**prompt, node_id: {**prompt[node_id], "inputs": inputs}}


def prefix(data: bytes, **options: Any) -> Any:
    workflow = read_workflow(data, NODES, **options)
    (saver,) = [node for node in workflow.nodes.values() if node.class_type == "SaveImage"]
    return saver.inputs["filename_prefix"], list(workflow.warnings)


def test_of_one_graph_the_prompt_counts_with_the_values_it_ran_with() -> None:
    assert prefix(png(prompt=PROMPT, workflow=DRAWING)) == ("from the prompt", [])


def test_other_ids_and_another_order_are_still_one_graph() -> None:
    renamed = {"b:7": {**PROMPT["2"], "inputs": {**PROMPT["2"]["inputs"], "images": ["a:1", 0]}}, "a:1": PROMPT["1"]}
    assert prefix(png(prompt=renamed, workflow=DRAWING)) == ("from the prompt", [])


def test_a_prompt_that_lacks_a_required_input_gives_way_to_its_drawing() -> None:
    found, warnings = prefix(png(prompt=without(PROMPT, "1", "height"), workflow=DRAWING))
    assert found == "from the drawing"
    assert "prompt lacks 1.height" in warnings[0]


def test_of_two_graphs_the_drawing_counts_and_it_is_said() -> None:
    other = {
        "1": PROMPT["1"],
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        "2": {**PROMPT["2"], "inputs": {"images": ["1", 0], "filename_prefix": "from the prompt"}},
    }
    found, warnings = prefix(png(prompt=other, workflow=DRAWING))
    assert found == "from the drawing"
    assert warnings == [
        "the picture holds a drawing of 2 nodes and a prompt of 3 that is another graph; the drawing is taken "
        "(--form prompt takes the other)"
    ]
    swapped = {**PROMPT, "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
    assert "another graph" in read_workflow(png(prompt=swapped, workflow=DRAWING), NODES).warnings[0]


def test_beside_a_lock_the_prompt_counts_whatever_was_drawn() -> None:
    other = {**PROMPT, "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
    assert prefix(png(prompt=other, workflow=DRAWING, lock={})) == ("from the prompt", [])


@pytest.mark.parametrize("damage", [{"nodes": []}, {"nodes": [1]}, {"nodes": [{"id": 1, "type": "Unheard"}]}])
def test_a_drawing_that_is_not_whole_leaves_the_prompt(damage: dict[str, Any]) -> None:
    assert prefix(png(prompt=PROMPT, workflow=damage))[0] == "from the prompt"


def test_the_form_can_be_forced_and_what_is_missing_is_an_error() -> None:
    both = png(prompt=PROMPT, workflow=DRAWING)
    assert prefix(both, form="drawing") == ("from the drawing", [])
    assert prefix(png(prompt=without(PROMPT, "1", "height"), workflow=DRAWING), form="prompt")[0] == "from the prompt"
    with pytest.raises(BadDocument, match="carries no drawing"):
        read_workflow(png(prompt=PROMPT), NODES, form="drawing")
    with pytest.raises(BadDocument, match="carries no prompt"):
        read_workflow(png(workflow=DRAWING), NODES, form="prompt")


@pytest.mark.parametrize("form", ["auto", "prompt"])
def test_a_drawing_that_is_no_json_leaves_the_prompt(form: str) -> None:
    texts = {"prompt": json.dumps(PROMPT), "workflow": "{broken"}
    workflow = read_texts(texts, NODES, form)  # type: ignore[arg-type]  # one of them
    assert list(workflow.nodes) == ["1", "2"]
    assert "drawing cannot be read: not JSON" in workflow.warnings[0]
    with pytest.raises(BadDocument, match="not JSON"):
        read_texts(texts, NODES, "drawing")


SENDER = {"class_type": "Anything Everywhere", "inputs": {"anything": ["1", 0]}}


def test_what_the_page_left_in_a_prompt_changes_nothing_unless_something_reads_it() -> None:
    left = {"9": SENDER, "8": {"class_type": "Note", "inputs": {}}, **PROMPT}
    value, warnings = prefix(png(prompt=left, workflow=DRAWING))
    assert value == "from the prompt"
    assert [warning.partition(":")[0] for warning in warnings] == ["node 9 (Anything Everywhere)", "node 8 (Note)"]
    read = {**PROMPT, "9": SENDER, "2": {**PROMPT["2"], "inputs": {**PROMPT["2"]["inputs"], "images": ["9", 0]}}}
    assert "9" in read_workflow(json.dumps(read)).nodes


def test_a_class_that_the_editor_renames_is_the_same_in_the_prompt_beside_it() -> None:
    old = {"1": {"class_type": "ConditioningAverage ", "inputs": {}}}
    assert read_workflow(json.dumps(old)).nodes["1"].class_type == "ConditioningAverage"
