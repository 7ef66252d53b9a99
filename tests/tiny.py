"""A complete checkpoint of the real layout with random weights, small enough to run in a test."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from sigmagraph.engine.models.arch import (
    Autoencoder,
    ControlShape,
    JointControlNet,
    MMDiT,
    MMDiTShape,
    StreamControlNet,
    VaeShape,
)
from sigmagraph.engine.models.files.rename import MMDIT_BLOCK, MMDIT_OUTER, mmdit_slot

WORDS = ("red", "green", "blue", "circle", "square", "large", "small", "left", "right", "a", "on", "the")
VOCABULARY = 64


def write_checkpoint(path: Path, seed: int = 0) -> Path:
    """Write the checkpoint: MMDiT of two blocks, VAE, three text encoders, vocabularies in metadata."""
    torch.manual_seed(seed)
    shape = MMDiTShape(depth=2, width=128, pooled_width=128, context_width=128, table_side=16)
    parts: dict[str, nn.Module] = {
        "model.diffusion_model.": MMDiT(shape),
        "first_stage_model.": Autoencoder(VaeShape(channels=(32, 32, 32, 32), encoder_blocks=1, decoder_blocks=1)),
        "text_encoders.clip_l.transformer.text_model.": _clip(),
        "text_encoders.clip_g.transformer.text_model.": _clip(),
        "text_encoders.t5xxl.transformer.": _t5(),
    }
    tensors = {prefix + name: tensor for prefix, part in parts.items() for name, tensor in part.state_dict().items()}
    tensors["text_encoders.clip_g.transformer.text_projection.weight"] = torch.randn(64, 64) / 8
    del tensors["text_encoders.t5xxl.transformer.encoder.embed_tokens.weight"]  # the same tensor as `shared`
    vocabulary = _vocabulary()
    metadata = {f"tokenizer.{name}": vocabulary for name in ("clip_l", "clip_g", "t5xxl")}
    metadata["sigmagraph.text"] = json.dumps({"t5xxl_min_length": 16})
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: _stored(tensor) for name, tensor in tensors.items()}, path, metadata)
    return path


def _stored(tensor: Tensor) -> Tensor:
    return tensor.detach().half().contiguous()


def _clip() -> nn.Module:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=VOCABULARY,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=1,
            max_position_embeddings=16,
            bos_token_id=VOCABULARY - 2,
            eos_token_id=VOCABULARY - 1,
        )
    )


def _t5() -> nn.Module:
    return T5EncoderModel(
        T5Config(
            vocab_size=VOCABULARY,
            d_model=128,
            d_kv=64,
            d_ff=128,
            num_layers=1,
            num_heads=2,
            feed_forward_proj="gated-gelu",
        )
    )


def _vocabulary() -> str:
    ids = {"[UNK]": 2} | {word: 3 + i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(WordLevel(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    text: str = tokenizer.to_str()
    return text


def write_controlnet(path: Path, shape: MMDiTShape, *, kind: int | None = None, seed: int = 1) -> Path:
    """Write a random ControlNet for a model of this shape: of SD3.5 Large's kind with a `control_type`, else joint.

    One of the first kind has half as many blocks as the model, a joint one two, under the names people's files have.
    """
    torch.manual_seed(seed)
    depth = max(1, shape.depth // 2) if kind is not None else 2
    if kind is None:
        joint = JointControlNet(ControlShape(replace(shape, depth=depth, has_qk_norm=False), 16, is_joint=True))
        named = _as_diffusers(joint.state_dict(), depth)
    else:
        stream = StreamControlNet(ControlShape(replace(shape, depth=depth, has_qk_norm=False), 16, is_joint=False))
        named = {_published(name): tensor for name, tensor in stream.state_dict().items()}
        named["control_type"] = torch.tensor([kind], dtype=torch.int32)
    drawn = {name: t if t.dtype == torch.int32 else _stored(torch.randn_like(t) / 16) for name, t in named.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(drawn, path)
    return path


def _published(name: str) -> str:
    for ours, theirs in (
        ("stream_blocks", "transformer_blocks"),
        ("t_embedder.mlp.0", "time_text_embed.timestep_embedder.linear_1"),
        ("t_embedder.mlp.2", "time_text_embed.timestep_embedder.linear_2"),
        ("y_embedder.mlp.0", "time_text_embed.text_embedder.linear_1"),
        ("y_embedder.mlp.2", "time_text_embed.text_embedder.linear_2"),
    ):
        name = name.replace(ours, theirs)
    return name


def _as_diffusers(ours: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Joint blocks under diffusers' names, each fused product in its parts; other names are the same in both."""
    blocks = [f"transformer_blocks.{at}.{inner}" for at in range(depth) for inner in MMDIT_BLOCK]
    named = dict(ours)
    for module in (*MMDIT_OUTER, *blocks):
        slot = mmdit_slot(module, depth=0)  # no block is the last of a transformer
        for suffix in ("", ".weight", ".bias"):
            fused = ours.get(slot.name + suffix) if slot is not None else None
            if slot is not None and fused is not None:
                named.pop(slot.name + suffix, None)
                named[module + suffix] = fused.chunk(slot.parts)[slot.part]
    return named
