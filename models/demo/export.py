"""Writes the trained parts as one file in the official all-in-one layout, tokenizers in its metadata, float16."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from models.demo import autoencoder, diffusion, text

CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "sigmagraph-demo.safetensors"


def tensors(vae: torch.nn.Module, network: diffusion.Network) -> dict[str, Tensor]:
    """Every weight under the prefix that SD3 checkpoints use, in float16."""
    state = {f"first_stage_model.{name}": weight for name, weight in vae.state_dict().items()}
    state |= {f"model.diffusion_model.{name}": weight for name, weight in network.mmdit.state_dict().items()}
    state |= text.file_names(network.text)
    return {name: weight.half().contiguous() for name, weight in sorted(state.items())}


def metadata(tokenizers: text.Tokenizers) -> dict[str, str]:
    """What the loader reads beside the weights: three tokenizers and the shorter T5 minimum."""
    clip, t5 = tokenizers.clip.to_str(), tokenizers.t5.to_str()
    return {
        "modelspec.title": "sigmagraph demo",
        "modelspec.license": "Apache-2.0",
        "sigmagraph.text": json.dumps({"t5xxl_min_length": text.CHUNK}),
        "tokenizer.clip_g": clip,
        "tokenizer.clip_l": clip,
        "tokenizer.t5xxl": t5,
    }


def export(folder: Path, target: Path = CHECKPOINT) -> Path:
    """Write the checkpoint from the training state in `folder`; beside its place first, then renamed."""
    fresh = target.with_suffix(".part")
    state = tensors(autoencoder.load(folder), diffusion.load(folder))
    save_file(state, fresh, metadata(diffusion.make_tokenizers()))
    fresh.chmod(0o644)
    fresh.replace(target)
    return target
