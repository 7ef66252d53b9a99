"""Rectangles in pictures: set up for prompts that place things, and drawn over pictures."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import Optional, Output, Range, Socket, Tooltip, node
from sigmagraph.engine.sampling.resize import resized
from sigmagraph.nodes.support.drawn_boxes import Drawn, drawn_over
from sigmagraph.nodes.support.types import Image

__all__ = ["NODES"]

Side = Annotated[int, Range(64, 16384, step=16)]
Boxes = Annotated[Any, Socket("BOUNDING_BOXES")]
SIDES = ("x", "y", "width", "height")
GRID = 1000  # places of prompts run from 0 to this, from the upper left corner
LEAST = 640  # side of the empty ground that boxes are drawn on
MAX_BOXES = 1000
BOX_TIP = "A rectangle, a list of them, elements with a bbox of (top, left, bottom, right) in thousandths, or JSON."


@node(
    "CreateBoundingBoxes",
    category="utils",
    display_name="Create Bounding Boxes",
    outputs=[Output("IMAGE", "preview"), Output("BOUNDING_BOX", "bboxes"), Output("ARRAY", "elements")],
)
def create_bounding_boxes(
    *,
    width: Annotated[Side, Tooltip("Of the canvas, in pixels.")] = 1024,
    height: Annotated[Side, Tooltip("Of the canvas, in pixels.")] = 1024,
    editor_state: Annotated[Boxes, Tooltip("The rectangles drawn in the editor, the nearest last.")] = (),
    last_incoming: Annotated[Boxes, Optional(), Tooltip("What `bboxes` was when the canvas was filled.")] = (),
    background: Image | None = None,
    bboxes: Annotated[Any, Socket("BOUNDING_BOX,ARRAY,STRING"), Tooltip(BOX_TIP)] = None,
) -> tuple[Image, list[dict[str, int]], list[dict[str, Any]]]:
    """Rectangles with what is to be in them: drawn in the editor, or handed in where the editor has not seen them."""
    drawn, handed = _boxes("editor_state", editor_state, width, height), _boxes("bboxes", bboxes, width, height)
    if handed and handed != _boxes("last_incoming", last_incoming, width, height):
        drawn = handed
    ground = torch.zeros(1, height, width, 3)
    if background is not None:
        planes = background[:1, ..., :3].movedim(-1, 1)
        ground = resized(planes, width, height, "bilinear").movedim(1, -1)
    shown = [_drawn(box, _label(box), _palette(box)) for box in drawn]
    plain = [{side: box[side] for side in SIDES} for box in drawn]
    return drawn_over(ground[0], shown)[None], plain, [_element(box, width, height) for box in drawn]


@node("DrawBBoxes", category="image", display_name="Draw BBoxes", outputs=[Output("IMAGE", "out_image")])
def draw_bboxes(*, bboxes: Annotated[Any, Socket("BOUNDING_BOX")], image: Image | None = None) -> Image:
    """Draw rectangles with their labels and scores. A list of lists has some for each picture, else all have all."""
    rows = bboxes if isinstance(bboxes, Sequence) and bboxes and _is_rows(bboxes) else [bboxes]
    read = [_boxes("bboxes", row, 1, 1) for row in rows]
    if image is None:
        right = max((box["x"] + box["width"] for row in read for box in row), default=0)
        bottom = max((box["y"] + box["height"] for row in read for box in row), default=0)
        if max(right, bottom) > 16384:
            raise BadValue("bboxes", f"a rectangle to {right}, {bottom}", "places below 16384, where there is no image")
        image = torch.zeros(len(read), max(bottom, LEAST), max(right, LEAST), 3)
    if len(read) not in (1, len(image)):
        raise BadValue("bboxes", f"{len(read)} lists", f"one list, or {len(image)} as there are pictures")
    made = [_with_boxes(one, read[place % len(read)]) for place, one in enumerate(image)]
    return torch.stack(made)


def _with_boxes(image: Tensor, boxes: Sequence[Mapping[str, Any]]) -> Tensor:
    shown = [_drawn(box, _scored(box)) for box in boxes]
    return torch.cat([drawn_over(image[..., :3], shown), image[..., 3:]], dim=-1)


def _drawn(box: Mapping[str, Any], label: str, palette: Sequence[str] = ()) -> Drawn:
    return Drawn(box["x"], box["y"], box["width"], box["height"], label, palette)


def _is_rows(value: Sequence[Any]) -> bool:
    return all(isinstance(row, Sequence) and not isinstance(row, str) for row in value)


def _boxes(name: str, value: Any, width: int, height: int) -> list[dict[str, Any]]:
    """Rectangles in pixels, in any of the forms they come in. Raises `BadValue` for other things."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else []
        except ValueError as error:
            raise BadValue(name, value[:100], f"JSON ({error})") from error
    given = [value] if isinstance(value, Mapping) else () if value is None else value
    if not isinstance(given, Sequence) or len(given) > MAX_BOXES:
        raise BadValue(name, type(value).__name__, f"{BOX_TIP} At most {MAX_BOXES}.")
    return [_box(name, one, width, height) for one in given]


def _box(name: str, given: Any, width: int, height: int) -> dict[str, Any]:
    try:
        said = dict(given.get("metadata") or {})
        if "bbox" in given:
            top, left, bottom, right = (float(value) / GRID for value in given["bbox"])
            x, y, end_x, end_y = (
                round(place) for place in (left * width, top * height, right * width, bottom * height)
            )
            places: tuple[float, ...] = (x, y, end_x - x, end_y - y)
            said = {"palette": given.get("color_palette") or [], **given}
        else:
            places = tuple(float(given[side]) for side in SIDES)
        numbers = {side: round(value) for side, value in zip(SIDES, places, strict=True)}
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadValue(f"{name}: a rectangle", str(given)[:100], BOX_TIP) from error
    kept = {key: said[key] for key in ("type", "text", "desc", "palette") if key in said}
    return {**numbers, **kept, **{key: given[key] for key in ("label", "score") if key in given}}


def _element(box: Mapping[str, Any], width: int, height: int) -> dict[str, Any]:
    """One thing of a prompt that places things: its corners in thousandths, top before left."""
    corners = (box["y"] / height, box["x"] / width)
    ends = ((box["y"] + box["height"]) / height, (box["x"] + box["width"]) / width)
    kind = str(box.get("type") or "obj")
    words = {"text": str(box.get("text") or "")} if kind == "text" else {}
    places = [min(max(round(share * GRID), 0), GRID) for share in (*corners, *ends)]
    return {"type": kind, "bbox": places, **words, "desc": str(box.get("desc") or ""), "color_palette": _palette(box)}


def _palette(box: Mapping[str, Any]) -> list[str]:
    palette = box.get("palette")
    return [str(colour) for colour in palette] if isinstance(palette, list | tuple) else []


def _label(box: Mapping[str, Any]) -> str:
    return str(box.get("text") or box.get("desc") or box.get("type") or "")


def _scored(box: Mapping[str, Any]) -> str:
    label = str(box.get("label") or "")
    score = box.get("score")
    return f"{label} {score:.2f}".strip() if isinstance(score, int | float) else label


NODES = (create_bounding_boxes, draw_bboxes)
