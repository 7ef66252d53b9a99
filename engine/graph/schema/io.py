"""Offered as `comfy_api.latest.io`: what classes of the newer schema declare themselves with.

Every type is a class with `Input` and `Output`; types of a pack's own are made by `Custom` or by `comfytype`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from sigmagraph.engine.graph.schema.specs import (
    InputSpec,
    MatchTemplate,
    OutputSpec,
    autogrow,
    combo,
    slot,
    wire_types,
)

TYPES: Mapping[str, str] = {
    "AnyType": "*", "Image": "IMAGE", "Mask": "MASK", "Latent": "LATENT", "Conditioning": "CONDITIONING",
    "Model": "MODEL", "Clip": "CLIP", "Vae": "VAE", "ControlNet": "CONTROL_NET", "ClipVision": "CLIP_VISION",
    "ClipVisionOutput": "CLIP_VISION_OUTPUT", "StyleModel": "STYLE_MODEL", "Gligen": "GLIGEN",
    "UpscaleModel": "UPSCALE_MODEL", "LatentUpscaleModel": "LATENT_UPSCALE_MODEL", "ModelPatch": "MODEL_PATCH",
    "Sampler": "SAMPLER", "Sigmas": "SIGMAS", "Noise": "NOISE", "Guider": "GUIDER", "Hooks": "HOOKS",
    "HookKeyframes": "HOOK_KEYFRAMES", "TimestepsRange": "TIMESTEPS_RANGE", "LatentOperation": "LATENT_OPERATION",
    "FlowControl": "FLOW_CONTROL", "Accumulation": "ACCUMULATION", "LoraModel": "LORA_MODEL", "LossMap": "LOSS_MAP",
    "Audio": "AUDIO", "AudioEncoder": "AUDIO_ENCODER", "AudioEncoderOutput": "AUDIO_ENCODER_OUTPUT", "Video": "VIDEO",
    "SVG": "SVG", "Voxel": "VOXEL", "Mesh": "MESH", "Photomaker": "PHOTOMAKER", "Point": "POINT",
    "FaceAnalysis": "FACE_ANALYSIS", "BBOX": "BBOX", "BoundingBox": "BOUNDING_BOX", "SEGS": "SEGS",
    "Tracks": "TRACKS", "WanCameraEmbedding": "WAN_CAMERA_EMBEDDING", "Webcam": "WEBCAM", "Load3D": "LOAD_3D",
    "Load3DAnimation": "LOAD_3D_ANIMATION", "ImageCompare": "IMAGECOMPARE",
    "Int": "INT", "Float": "FLOAT", "String": "STRING", "Boolean": "BOOLEAN", "Combo": "COMBO", "Color": "COLOR",
    "MultiCombo": "COMBO",
}  # fmt: skip


class ComfyTypeIO:
    """A wire type. `Type` is what a value of it is in Python, for annotations alone."""

    io_type: ClassVar[str] = "*"
    Type: ClassVar[Any] = Any

    @classmethod
    def Input(cls, id: str, display_name: str | None = None, optional: bool = False, **options: Any) -> InputSpec:
        """An input of this type; `options` by the schema's names: default, min, max, step, multiline, tooltip ..."""
        if cls.__name__ == "MultiCombo":
            options["multiselect"] = True
        return InputSpec(id, cls.io_type, optional, {"display_name": display_name, **options})

    @classmethod
    def Output(cls, id: str | None = None, display_name: str | None = None, **options: Any) -> OutputSpec:
        """An output of this type."""
        known = {name: options[name] for name in ("tooltip", "is_output_list", "options") if name in options}
        return OutputSpec(cls.io_type, id, display_name, **known)


ComfyType = ComfyTypeI = ComfyTypeIO


def Custom(io_type: str) -> type[ComfyTypeIO]:
    """A type of a pack's own."""
    return type(io_type, (ComfyTypeIO,), {"io_type": io_type})


def comfytype(io_type: str, **_: Any) -> Callable[[type], type]:
    """A decorator: the class is a wire type of that name."""

    def named(cls: type) -> type:
        cls.io_type = io_type  # type: ignore[attr-defined]  # that is what the decorator is for
        return cls

    return named


class NumberDisplay(StrEnum):
    """How a number is shown."""

    number = "number"
    slider = "slider"
    gradient_slider = "gradientslider"


class FolderType(StrEnum):
    """Where a file lies."""

    input = "input"
    output = "output"
    temp = "temp"


class UploadType(StrEnum):
    """What a file widget may upload."""

    image = "image_upload"
    audio = "audio_upload"
    video = "video_upload"
    model = "file_upload"


class Hidden(StrEnum):
    """What the engine can tell a node; it stands in `cls.hidden` while the node runs."""

    prompt = "PROMPT"
    unique_id = "UNIQUE_ID"
    extra_pnginfo = "EXTRA_PNGINFO"
    dynprompt = "DYNPROMPT"
    auth_token_comfy_org = "AUTH_TOKEN_COMFY_ORG"
    api_key_comfy_org = "API_KEY_COMFY_ORG"


class MultiType:
    """An input that takes several types."""

    @staticmethod
    def Input(
        id: str | InputSpec,
        types: Sequence[Any],
        display_name: str | None = None,
        optional: bool = False,
        **options: Any,
    ) -> InputSpec:
        """An input of any of `types`; given an input, that one's widget shows."""
        if isinstance(id, InputSpec):
            kinds = wire_types([id.io_type, *types])
            return InputSpec(id.id, kinds, id.optional, {"widgetType": id.io_type, **id.options, **options})
        return InputSpec(id, wire_types(types), optional, {"display_name": display_name, **options})


class MatchType:
    """Inputs and outputs that have one type, whatever it is."""

    Template = MatchTemplate

    @staticmethod
    def Input(
        id: str, template: MatchTemplate, display_name: str | None = None, optional: bool = False, **options: Any
    ) -> InputSpec:
        """An input of the template's type."""
        return InputSpec(id, "*", optional, {"display_name": display_name, **options}, template=template)

    @staticmethod
    def Output(
        template: MatchTemplate, id: str | None = None, display_name: str | None = None, **options: Any
    ) -> OutputSpec:
        """An output of the template's type."""
        known = {name: options[name] for name in ("tooltip", "is_output_list") if name in options}
        return OutputSpec("*", id, display_name, template=template, **known)


class DynamicCombo:
    """A choice that brings inputs of its own."""

    @dataclass(frozen=True)
    class Option:
        """One choice and its inputs."""

        key: Any
        inputs: Sequence[InputSpec] = ()

    @staticmethod
    def Input(id: str, options: Sequence[Any], display_name: str | None = None, **rest: Any) -> InputSpec:
        """The choice."""
        return combo(id, options, {"display_name": display_name, **rest})


class Autogrow:
    """A list of inputs that grows."""

    @dataclass(frozen=True)
    class TemplatePrefix:
        """Inputs `prefix0`, `prefix1` ..."""

        input: InputSpec
        prefix: str
        min: int = 1
        max: int = 10
        names: None = None

    @dataclass(frozen=True)
    class TemplateNames:
        """Inputs of these names."""

        input: InputSpec
        names: Sequence[str]
        min: int = 1

    @staticmethod
    def Input(id: str, template: Any, display_name: str | None = None, **rest: Any) -> InputSpec:
        """The list."""
        return autogrow(id, template, {"display_name": display_name, **rest})


class DynamicSlot:
    """A socket that brings inputs once it is linked."""

    @staticmethod
    def Input(slot: InputSpec, inputs: Sequence[InputSpec], display_name: str | None = None, **rest: Any) -> InputSpec:
        """The socket."""
        return _slot(slot, inputs, {"display_name": display_name, **rest})


_slot = slot


@dataclass
class Schema:
    """All a class says about itself. What the engine has no use for is kept in `further`."""

    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: Sequence[InputSpec] = field(default_factory=list)
    outputs: Sequence[OutputSpec] = field(default_factory=list)
    hidden: Sequence[Hidden] = field(default_factory=list)
    description: str = ""
    is_input_list: bool = False
    is_output_node: bool = False
    is_deprecated: bool = False
    is_experimental: bool = False
    not_idempotent: bool = False
    enable_expand: bool = False

    def __init__(self, node_id: str, **given: Any) -> None:
        known = {name: default for name, default in type(self).__dataclass_fields__.items() if name != "node_id"}
        self.node_id = node_id
        for name, declared in known.items():
            made = declared.default_factory() if callable(declared.default_factory) else declared.default
            value = given.pop(name, None)
            setattr(self, name, made if value is None else value)
        self.further = given


class HiddenHolder:
    """What stands in `cls.hidden`: a value for each of `Hidden`, None for those the schema does not ask for."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        for tag in Hidden:
            setattr(self, tag.name, values.get(tag.name))


class ComfyNode:
    """The base of node classes: `define_schema` and `execute` are class methods, the other hooks are optional."""

    hidden: ClassVar[Any] = HiddenHolder({})

    @classmethod
    def define_schema(cls) -> Schema:
        """What the class says about itself."""
        raise TypeError(f"{cls.__name__} has no define_schema")

    @classmethod
    def GET_SCHEMA(cls) -> Schema:
        """The schema, made anew."""
        return cls.define_schema()

    @classmethod
    def execute(cls, **inputs: Any) -> Any:
        """The work of the node."""
        raise TypeError(f"{cls.__name__} has no execute")


class NodeOutput:
    """What `execute` returns: values in order of the outputs, and what else there is to say."""

    def __init__(self, *args: Any, ui: Any = None, expand: Any = None, block_execution: str | None = None) -> None:
        self.args, self.ui, self.expand, self.block_execution = args, ui, expand, block_execution

    @property
    def result(self) -> tuple[Any, ...] | None:
        """The values, or None where there are none."""
        return self.args or None

    def __getitem__(self, at: Any) -> Any:
        """A value by its place, for classes that call each other."""
        return self.args[at]


@dataclass(frozen=True)
class NodeReplace:
    """What stands in for a class that is gone; the mappings are lists of objects, as `GET /node_replacements` shows."""

    new_node_id: str
    old_node_id: str
    old_widget_ids: Sequence[str] | None = None
    input_mapping: Sequence[Mapping[str, Any]] | None = None
    output_mapping: Sequence[Mapping[str, Any]] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The form in which it is shown."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class ComfyExtension:
    """What `comfy_entrypoint` gives: the classes of a pack."""

    async def on_load(self) -> None:
        """Called once, before the classes are asked for."""

    async def get_node_list(self) -> list[type[ComfyNode]]:
        """The classes."""
        return []


globals().update({name: type(name, (ComfyTypeIO,), {"io_type": wire}) for name, wire in TYPES.items()})
