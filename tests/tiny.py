"""A complete checkpoint of the real layout with random weights, small enough to run in a test."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from sigmagraph.engine.models.arch import Autoencoder, MMDiT, MMDiTShape, VaeShape

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
