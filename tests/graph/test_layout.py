import json
from typing import Any

import pytest

from sigmagraph.engine.errors import BadDocument
from sigmagraph.engine.graph.editor import convert, drawn
from sigmagraph.engine.graph.editor.columns import Box, placed
from sigmagraph.engine.graph.editor.layout import escaped
from sigmagraph.engine.graph.editor.texts import dynamic_prompt
from tests.graph.test_editor import NODES

PROMPT: dict[str, Any] = {
    "2": {"class_type": "ImageScaleBy", "inputs": {"image": ["1", 0], "upscale_method": "area", "scale_by": 2.5}},
    "1": {"class_type": "LoadImage", "inputs": {"image": "a.png", "strength": 1}},
    "7:3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
    "4": {
        "class_type": "Sample",
        "inputs": {"seed": 7, "steps": ["5", 0], "name": "heun"},
        "_meta": {"title": "draft"},
    },
    "5": {"class_type": "Sample", "inputs": {"seed": 8, "steps": 9, "name": "euler"}},
}


def there_and_back(prompt: dict[str, Any]) -> dict[str, Any]:
    """Through the file: JSON, not objects."""
    back, warnings = convert(json.loads(json.dumps(drawn(prompt, NODES))), NODES)
    assert warnings == []
    return back


def inputs(prompt: dict[str, Any]) -> dict[str, Any]:
    return {node_id: (node["class_type"], node["inputs"]) for node_id, node in prompt.items()}


def test_a_drawn_prompt_converts_to_itself() -> None:
    back = there_and_back(PROMPT)
    assert inputs(back) == inputs(PROMPT)
    assert back["4"]["_meta"] == {"title": "draft"}


def test_the_second_round_trip_changes_nothing() -> None:
    once = there_and_back({"1": {"class_type": "Sample", "inputs": {}}})
    assert once["1"]["inputs"] == {"seed": 0, "steps": 20, "name": "euler"}
    assert there_and_back(once) == once


def test_seeds_are_drawn_with_their_control_fixed() -> None:
    node = next(written for written in drawn(PROMPT, NODES)["nodes"] if written["id"] == 5)
    assert node["widgets_values"] == [8, "fixed", 9, "euler"]


@pytest.mark.parametrize(
    "text",
    ["a {red|blue} cat", r"\{ and \\{", "http://x/*y*/ //z", "///", "/*", "}{|", "plain", r"back\slash", "{a|{b|c}}"],
)
def test_texts_that_look_like_choices_or_comments_stay_as_they_are(text: str) -> None:
    assert dynamic_prompt(escaped(text)) == text
    assert there_and_back({"1": {"class_type": "Text", "inputs": {"text": text}}})["1"]["inputs"] == {"text": text}


def test_every_unknown_class_is_named_at_once() -> None:
    prompt = {"1": {"class_type": "LoadImag", "inputs": {}}, "2": {"class_type": "Zzz", "inputs": {}}}
    with pytest.raises(BadDocument, match=r"'LoadImag'; did you mean 'LoadImage'\?, 'Zzz'"):
        drawn(prompt, NODES)


def test_every_node_stands_right_of_what_it_needs_and_none_overlap() -> None:
    nodes = {node["id"]: node for node in drawn(PROMPT, NODES)["nodes"]}
    document = drawn(PROMPT, NODES)
    for _, origin, _, target, _, _ in document["links"]:
        left, right = nodes[origin], nodes[target]
        assert left["pos"][0] + left["size"][0] < right["pos"][0]
    boxes = [(*node["pos"], *node["size"]) for node in nodes.values()]
    for at, (x, y, w, h) in enumerate(boxes):
        for u, v, m, n in boxes[:at]:
            assert x + w <= u or u + m <= x or y + h <= v or v + n <= y


def test_what_needs_nothing_stands_beside_who_needs_it() -> None:
    size = 10, 10
    boxes = {"a": Box(*size), "b": Box(*size, ("a",)), "c": Box(*size, ("b", "late")), "late": Box(*size)}
    spots = placed(boxes)
    assert spots["late"][0] == spots["b"][0]


def test_lines_are_untangled() -> None:
    boxes = {name: Box(10, 10) for name in "abc"}
    boxes |= {"z": Box(10, 10, ("a",)), "y": Box(10, 10, ("b",)), "x": Box(10, 10, ("c",))}
    boxes = dict(sorted(boxes.items()))
    spots = placed(boxes)
    for left, right in ("az", "by", "cx"):
        assert spots[left][1] == spots[right][1]


def test_a_ring_is_drawn_too() -> None:
    prompt = {
        "1": {"class_type": "ImageScaleBy", "inputs": {"image": ["2", 0], "upscale_method": "area", "scale_by": 1}},
        "2": {"class_type": "ImageScaleBy", "inputs": {"image": ["1", 0], "upscale_method": "area", "scale_by": 1}},
    }
    assert inputs(there_and_back(prompt)) == inputs(prompt)
