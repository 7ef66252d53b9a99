"""Weight files to models, text encoders and autoencoders."""

from typing import Annotated, Literal

import torch

from sigmagraph.engine.graph.node import Extra, FileIn, Options, Output, Services, Socket, Tooltip, node
from sigmagraph.engine.models.load import (
    PIPELINE_INDEX,
    load_checkpoint,
    load_diffusion_model,
    load_pipeline,
    load_text_encoders,
    load_tiny_vae,
    load_vae,
    pixel_space,
)
from sigmagraph.engine.models.memory.residency import RESIDENCY
from sigmagraph.engine.models.text.clip import Clip as ClipValue
from sigmagraph.nodes.support.types import Clip, Engine, Model, Vae

__all__ = ["NODES"]

CheckpointName = Annotated[str, FileIn("checkpoints"), Tooltip("A file in models/checkpoints.")]
ModelName = Annotated[str, FileIn("diffusion_models"), Tooltip("A file in models/diffusion_models.")]
EncoderName = Annotated[str, FileIn("text_encoders"), Tooltip("A file in models/text_encoders.")]
TAESD3, PIXEL_SPACE = "taesd3", "pixel_space"
TINY_FILES = ("vae_approx/taesd3_encoder", "vae_approx/taesd3_decoder")
VAE_FILES = FileIn("vae", composed={TAESD3: TINY_FILES, PIXEL_SPACE: ()})
VaeName = Annotated[
    str,
    VAE_FILES,
    Tooltip("A file in models/vae; taesd3 is two files in models/vae_approx, pixel_space none at all."),
]
PipelineName = Annotated[str, FileIn("diffusers", marker=PIPELINE_INDEX), Tooltip("A folder in models/diffusers.")]
# families that graphs name; encoders of another than SD3 are refused when they are loaded
CLIP_TYPES = (
    *("stable_diffusion", "stable_cascade", "sd3", "stable_audio", "mochi", "ltxv", "pixart", "cosmos", "lumina2"),
    *("wan", "hidream", "chroma", "ace", "omnigen2", "qwen_image", "hunyuan_image", "flux2", "ovis", "longcat_image"),
    *("cogvideox", "lens", "pixeldit", "ideogram4", "boogu", "krea2", "joyimage", "mage", "minimax", "yue2", "flux3"),
    *("moss_image", "fibo2"),
)
DUAL_TYPES = (
    *("sdxl", "sd3", "flux", "hunyuan_video", "hidream", "hunyuan_image"),
    *("hunyuan_video_15", "kandinsky5", "kandinsky5_image", "ltxv", "newbie", "ace"),
)
FAMILY_TIP = Tooltip("The family the encoders are for; only sd3 is supported.")
ClipType = Annotated[str, Options(CLIP_TYPES), FAMILY_TIP]
DualClipType = Annotated[str, Options(DUAL_TYPES), FAMILY_TIP]
Device = Annotated[Literal["default", "cpu"] | None, Options(["default", "cpu"]), Extra({"advanced": True})]

KEPT_AS = {
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e4m3fn_fast": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}
WeightDtype = Annotated[
    Literal["default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"],
    Options(["default", *KEPT_AS]),
    Tooltip("What the matrices are kept in."),
]


def computing() -> str:
    """What this process was told to compute in: a model's results are kept under it."""
    return RESIDENCY.numbers


PARTS = (
    Output("MODEL", tooltip="Denoises latents."),
    Output("CLIP", tooltip="Encodes text."),
    Output("VAE", tooltip="Turns latents into pictures and back."),
)


@node(
    "CheckpointLoaderSimple",
    category="loaders",
    display_name="Load Checkpoint",
    lane="device",
    outputs=PARTS,
    fingerprint=computing,
)
def load_checkpoint_simple(*, ckpt_name: CheckpointName, services: Engine) -> tuple[Model, Clip, Vae]:
    """Load a checkpoint: the model, and the text encoders and the VAE if the file holds them."""
    parts = load_checkpoint(services.path("checkpoints", ckpt_name))
    return parts.model, parts.clip and _placed(parts.clip, services), parts.vae  # type: ignore[return-value]  # a missing part is told by the node that needs it


@node(
    "CheckpointLoader",
    category="advanced/loaders",
    revision=2,
    display_name="Load Checkpoint With Config (DEPRECATED)",
    deprecated=True,
    lane="device",
    fingerprint=computing,
)
def load_checkpoint_with_config(
    *,
    config_name: Annotated[
        str, Socket("COMBO"), Extra({"options": []}), Tooltip("Not read: tensors say what they are.")
    ],
    ckpt_name: CheckpointName,
    services: Engine,
) -> tuple[Model, Clip, Vae]:
    """Load a checkpoint as Load Checkpoint does; old graphs name a configuration beside it, which is not needed."""
    parts = load_checkpoint(services.path("checkpoints", ckpt_name))
    return parts.model, parts.clip and _placed(parts.clip, services), parts.vae  # type: ignore[return-value]  # as above


@node(
    "UNETLoader", category="advanced/loaders", display_name="Load Diffusion Model", lane="device", fingerprint=computing
)
def load_unet(*, unet_name: ModelName, weight_dtype: WeightDtype = "default", services: Engine) -> Model:
    """Load a diffusion model that comes without text encoders and VAE, in the precision it is stored in.

    With a float8 `weight_dtype` its matrices are rounded to float8 and kept so: half the memory of 16 bits.
    """
    return load_diffusion_model(services.path("diffusion_models", unet_name), kept_as=KEPT_AS.get(weight_dtype))


@node("CLIPLoader", category="advanced/loaders", display_name="Load CLIP", lane="device", fingerprint=computing)
def load_clip(*, clip_name: EncoderName, type: ClipType, device: Device = None, services: Engine) -> Clip:
    """Load one text encoder of the SD3 family: CLIP-L, bigG or T5-XXL; the others' places stay empty."""
    return encoders(services, [clip_name], type, device)


@node("DualCLIPLoader", category="advanced/loaders", lane="device", fingerprint=computing)
def load_dual_clip(
    *, clip_name1: EncoderName, clip_name2: EncoderName, type: DualClipType, device: Device = None, services: Engine
) -> Clip:
    """Load two of CLIP-L, bigG and T5-XXL, in any order."""
    return encoders(services, [clip_name1, clip_name2], type, device)


@node("TripleCLIPLoader", category="advanced/loaders", lane="device", fingerprint=computing)
def load_triple_clip(
    *, clip_name1: EncoderName, clip_name2: EncoderName, clip_name3: EncoderName, services: Engine
) -> Clip:
    """Load CLIP-L, bigG and T5-XXL, in any order."""
    return encoders(services, [clip_name1, clip_name2, clip_name3], "sd3", None)


@node(
    "DiffusersLoader",
    category="advanced/loaders/deprecated",
    lane="device",
    fingerprint=computing,
)
def load_diffusers_folder(*, model_path: PipelineName, services: Engine) -> tuple[Model, Clip, Vae]:
    """Load a pipeline as diffusers saves it; of weights in several precisions the chosen one, else the plain one."""
    parts = load_pipeline(services.path("diffusers", f"{model_path}/{PIPELINE_INDEX}").parent)
    return parts.model, parts.clip and _placed(parts.clip, services), parts.vae  # type: ignore[return-value]  # as above


@node("VAELoader", category="loaders", display_name="Load VAE", lane="device", fingerprint=computing)
def load_vae_file(*, vae_name: VaeName, services: Engine) -> Vae:
    """Load an autoencoder: a file of its own, out of a checkpoint, or the small and quick TAESD3.

    pixel_space is none: a picture is its own latent.
    """
    if vae_name == PIXEL_SPACE:
        return pixel_space()
    if vae_name == TAESD3:
        encoder, decoder = VAE_FILES.paths(services, vae_name)
        return load_tiny_vae(encoder, decoder)
    return load_vae(services.path("vae", vae_name))


def encoders(services: Services, names: list[str], kind: str, device: str | None = None) -> Clip:
    """The text encoders of these files, in any order; their tokenizers may lie in any of the folders."""
    paths = [services.path("text_encoders", name) for name in names]
    return _placed(load_text_encoders(paths, kind, torch.device("cpu") if device == "cpu" else None), services)


def _placed(clip: ClipValue, services: Services) -> ClipValue:
    """Its tokenizers and embeddings may lie in any of this installation's folders."""
    return clip.looking_in(services.directories("tokenizers"), services.directories("embeddings"))


NODES = (
    load_checkpoint_simple,
    load_checkpoint_with_config,
    load_unet,
    load_clip,
    load_dual_clip,
    load_triple_clip,
    load_vae_file,
    load_diffusers_folder,
)
