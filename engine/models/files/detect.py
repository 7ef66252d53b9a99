"""Which parts a weight file holds, told from tensor names and shapes alone; foreign models are named in the error.

Every part comes out in our layout and without prefix, ready to be checked against a module.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod

import torch

from sigmagraph.engine.errors import TensorMismatch, UnknownModel
from sigmagraph.engine.models.files.fp8 import multiplied_out
from sigmagraph.engine.models.files.gguf import ARCHITECTURE
from sigmagraph.engine.models.files.quantisation import readable
from sigmagraph.engine.models.files.read import StoredTensor, WeightFile, Weights, is_quantised, under
from sigmagraph.engine.models.files.rename import (
    clip_from_any,
    control_from_any,
    mmdit_from_diffusers,
    t5_from_any,
    tiny_vae_from_any,
    vae_from_diffusers,
)

MMDIT_MARK = "joint_blocks.0.context_block.attn.qkv.weight"
MMDIT_DIFFUSERS_MARKS = ("transformer_blocks.0.attn.add_q_proj.weight", "pos_embed.proj.weight")
CONTROL_MARKS = ("controlnet_blocks.0.weight", "pos_embed_input.proj.weight")
VAE_MARK = "decoder.conv_in.weight"
VAE_DIFFUSERS_MARK = "decoder.up_blocks.0.resnets.0.norm1.weight"
T5_MARK = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
T5_V1_MARK = "encoder.block.0.layer.1.DenseReluDense.wi.weight"
CLIP_MARKS = (
    "text_model.embeddings.token_embedding.weight",
    "embeddings.token_embedding.weight",
    "transformer.resblocks.0.ln_1.weight",
)
CHECKPOINT_ENCODERS = {name: f"text_encoders.{name}.transformer." for name in ("clip_l", "clip_g", "t5xxl")}
CHECKPOINT_VAE = "first_stage_model."
CLIP_H_WIDTH, CLIP_G_WIDTH, CLIP_L_WIDTH = 1024, 1280, 768
LATENT_CHANNELS = 16

# What a file is instead, by a tensor name (or part of one) that only it has. The first match wins.
FOREIGN: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("an adapter (LoRA): load it with a LoRA loader", lambda n: any(mark in n for mark in ("lora_", "lokr_", "hada_"))),
    (
        "a ControlNet: load it with a ControlNet loader",
        lambda n: n.startswith(("controlnet_blocks.", "control_model.")),
    ),
    ("a FLUX model", lambda n: "double_blocks.0.img_attn" in n or n.startswith("single_transformer_blocks.0.")),
    ("an AuraFlow model", lambda n: "double_layers.0.attn.w1q" in n),
    ("a PixArt model", lambda n: "adaln_single.linear" in n or n.endswith("t_block.1.weight")),
    ("a Stable Cascade model", lambda n: "clip_txt_mapper" in n),
    ("a Qwen-Image model", lambda n: n.endswith("txt_norm.weight")),
    ("an SDXL model", lambda n: "conditioner.embedders.1" in n or "add_embedding.linear_1" in n),
    ("a Stable Diffusion 1 or 2 model", lambda n: n.startswith("cond_stage_model.")),
    (
        "a UNet of the Stable Diffusion 1, 2 or XL kind",
        lambda n: "input_blocks.0.0" in n or "time_embedding.linear" in n,
    ),
)
FOREIGN_PARTS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("a T5 encoder of version 1.0", lambda n: n.endswith(T5_V1_MARK)),
    ("a VAE with quantisation convolutions (not SD3's)", lambda n: n.endswith("post_quant_conv.weight")),
    ("a VAE with another latent than SD3's 16 channels", lambda n: n.endswith(VAE_MARK)),
    ("a CLIP text encoder that is neither CLIP-L nor bigG", lambda n: n.endswith(CLIP_MARKS)),
    ("a textual inversion embedding", lambda n: n in ("emb_params", "string_to_param", "clip_l", "clip_g", "t5xxl")),
)


@dataclass(frozen=True)
class Parts:
    """The recognised parts of one file, each in our layout; `encoders` by the names clip_l, clip_g and t5xxl."""

    mmdit: Weights | None = None
    vae: Weights | None = None
    encoders: Mapping[str, Weights] = field(default_factory=dict)
    control: Weights | None = None
    tiny_vae: Weights | None = None

    def __bool__(self) -> bool:
        return any(part is not None for part in (self.mmdit, self.vae, self.control, self.tiny_vae)) or bool(
            self.encoders
        )

    def listing(self) -> str:
        """The parts in words, for messages."""
        named = (
            ("a diffusion model", self.mmdit),
            ("a VAE", self.vae),
            ("a ControlNet", self.control),
            ("TAESD3", self.tiny_vae),
        )
        found = [name for name, part in named if part is not None]
        return ", ".join([*found, *self.encoders])


def find_parts(file: WeightFile) -> Parts:
    """Everything of the SD3 family in `file`. Raises `UnknownModel`, saying what it is instead, if there is nothing.

    So it does for matrices in a form that is not read; `TensorMismatch` where tensors that belong together do not fit.
    """
    weights = readable(file).weights
    try:
        parts = Parts(_mmdit(weights), _vae(weights), _encoders(weights), _control(weights), _tiny_vae(weights))
    except TensorMismatch as error:
        raise TensorMismatch(f"{file.path}: {error}") from None
    if not parts:
        raise unexpected(file, parts, "a model of the SD3 family")
    return parts


def unexpected(file: WeightFile, parts: Parts, expected: str) -> UnknownModel:
    """The error for a file without `expected`: what it holds of ours, and what it looks like otherwise."""
    if parts:
        kind = _first_match(FOREIGN, file.weights)
        found = f"it holds {parts.listing()}" + (f" and looks like {kind}" if kind else "")
    else:
        kind = _first_match(FOREIGN + FOREIGN_PARTS, file.weights)
        few = ", ".join(sorted(file.weights)[:3]) or "none"
        if kind is None and ARCHITECTURE in file.metadata:
            kind = f"a GGUF file of the architecture {file.metadata[ARCHITECTURE]!r}"
        found = f"this is {kind}" if kind else f"its tensors ({few} ...) belong to no model known here"
    return UnknownModel(f"{file.path}: {found}; {expected} was expected")


def _first_match(kinds: Iterable[tuple[str, Callable[[str], bool]]], weights: Weights) -> str | None:
    return next((kind for kind, is_mark in kinds if any(is_mark(name) for name in weights)), None)


def _prefix_of(weights: Weights, marks: Iterable[str]) -> str | None:
    """What stands before a mark, where all `marks` stand behind the same prefix; the shortest such prefix."""
    first, *others = marks
    prefixes = (name[: -len(first)] for name in weights if name.endswith(first))
    fitting = [p for p in prefixes if (not p or p.endswith(".")) and all(p + other in weights for other in others)]
    return min(fitting, key=len, default=None)


def _mmdit(weights: Weights) -> Weights | None:
    prefix = _prefix_of(weights, [MMDIT_MARK])
    if prefix is not None:
        return multiplied_out(under(weights, prefix))
    prefix = _prefix_of(weights, MMDIT_DIFFUSERS_MARKS)
    if prefix is None or prefix + "controlnet_blocks.0.weight" in weights:
        return None
    return mmdit_from_diffusers(multiplied_out(under(weights, prefix)))


def _control(weights: Weights) -> Weights | None:
    prefix = _prefix_of(weights, CONTROL_MARKS)
    return None if prefix is None else control_from_any(multiplied_out(under(weights, prefix)))


def control_type(weights: Weights) -> int | None:
    """The number that SD3.5's ControlNets carry: which kind of hint they take."""
    stored = next((t for name, t in weights.items() if name.rpartition(".")[2] == "control_type"), None)
    is_number = stored is not None and prod(stored.shape) == 1 and not stored.dtype.is_floating_point
    return int(stored.read().flatten()[0]) if stored is not None and is_number else None


def _vae(weights: Weights) -> Weights | None:
    prefix = _prefix_of(weights, [VAE_MARK])
    if prefix is None:
        return None
    found = {name: t for name, t in under(weights, prefix).items() if name.startswith(("encoder.", "decoder."))}
    if weights[prefix + VAE_MARK].shape[1:2] != (LATENT_CHANNELS,) or prefix + "post_quant_conv.weight" in weights:
        return None
    return vae_from_diffusers(found) if VAE_DIFFUSERS_MARK in found else found


def _tiny_vae(weights: Weights) -> Weights | None:
    """TAESD3 alone, or in a checkpoint that was saved with it."""
    return tiny_vae_from_any(weights) or tiny_vae_from_any(under(weights, CHECKPOINT_VAE))


def _encoders(weights: Weights) -> dict[str, Weights]:
    """The encoders under a checkpoint's prefixes; in a file without these, the one encoder the whole file is."""
    inside: dict[str, Weights] = {name: under(weights, prefix) for name, prefix in CHECKPOINT_ENCODERS.items()}
    found = {name: part for name, part in inside.items() if _is_t5(part) or _is_clip(part)}
    if not found and (_is_t5(weights) or _is_clip(weights)):
        found = {"t5xxl" if _is_t5(weights) else clip_name(weights): weights}
    return {name: _in_our_names(name, part) for name, part in found.items()}


def _in_our_names(name: str, weights: Weights) -> dict[str, StoredTensor]:
    plain = multiplied_out(weights)
    return t5_from_any(plain) if name == "t5xxl" else clip_from_any(plain)


def _is_t5(weights: Weights) -> bool:
    return T5_MARK in weights and T5_V1_MARK not in weights


def _is_clip(weights: Weights) -> bool:
    return any(mark in weights for mark in CLIP_MARKS) and _clip_width(weights) != CLIP_H_WIDTH


def _clip_width(weights: Weights) -> int:
    mark = next(mark for mark in CLIP_MARKS if mark in weights)
    return weights[mark].shape[-1] if weights[mark].shape else 0


def clip_name(weights: Weights) -> str:
    """`clip_g` for bigG, `clip_l` for CLIP-L: by width, and for other widths bigG is the one with a projection."""
    width = _clip_width(weights)
    if width in (CLIP_L_WIDTH, CLIP_G_WIDTH):
        return "clip_g" if width == CLIP_G_WIDTH else "clip_l"
    return "clip_g" if {"text_projection", "text_projection.weight"} & set(weights) else "clip_l"


def main_dtype(weights: Weights) -> torch.dtype:
    """What a part is stored in: the dtype of its largest tensor; bytes, if tensors of it are quantised."""
    return max(weights.values(), key=lambda tensor: (is_quantised(tensor), prod(tensor.shape))).dtype
