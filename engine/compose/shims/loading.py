"""Files and adapters under the names packs know: `comfy.sd`, `comfy.lora`. What is loaded becomes values of ours."""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from torch import Tensor

from sigmagraph.engine.models.files.read import open_weights
from sigmagraph.engine.models.load import load_checkpoint, load_diffusion_model, load_text_encoders
from sigmagraph.engine.models.text.clip import Clip
from sigmagraph.nodes.support.packs.base_model import BaseModel
from sigmagraph.nodes.support.packs.clips import Inner, PackClip, clip_of
from sigmagraph.nodes.support.packs.models import ModelPatcher
from sigmagraph.nodes.support.packs.vaes import PackVae
from sigmagraph.nodes.support.packs.weights import clip_lora_names, load_lora, lora_names, with_lora

__all__ = ["names"]

Place = Callable[[Clip], Clip]


class CLIPType(Enum):
    """Families of text encoders, as packs name them; those of SD3 load here."""

    STABLE_DIFFUSION = 1
    STABLE_CASCADE = 2
    SD3 = 3
    STABLE_AUDIO = 4
    HUNYUAN_DIT = 5
    FLUX = 6
    MOCHI = 7
    LTXV = 8
    HUNYUAN_VIDEO = 9
    PIXART = 10
    COSMOS = 11
    LUMINA2 = 12
    WAN = 13
    HIDREAM = 14
    CHROMA = 15
    ACE = 16
    OMNIGEN2 = 17
    QWEN_IMAGE = 18


def load_torch_file(path: str, safe_load: bool = True, device: Any = None, return_metadata: bool = False) -> Any:
    """The tensors of a safetensors file; pickles are refused whatever `safe_load` says."""
    file = open_weights(Path(path))
    tensors = {name: stored.read().clone().to(device) for name, stored in file.weights.items()}
    return (tensors, dict(file.metadata)) if return_metadata else tensors


def loader(place: Place) -> dict[str, Any]:
    """The functions that read files; `place` says where encoders look for their tokenizers."""

    def load_checkpoint_guess_config(ckpt_path: str, *_: Any, **__: Any) -> tuple[Any, Any, Any, None]:
        """Model, text encoders and autoencoder of a checkpoint; the fourth place, an image encoder, stays empty."""
        parts = load_checkpoint(Path(ckpt_path))
        clip = PackClip(place(parts.clip)) if parts.clip is not None else None
        return ModelPatcher(parts.model), clip, PackVae(parts.vae) if parts.vae is not None else None, None

    def load_clip(
        ckpt_paths: Sequence[str], embedding_directory: Any = None, clip_type: Any = None, **_: Any
    ) -> PackClip:
        """Text encoders of files."""
        kind = clip_type.name.lower() if isinstance(clip_type, CLIPType) else "sd3"
        return PackClip(place(load_text_encoders([Path(path) for path in ckpt_paths], kind)))

    def load_diffusion(unet_path: str, *_: Any, **__: Any) -> ModelPatcher:
        """The diffusion model of a file."""
        return ModelPatcher(load_diffusion_model(Path(unet_path)))

    return {
        "load_checkpoint_guess_config": load_checkpoint_guess_config,
        "load_clip": load_clip,
        "load_diffusion_model": load_diffusion,
        "load_unet": load_diffusion,
    }


def load_lora_for_models(
    model: ModelPatcher | None, clip: Any, lora: Mapping[str, Tensor], strength_model: float, strength_clip: float
) -> tuple[Any, Any]:
    """A model and text encoders with an adapter that a pack read; what is None stays so."""
    own = clip_of(clip)
    patched, encoders = with_lora(
        model.value if model is not None else None, own, lora, (strength_model, strength_clip)
    )
    if model is not None:
        changed = model.clone()
        changed.value, changed.model = patched, BaseModel(patched)
        model = changed
    return model, PackClip(encoders) if encoders is not None else None


def model_lora_keys_unet(model: BaseModel, key_map: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Base keys of every trainer's style -> names of a model's weights, added to `key_map`."""
    return {**(key_map or {}), **lora_names(model.value)}


def model_lora_keys_clip(model: Inner, key_map: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The same for the network behind text encoders."""
    return {**(key_map or {}), **clip_lora_names(model.value)}


def names(place: Place) -> dict[str, dict[str, Any]]:
    """The modules of loading."""
    return {
        "comfy.lora": {
            "load_lora": load_lora,
            "model_lora_keys_clip": model_lora_keys_clip,
            "model_lora_keys_unet": model_lora_keys_unet,
        },
        "comfy.sd": {
            "CLIP": PackClip,
            "CLIPType": CLIPType,
            "VAE": PackVae,
            "load_lora_for_models": load_lora_for_models,
            **loader(place),
        },
        "comfy.utils": {"load_torch_file": load_torch_file},
    }
