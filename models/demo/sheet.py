"""The contact sheet: ten prompts, ten pictures of the checkpoint, each with its prompt under it."""

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from models.demo.measure import Pipeline

PROMPTS = (
    "a large red heart in the centre on a white background",
    "a large yellow star in the top right on a black background",
    "three purple rings in a row in the middle on a mint background",
    "a small green triangle on the left on a beige background",
    "a blue square on the left and an orange circle on the right on a white background",
    "a large pink ring at the bottom on a grey background",
    "two yellow hearts in a row at the top on a black background",
    "a large orange square in the bottom left on a mint background",
    "a red star at the top and a blue heart at the bottom on a beige background",
    "a large purple circle in the top left on a grey background",
)
COLUMNS, CELL, MARGIN, CAPTION = 5, 192, 12, 44


def write(checkpoint: Path, target: Path, seed: int = 7) -> Path:
    """Draw all prompts with one seed each and save the sheet as PNG."""
    pipeline = Pipeline(checkpoint)
    rows = -(-len(PROMPTS) // COLUMNS)
    size = (COLUMNS * (CELL + MARGIN) + MARGIN, rows * (CELL + CAPTION + MARGIN) + MARGIN)
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for i, prompt in enumerate(PROMPTS):
        x = MARGIN + i % COLUMNS * (CELL + MARGIN)
        y = MARGIN + i // COLUMNS * (CELL + CAPTION + MARGIN)
        pixels = (pipeline.picture(prompt, seed + i).permute(1, 2, 0) * 255).to(torch.uint8).numpy()
        sheet.paste(Image.fromarray(pixels).resize((CELL, CELL), Image.Resampling.LANCZOS), (x, y))
        pen.multiline_text((x, y + CELL + 4), wrapped(prompt, font, pen), fill="#333333", font=font, spacing=2)
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(target, optimize=True)
    return target


def wrapped(prompt: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, pen: ImageDraw.ImageDraw) -> str:
    """The prompt broken into lines no wider than a cell."""
    lines = [""]
    for word in prompt.split():
        longer = f"{lines[-1]} {word}".strip()
        if pen.textlength(longer, font=font) > CELL:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)
