"""Further ways of pictures to the folders and back: compared, in 16 bits, out of the output folder."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import (
    DynamicCombo,
    Extra,
    FileIn,
    Options,
    Output,
    Socket,
    Tooltip,
    UiResult,
    input_of,
    node,
)
from sigmagraph.engine.writing import write_new
from sigmagraph.nodes.images.image import PREFIX_TIP, save_image, write_preview
from sigmagraph.nodes.support.deep_png import deep_png
from sigmagraph.nodes.support.naming import series
from sigmagraph.nodes.support.pictures import read_picture
from sigmagraph.nodes.support.provenance import LockInput, locked
from sigmagraph.nodes.support.types import Document, Engine, Image, Mask, PictureInfo

__all__ = ["NODES"]

FORMATS = DynamicCombo(
    {
        "png": [
            input_of("bit_depth", Annotated[str, Options(["8-bit", "16-bit"], named=True)], "8-bit"),
            input_of("input_color_space", Annotated[str, Options(["sRGB"], named=True)], "sRGB"),
        ]
    }
)


@node("LoadImageOutput", category="image", display_name="Load Image (from Outputs)", experimental=True)
def load_image_output(
    *,
    image: Annotated[str, FileIn("output", upload="image"), Extra({"image_folder": "output"})],
    services: Engine,
) -> tuple[Image, Mask]:
    """Read a picture of the output folder; its transparency becomes the mask (1 = transparent)."""
    return read_picture(services.path("output", image))


@node("ImageCompare", category="image", display_name="Compare Images", output_node=True)
def image_compare(
    *,
    image_a: Image | None = None,
    image_b: Image | None = None,
    compare_view: Annotated[Any, Socket("IMAGECOMPARE")] = None,
    prompt: Document = None,
    extra_pnginfo: PictureInfo = None,
    services: Engine,
    lock: LockInput = None,
) -> UiResult:
    """Show two pictures, one over the other, with a slider between."""

    def shown(images: Tensor | None, side: str) -> Any:
        if images is None:
            return []
        written = write_preview(images, prompt, extra_pnginfo, services, lock, prefix=f"comfy.compare.{side}")
        return written.ui["images"]

    return UiResult(ui={"a_images": shown(image_a, "a"), "b_images": shown(image_b, "b")})


@node(
    "SaveImageAdvanced",
    category="image",
    display_name="Save Image (Advanced)",
    output_node=True,
    outputs=[Output("IMAGE", "images")],
)
def save_image_advanced(
    *,
    images: Image,
    filename_prefix: Annotated[str, Tooltip(PREFIX_TIP)] = "ComfyUI",
    format: Annotated[dict[str, Any], FORMATS],
    prompt: Document = None,
    extra_pnginfo: PictureInfo = None,
    services: Engine,
    lock: LockInput = None,
) -> UiResult:
    """Save as numbered PNGs of 8 or 16 bits in the output folder; each carries the workflow that made it."""
    if images.shape[-1] not in (1, 3, 4):
        raise BadValue("images", f"{images.shape[-1]} channels", "1 (grey), 3 (RGB) or 4 (RGBA)")
    given = {"filename_prefix": filename_prefix, "prompt": prompt, "extra_pnginfo": extra_pnginfo}
    if format.get("bit_depth", "8-bit") == "8-bit":
        colours = images.expand(*images.shape[:3], 3) if images.shape[-1] == 1 else images
        return UiResult(images, save_image(images=colours, **given, services=services, lock=lock).ui)
    text = {name: value for name, value in {"prompt": prompt, **(extra_pnginfo or {})}.items() if value is not None}
    files = series(services.output_dir, filename_prefix, images.shape[2], images.shape[1], datetime.now().astimezone())
    shown: list[Mapping[str, Any]] = []
    for index, image in enumerate(images):
        data = deep_png(image, text | locked(lock, text.get("prompt"), index))
        path = write_new(files.folder, files.names(index), data)
        shown.append({"filename": path.name, "subfolder": files.subfolder, "type": "output"})
    return UiResult(images, {"images": shown})


NODES = (load_image_output, image_compare, save_image_advanced)
