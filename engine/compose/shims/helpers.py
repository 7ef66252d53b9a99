"""Small helpers packs share: `node_helpers`, the flags of the command line, names of versions."""

import hashlib
from collections.abc import Callable, Mapping
from enum import Enum
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from PIL import ImageFile
from torch import Tensor

__all__ = ["names"]

T = TypeVar("T")
VERSION = "0.3.64"  # the release whose nodes and names these are


class LatentPreviewMethod(Enum):
    """How latents are previewed; ours are, by a map of our own."""

    NoPreviews = "none"
    Auto = "auto"
    Latent2RGB = "latent2rgb"
    TAESD = "taesd"

    @classmethod
    def from_string(cls, value: str) -> "LatentPreviewMethod | None":
        """The method of that name."""
        return next((member for member in cls if member.value == value), None)


class Flags(SimpleNamespace):
    """ComfyUI's flags as if none was set: whatever is asked for and not listed is off."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return False


def conditioning_set_values(
    conditioning: Any, values: Mapping[str, Any] | None = None, append: bool = False
) -> list[Any]:
    """Every entry with these values beside its context; with `append` lists are added to instead of replaced."""
    made = []
    for context, own in conditioning:
        extra = dict(own)
        for name, value in (values or {}).items():
            extra[name] = [*extra[name], *value] if append and name in extra else value
        made.append([context, extra])
    return made


def pillow(function: Callable[[Any], T], argument: Any) -> T:
    """Call a function of Pillow's; a truncated file is read as far as it goes."""
    try:
        return function(argument)
    except (OSError, ValueError):
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
        try:
            return function(argument)
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def image_alpha_fix(destination: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    """Two pictures [B, H, W, C] with equally many channels: alpha is cut off the source or added to it."""
    if destination.shape[-1] < source.shape[-1]:
        return destination, source[..., : destination.shape[-1]]
    if destination.shape[-1] > source.shape[-1]:
        return destination, torch.nn.functional.pad(source, (0, 1), value=1.0)
    return destination, source


def string_to_torch_dtype(name: str) -> torch.dtype | None:
    """`fp32`, `fp16`, `bf16`."""
    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}.get(name)


def full_type_name(cls: type) -> str:
    """The name of a class with its module, where it has one worth naming."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def names() -> dict[str, dict[str, Any]]:
    """The modules of small helpers."""
    flags = Flags(listen="127.0.0.1", port=8188, preview_method=LatentPreviewMethod.NoPreviews, database_url="")
    return {
        "node_helpers": {
            "conditioning_set_values": conditioning_set_values,
            "pillow": pillow,
            "hasher": lambda: hashlib.sha256,
            "image_alpha_fix": image_alpha_fix,
            "string_to_torch_dtype": string_to_torch_dtype,
        },
        "comfy.cli_args": {"args": flags, "LatentPreviewMethod": LatentPreviewMethod, "enables_dynamic_vram": bool},
        "comfy.options": {"enable_args_parsing": lambda *_, **__: None},
        "comfyui_version": {"__version__": VERSION},
        "execution": {"full_type_name": full_type_name},
        "comfy_api.feature_flags": {"supports_feature": lambda *_, **__: False},
    }
