"""Offered as `comfy.comfy_types` and `comfy.comfy_types.node_typing`: names for types; nothing that does anything."""

from abc import ABC, abstractmethod
from typing import Any, TypedDict


class AnyType(str):
    """A type that differs from nothing; of comma lists, every one that shares its members."""

    __slots__ = ()

    def __ne__(self, other: object) -> bool:
        if self == "*" or other == "*" or not isinstance(other, str):
            return False
        mine, others = ({part.strip() for part in text.split(",")} for text in (str(self), other))
        return not others <= mine

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other) is True

    __hash__ = str.__hash__


class IO:
    """Wire types by name; `ANY` fits everything."""

    STRING, INT, FLOAT, BOOLEAN, NUMBER = "STRING", "INT", "FLOAT", "BOOLEAN", "FLOAT,INT"
    IMAGE, MASK, LATENT, CONDITIONING = "IMAGE", "MASK", "LATENT", "CONDITIONING"
    SAMPLER, SIGMAS, GUIDER, NOISE = "SAMPLER", "SIGMAS", "GUIDER", "NOISE"
    CLIP, CONTROL_NET, VAE, MODEL = "CLIP", "CONTROL_NET", "VAE", "MODEL"
    LORA_MODEL, LOSS_MAP, CLIP_VISION, CLIP_VISION_OUTPUT = (
        "LORA_MODEL",
        "LOSS_MAP",
        "CLIP_VISION",
        "CLIP_VISION_OUTPUT",
    )
    STYLE_MODEL, GLIGEN, UPSCALE_MODEL, AUDIO = "STYLE_MODEL", "GLIGEN", "UPSCALE_MODEL", "AUDIO"
    WEBCAM, POINT, FACE_ANALYSIS, BBOX, SEGS, VIDEO = "WEBCAM", "POINT", "FACE_ANALYSIS", "BBOX", "SEGS", "VIDEO"
    COMBO, PRIMITIVE = "COMBO", "STRING,FLOAT,INT,BOOLEAN"
    ANY = AnyType("*")


class InputTypeOptions(TypedDict, total=False):
    """Options of an input; any key is allowed."""

    default: Any
    tooltip: str
    lazy: bool
    rawLink: bool
    forceInput: bool


class HiddenInputTypeDict(TypedDict, total=False):
    """Hidden inputs by name."""

    unique_id: Any
    prompt: Any
    extra_pnginfo: Any
    dynprompt: Any


class InputTypeDict(TypedDict, total=False):
    """What INPUT_TYPES returns."""

    required: dict[str, Any]
    optional: dict[str, Any]
    hidden: dict[str, Any]


class ComfyNodeABC(ABC):
    """A base some packs derive from, for the attribute names."""

    DESCRIPTION: str
    CATEGORY: str
    EXPERIMENTAL: bool
    DEPRECATED: bool
    RETURN_TYPES: tuple[Any, ...]
    FUNCTION: str

    @classmethod
    @abstractmethod
    def INPUT_TYPES(cls) -> InputTypeDict:  # noqa: N802  # the convention's name
        """The inputs."""


class CheckLazyMixin:
    """`check_lazy_status` that asks for every lazy input without a value."""

    def check_lazy_status(self, **kwargs: Any) -> list[str]:
        """The names of all inputs that are None."""
        return [name for name, value in kwargs.items() if value is None]


class FileLocator(TypedDict):
    """Where a saved file lies."""

    filename: str
    subfolder: str
    type: str
