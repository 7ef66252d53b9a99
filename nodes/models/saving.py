"""Models, text encoders, autoencoders and adapters to safetensors files in the output folder."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import Extra, Options, Range, Services, Tooltip, UiResult, node
from sigmagraph.engine.models import save
from sigmagraph.engine.models.files.convert import sizes
from sigmagraph.engine.models.files.pack import PREFIXES, VAE
from sigmagraph.engine.models.files.write import Outgoing, write_safetensors
from sigmagraph.engine.models.text.encode import Going, nobody
from sigmagraph.nodes.conditioning.conditioning import NO_CLIP
from sigmagraph.nodes.support.naming import series
from sigmagraph.nodes.support.types import NO_VAE, Clip, Document, Engine, Model, PictureInfo, Progressing, Vae, present

__all__ = ["NODES"]

CATEGORY = "advanced/model_merging"
SUFFIX = ".safetensors"


@node("CheckpointSave", category=CATEGORY, display_name="Save Checkpoint", output_node=True, lane="device")
def save_checkpoint(
    *,
    model: Model,
    clip: Clip,
    vae: Vae,
    filename_prefix: str = "checkpoints/ComfyUI",
    prompt: Document = None,
    extra_pnginfo: PictureInfo = None,
    services: Engine,
    going: Progressing = nobody,
) -> UiResult:
    """Write a model, its text encoders and its autoencoder as one checkpoint, adapters and merges in it."""
    encoders = present(clip, "clip", NO_CLIP).patched
    tensors = save.model_tensors(model)
    for name, encoder in encoders.items():
        tensors += save.tensors(save.encoder_weights(name, encoder), PREFIXES[name])
    tensors += save.vae_tensors(present(vae, "vae", NO_VAE), PREFIXES[VAE])
    carried = save.text_metadata(clip, encoders) | _carried(prompt, extra_pnginfo)
    return _written(services, filename_prefix, tensors, carried, going, has_model=True)


@node("ModelSave", category=CATEGORY, output_node=True, lane="device")
def save_model(
    *,
    model: Model,
    filename_prefix: str = "diffusion_models/ComfyUI",
    prompt: Document = None,
    extra_pnginfo: PictureInfo = None,
    services: Engine,
    going: Progressing = nobody,
) -> UiResult:
    """Write a diffusion model, adapters and merges in it."""
    carried = _carried(prompt, extra_pnginfo)
    return _written(services, filename_prefix, save.model_tensors(model), carried, going, has_model=True)


@node("CLIPSave", category=CATEGORY, output_node=True, lane="device")
def save_clip(
    *,
    clip: Clip,
    filename_prefix: str = "clip/ComfyUI",
    prompt: Document = None,
    extra_pnginfo: PictureInfo = None,
    services: Engine,
    going: Progressing = nobody,
) -> UiResult:
    """Write each text encoder as a file of its own, its name behind the prefix."""
    carried = _carried(prompt, extra_pnginfo)
    for name, tensors in save.clip_tensors(present(clip, "clip", NO_CLIP)).items():
        _written(services, f"{filename_prefix}_{name}", tensors, save.text_metadata(clip, [name]) | carried, going)
    return UiResult(ui={})


@node("VAESave", category=CATEGORY, output_node=True, lane="device")
def save_vae(
    *,
    vae: Vae,
    filename_prefix: str = "vae/ComfyUI_vae",
    prompt: Document = None,
    extra_pnginfo: PictureInfo = None,
    services: Engine,
    going: Progressing = nobody,
) -> UiResult:
    """Write an autoencoder."""
    tensors = save.vae_tensors(present(vae, "vae", NO_VAE))
    return _written(services, filename_prefix, tensors, _carried(prompt, extra_pnginfo), going)


@node(
    "LoraSave",
    category="_for_testing",
    display_name="Extract and Save Lora",
    output_node=True,
    experimental=True,
    lane="device",
)
def save_lora(
    *,
    filename_prefix: Annotated[str, Extra({"multiline": False})] = "loras/ComfyUI_extracted_lora",
    rank: Annotated[int, Range(1, 4096, step=1)] = 8,
    lora_type: Annotated[str, Options([save.LOW_RANK, save.FULL])],
    bias_diff: bool = True,
    model_diff: Annotated[Model | None, Tooltip("A difference of two models, by ModelMergeSubtract.")] = None,
    text_encoder_diff: Annotated[Clip | None, Tooltip("A difference of encoders, by CLIPMergeSubtract.")] = None,
    prompt: Document = None,
    extra_pnginfo: PictureInfo = None,
    services: Engine,
    going: Progressing = nobody,
) -> UiResult:
    """Write a difference as an adapter: of low rank, or as it is.

    With the rank that the difference has, putting the adapter on gives it back.
    """
    if model_diff is None and text_encoder_diff is None:
        raise BadValue("model_diff", None, "a difference of models, or of text encoders in text_encoder_diff")
    found = save.adapter_of(model_diff, text_encoder_diff, rank, lora_type, bias_diff)
    tensors = [tensor for base in found for tensor in save.adapter_tensors(*base)]
    return _written(services, filename_prefix, tensors, _carried(prompt, extra_pnginfo), going)


def _carried(prompt: Mapping[str, Any] | None, extra: Mapping[str, Any] | None) -> dict[str, str]:
    """The workflow, as pictures carry it."""
    carried = {"prompt": json.dumps(prompt)} if prompt is not None else {}
    return carried | {name: json.dumps(value) for name, value in (extra or {}).items()}


def _written(
    services: Services,
    prefix: str,
    tensors: Sequence[Outgoing],
    carried: Mapping[str, str],
    going: Going,
    *,
    has_model: bool = False,
) -> UiResult:
    if not tensors:
        raise BadValue("what is saved", "without a weight", "a model, text encoders or an autoencoder that has weights")
    files = series(services.output_dir, prefix, 0, 0, datetime.now().astimezone())
    name = next(files.names(0, SUFFIX))
    title = name.removesuffix(f"_{SUFFIX}").rpartition("_")
    metadata = {**save.spec_metadata(f"{title[0]} {int(title[2])}", has_model), **carried}
    done, whole = 0, sizes(tensors)

    def tell(written: int) -> None:
        nonlocal done
        done += written
        going(done, whole)

    write_safetensors(files.folder, files.names(0, SUFFIX), tensors, metadata, tell)
    return UiResult(ui={})


NODES = (save_checkpoint, save_model, save_clip, save_vae, save_lora)
