"""Pictures in and out: load, save, preview, and one flat colour."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.lock import Lock
from sigmagraph.engine.graph.node import FileIn, Range, Services, Tooltip, UiResult, node
from sigmagraph.engine.writing import write_new
from sigmagraph.nodes.support.naming import series
from sigmagraph.nodes.support.pictures import png_bytes, read_picture
from sigmagraph.nodes.support.provenance import LockInput, locked
from sigmagraph.nodes.support.types import BatchSize, Document, Engine, Image, Mask, PictureInfo

__all__ = ["NODES", "write_pictures", "write_preview"]

PREFIX_TIP = "Begins the file name; may hold a folder and tokens such as %year% or %width%."
MAX_BYTES = 8 << 30  # an image batch larger than this is a slip of the hand, not a wish


@node("LoadImage", category="image", display_name="Load Image")
def load_image(*, image: Annotated[str, FileIn("input", upload="image")], services: Engine) -> tuple[Image, Mask]:
    """Read a picture of the input folder, turned upright; its transparency becomes the mask (1 = transparent)."""
    return read_picture(services.path("input", image))


@node("SaveImage", category="image", display_name="Save Image", output_node=True)
def save_image(
    *,
    images: Annotated[Image, Tooltip("What to save.")],
    filename_prefix: Annotated[str, Tooltip(PREFIX_TIP)] = "ComfyUI",
    prompt: Document,
    extra_pnginfo: PictureInfo,
    services: Engine,
    lock: LockInput = None,
) -> UiResult:
    """Save as numbered PNGs in the output folder; each carries the workflow that made it, and a lock for replays."""
    text = {"prompt": prompt, **(extra_pnginfo or {})}
    return write_pictures(images, services.output_dir, filename_prefix, text, lock, "output", 4)


@node("PreviewImage", category="image", display_name="Preview Image", output_node=True)
def preview_image(
    *, images: Image, prompt: Document, extra_pnginfo: PictureInfo, services: Engine, lock: LockInput = None
) -> UiResult:
    """Save to the folder for temporary files, to look at."""
    return write_preview(images, prompt, extra_pnginfo, services, lock)


@node("EmptyImage", category="image", display_name="EmptyImage")
def empty_image(
    *,
    width: Annotated[int, Range(1, 16384, step=1)] = 512,
    height: Annotated[int, Range(1, 16384, step=1)] = 512,
    batch_size: BatchSize = 1,
    color: Annotated[int, Range(0, 0xFFFFFF, step=1, display="color")] = 0,
) -> Image:
    """One flat colour, written as a number: 16711680 (0xFF0000) is red."""
    if width * height * batch_size * 3 * 4 > MAX_BYTES:
        raise BadValue("EmptyImage", f"{batch_size} x {width} x {height}", f"at most {MAX_BYTES >> 30} GiB of pixels")
    channels = torch.tensor([color >> 16 & 0xFF, color >> 8 & 0xFF, color & 0xFF], dtype=torch.float32) / 255.0
    return channels.expand(batch_size, height, width, 3).contiguous()


def write_preview(
    images: Tensor,
    prompt: Mapping[str, Any] | None,
    extra_pnginfo: Mapping[str, Any] | None,
    services: Services,
    lock: Lock | None,
    prefix: str = "ComfyUI_temp",
) -> UiResult:
    """The pictures in the folder for temporary files, under a name that their content decides."""
    letters = hashlib.blake2b(images.cpu().contiguous().numpy().tobytes(), digest_size=5).digest()
    name = f"{prefix}_" + "".join(chr(ord("a") + byte % 26) for byte in letters)
    return write_pictures(images, services.temp_dir, name, {"prompt": prompt, **(extra_pnginfo or {})}, lock, "temp", 1)


def write_pictures(
    images: Tensor, root: Path, prefix: str, text: dict[str, Any], lock: Lock | None, kind: str, compress_level: int
) -> UiResult:
    """Every image of the batch as one file; the user interface's record of each."""
    height, width = images.shape[1:3]
    files = series(root, prefix, width, height, datetime.now().astimezone())
    text = {key: value for key, value in text.items() if value is not None}
    shown = []
    for index, image in enumerate(images):
        data = png_bytes(image, text | locked(lock, text.get("prompt"), index), compress_level)
        path = write_new(files.folder, files.names(index), data)
        files.took(path)
        shown.append({"filename": path.name, "subfolder": files.subfolder, "type": kind})
    return UiResult(ui={"images": shown})


NODES = (load_image, save_image, preview_image, empty_image)
