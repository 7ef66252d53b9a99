"""`nodes.SaveImage` and `nodes.PreviewImage` for packs, whose own savers derive from them and say where they write."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from torch import Tensor

from sigmagraph.engine.execution.folders import Folders
from sigmagraph.nodes.images.image import write_pictures

__all__ = ["savers"]


def savers(classes: Mapping[str, type], folders: Folders) -> dict[str, type]:
    """Both classes with the settings that derived ones change: folder, kind, what is added to names, compression.

    They are attributes of the class, because some derive without calling `__init__`.
    """
    fresh = uuid4().hex[:5]  # a page may still hold pictures of an earlier process
    kept = {"output_dir": str(folders.output_dir), "type": "output", "prefix_append": "", "compress_level": 4}
    passing = {"output_dir": str(folders.temp_dir), "type": "temp", "prefix_append": f"_temp_{fresh}"}
    settings = {"SaveImage": kept, "PreviewImage": {**kept, **passing, "compress_level": 1}}
    own = {"save_images": save_images, "__module__": "nodes"}
    return {name: type(name, (classes[name],), {**chosen, **own}) for name, chosen in settings.items()}


def save_images(
    self: Any,
    images: Tensor,
    filename_prefix: str = "ComfyUI",
    prompt: Any = None,
    extra_pnginfo: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the pictures as this class says, with the workflow in them; what the page is to show."""
    text, prefix = {"prompt": prompt, **(extra_pnginfo or {})}, filename_prefix + self.prefix_append
    written = write_pictures(images, Path(self.output_dir), prefix, text, None, self.type, self.compress_level)
    return {"ui": dict(written.ui)}
