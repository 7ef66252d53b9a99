"""The loaders that saved graphs name for GGUF files; the plain ones open the same files."""

from typing import Annotated

from sigmagraph.engine.graph.node import FileIn, Options, Tooltip, node
from sigmagraph.engine.models.load import load_diffusion_model
from sigmagraph.nodes.models.loaders import ClipType, DualClipType, EncoderName, computing, encoders
from sigmagraph.nodes.support.types import Clip, Engine, Model

__all__ = ["NODES"]

CATEGORY = "bootleg"  # where the pack that brought these names lists them
Dtype = Annotated[str, Options(["default", "target", "float32", "float16", "bfloat16"])]
GgufName = Annotated[str, FileIn("unet_gguf"), Tooltip("A GGUF file in models/diffusion_models.")]


@node("UnetLoaderGGUF", category=CATEGORY, display_name="Unet Loader (GGUF)", lane="device", fingerprint=computing)
def load_unet_gguf(*, unet_name: GgufName, services: Engine) -> Model:
    """Load a quantised diffusion model. Its blocks stay as they are stored and grow a layer at a time."""
    return load_diffusion_model(services.path("unet_gguf", unet_name))


@node(
    "UnetLoaderGGUFAdvanced",
    category=CATEGORY,
    display_name="Unet Loader (GGUF/Advanced)",
    lane="device",
    fingerprint=computing,
)
def load_unet_gguf_advanced(
    *,
    unet_name: GgufName,
    dequant_dtype: Dtype = "default",
    patch_dtype: Dtype = "default",
    patch_on_device: bool = False,
    services: Engine,
) -> Model:
    """Load a quantised diffusion model. Blocks grow, and adapters are merged, in float32 whatever is chosen here."""
    return load_diffusion_model(services.path("unet_gguf", unet_name))


@node("CLIPLoaderGGUF", category=CATEGORY, display_name="CLIPLoader (GGUF)", lane="device", fingerprint=computing)
def load_clip_gguf(*, clip_name: EncoderName, type: ClipType, services: Engine) -> Clip:
    """Load one text encoder of the SD3 family from a GGUF or safetensors file."""
    return encoders(services, [clip_name], type)


@node(
    "DualCLIPLoaderGGUF", category=CATEGORY, display_name="DualCLIPLoader (GGUF)", lane="device", fingerprint=computing
)
def load_dual_clip_gguf(
    *, clip_name1: EncoderName, clip_name2: EncoderName, type: DualClipType, services: Engine
) -> Clip:
    """Load two of CLIP-L, bigG and T5-XXL, in any order and of either kind of file."""
    return encoders(services, [clip_name1, clip_name2], type)


@node(
    "TripleCLIPLoaderGGUF",
    category=CATEGORY,
    display_name="TripleCLIPLoader (GGUF)",
    lane="device",
    fingerprint=computing,
)
def load_triple_clip_gguf(
    *, clip_name1: EncoderName, clip_name2: EncoderName, clip_name3: EncoderName, services: Engine
) -> Clip:
    """Load CLIP-L, bigG and T5-XXL, in any order and of either kind of file."""
    return encoders(services, [clip_name1, clip_name2, clip_name3], "sd3")


NODES = (load_unet_gguf, load_unet_gguf_advanced, load_clip_gguf, load_dual_clip_gguf, load_triple_clip_gguf)
