"""A labelled contact sheet: a row per sampler, schedule, guidance and seed, a column per step count."""

from collections.abc import Sequence
from io import BytesIO

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sigmagraph.engine.compose.comparison.cells import CellOutcome

__all__ = ["contact_sheet"]

GAP, HEADER, MARGIN = 6, 26, 8
LARGEST_TILE = 256
INK, PAPER, WARNING = "#1c1c1c", "#ffffff", "#b3261e"


def contact_sheet(outcomes: Sequence[CellOutcome]) -> bytes:
    """PNG bytes; a cell that failed says so in its place."""
    rows = list(dict.fromkeys(_row(outcome) for outcome in outcomes))
    columns = sorted({outcome.cell.steps for outcome in outcomes})
    tile = _tile_size(outcomes)
    font = ImageFont.load_default(15)
    labels = ["\n".join(row) for row in rows]
    gutter = int(max(max(font.getlength(line) for line in label.split("\n")) for label in labels)) + 2 * MARGIN
    size = gutter + len(columns) * (tile[0] + GAP), HEADER + len(rows) * (tile[1] + GAP)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, steps in enumerate(columns):
        draw.text((gutter + column * (tile[0] + GAP) + 2, 5), f"{steps} steps", INK, font)
    for row, label in enumerate(labels):
        draw.multiline_text((MARGIN, HEADER + row * (tile[1] + GAP) + 4), label, INK, font)
    for outcome in outcomes:
        row, column = rows.index(_row(outcome)), columns.index(outcome.cell.steps)
        corner = gutter + column * (tile[0] + GAP), HEADER + row * (tile[1] + GAP)
        if outcome.picture is None:
            draw.rectangle((*corner, corner[0] + tile[0] - 1, corner[1] + tile[1] - 1), outline=WARNING)
            draw.text((corner[0] + 6, corner[1] + 6), "failed", WARNING, font)
        else:
            sheet.paste(_tile(outcome.picture, tile), corner)
    return _png(sheet)


def _row(outcome: CellOutcome) -> tuple[str, ...]:
    """The words at the left of its row; guidance and seed only where they are set."""
    cell = outcome.cell
    return (cell.sampler, cell.schedule, *cell.extras)


def _tile_size(outcomes: Sequence[CellOutcome]) -> tuple[int, int]:
    """Width and height of every picture on the sheet."""
    picture = next((outcome.picture for outcome in outcomes if outcome.picture is not None), torch.zeros(64, 64, 3))
    height, width = picture.shape[:2]
    scale = min(1.0, LARGEST_TILE / max(height, width))
    return round(width * scale), round(height * scale)


def _tile(picture: Tensor, size: tuple[int, int]) -> Image.Image:
    pixels = (picture * 255).clamp(0, 255).to(torch.uint8).cpu().numpy()
    return Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)


def _png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
