from typing import Any

import pytest
import torch

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.validate import validate
from sigmagraph.nodes import NODES

DRAWN = [
    {"x": 192, "y": 384, "width": 288, "height": 352, "metadata": {"type": "obj", "desc": "a duck", "palette": []}},
    {"x": 0, "y": 0, "width": 896, "height": 96, "metadata": {"type": "text", "text": "Ducks", "palette": ["#f00"]}},
]


def made(**inputs: Any) -> Any:
    return NODES["CreateBoundingBoxes"](**{"width": 896, "height": 1152, **inputs})


def test_boxes_of_the_editor_become_rectangles_and_elements() -> None:
    preview, boxes, elements = made(editor_state=DRAWN)
    assert preview.shape == (1, 1152, 896, 3)
    assert boxes == [{side: box[side] for side in ("x", "y", "width", "height")} for box in DRAWN]
    assert elements == [
        {"type": "obj", "bbox": [333, 214, 639, 536], "desc": "a duck", "color_palette": []},
        {"type": "text", "bbox": [0, 0, 83, 1000], "text": "Ducks", "desc": "", "color_palette": ["#f00"]},
    ]


def test_elements_come_back_as_the_boxes_they_were_made_from() -> None:
    _, boxes, elements = made(editor_state=DRAWN)
    _, again, same = made(bboxes=elements)
    for element, other in zip(elements, same, strict=True):
        assert {**other, "bbox": None} == {**element, "bbox": None}
        assert all(abs(one - two) <= 1 for one, two in zip(element["bbox"], other["bbox"], strict=True))
    for box, other in zip(boxes, again, strict=True):
        assert all(abs(box[side] - other[side]) <= 1 for side in box)


@pytest.mark.parametrize(
    "incoming", [{"x": 1, "y": 2, "width": 3, "height": 4}, '[{"x":1,"y":2,"width":3,"height":4}]']
)
def test_what_comes_in_counts_until_the_editor_has_seen_it(incoming: Any) -> None:
    expected = [{"x": 1, "y": 2, "width": 3, "height": 4}]
    assert made(editor_state=DRAWN, bboxes=incoming)[1] == expected
    assert len(made(editor_state=DRAWN, bboxes=incoming, last_incoming=expected)[1]) == 2


@pytest.mark.parametrize("wrong", ["{", 5, [5], [{"x": 1}], [{"bbox": [1, 2, 3]}], [{"x": "a"}], [{}] * 1001])
def test_what_is_no_rectangle_is_refused_by_the_input_s_name(wrong: Any) -> None:
    with pytest.raises(BadValue, match="bboxes"):
        made(bboxes=wrong)


def test_a_stored_list_of_boxes_is_a_valid_literal() -> None:
    inputs = {"width": 1024, "height": 1024, "editor_state": {"__value__": DRAWN}, "last_incoming": {"__value__": []}}
    document = {
        "1": {"class_type": "CreateBoundingBoxes", "inputs": inputs},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    assert validate(parse_workflow(document), NODES).problems == []


def test_drawing_changes_the_outline_alone_and_each_picture_gets_its_own_boxes() -> None:
    image = torch.full((2, 100, 100, 3), 0.5)
    box = {"x": 20, "y": 30, "width": 40, "height": 50}
    both = NODES["DrawBBoxes"](bboxes=box, image=image)
    changed = (both != image).any(-1)
    outline = torch.zeros(100, 100, dtype=torch.bool)
    outline[30:80, 20:60] = True
    outline[31:79, 21:59] = False
    assert torch.equal(changed, outline.expand(2, -1, -1))
    own = NODES["DrawBBoxes"](bboxes=[[box], []], image=image)
    assert torch.equal(own[0], both[0])
    assert torch.equal(own[1], image[1])
    with pytest.raises(BadValue, match="3 lists"):
        NODES["DrawBBoxes"](bboxes=[[box], [], []], image=image)


def test_without_a_picture_the_ground_holds_every_box() -> None:
    found = NODES["DrawBBoxes"](bboxes=[{"x": 600, "y": 10, "width": 200, "height": 20, "label": "cat", "score": 0.5}])
    assert found.shape == (1, 640, 800, 3)
    assert bool(found.any())
    with pytest.raises(BadValue, match="16384"):
        NODES["DrawBBoxes"](bboxes=[{"x": 10**6, "y": 10, "width": 200, "height": 20}])
