"""Foreign tensor names, a table per layout: diffusers' MMDiT and VAE, ControlNets, OpenCLIP's tower, T5's embedding.

A table maps a foreign name to a `ParameterSlot` of ours. The same MMDiT table places LoRA deltas.
Nothing is read here: renamed tensors are combined when somebody reads them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from sigmagraph.engine.errors import TensorMismatch
from sigmagraph.engine.models.files.read import Combine, StoredTensor, Weights


@dataclass(frozen=True, slots=True)
class ParameterSlot:
    """Where a foreign tensor goes: rows `part` of `parts` equal shares of our tensor `name`.

    `is_swapped`: its halves of rows change places (diffusers splits scale, shift where the original has shift, scale).
    """

    name: str
    part: int = 0
    parts: int = 1
    is_swapped: bool = False


QKV = (("q", 0), ("k", 1), ("v", 2))

MMDIT_OUTER: Mapping[str, str] = {
    "pos_embed.pos_embed": "pos_embed",
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}

MMDIT_BLOCK: Mapping[str, ParameterSlot] = {
    "norm1.linear": ParameterSlot("x_block.adaLN_modulation.1"),
    "norm1_context.linear": ParameterSlot("context_block.adaLN_modulation.1"),
    **{f"attn.to_{letter}": ParameterSlot("x_block.attn.qkv", part, 3) for letter, part in QKV},
    **{f"attn.add_{letter}_proj": ParameterSlot("context_block.attn.qkv", part, 3) for letter, part in QKV},
    **{f"attn2.to_{letter}": ParameterSlot("x_block.attn2.qkv", part, 3) for letter, part in QKV},
    "attn.to_out.0": ParameterSlot("x_block.attn.proj"),
    "attn.to_add_out": ParameterSlot("context_block.attn.proj"),
    "attn2.to_out.0": ParameterSlot("x_block.attn2.proj"),
    "attn.norm_q": ParameterSlot("x_block.attn.ln_q"),
    "attn.norm_k": ParameterSlot("x_block.attn.ln_k"),
    "attn.norm_added_q": ParameterSlot("context_block.attn.ln_q"),
    "attn.norm_added_k": ParameterSlot("context_block.attn.ln_k"),
    "attn2.norm_q": ParameterSlot("x_block.attn2.ln_q"),
    "attn2.norm_k": ParameterSlot("x_block.attn2.ln_k"),
    "ff.net.0.proj": ParameterSlot("x_block.mlp.fc1"),
    "ff.net.2": ParameterSlot("x_block.mlp.fc2"),
    "ff_context.net.0.proj": ParameterSlot("context_block.mlp.fc1"),
    "ff_context.net.2": ParameterSlot("context_block.mlp.fc2"),
}


def mmdit_slot(module: str, depth: int) -> ParameterSlot | None:
    """The slot of a module named as in diffusers (`transformer_blocks.3.attn.to_q`), or None for an unknown name."""
    if module in MMDIT_OUTER:
        return ParameterSlot(MMDIT_OUTER[module], is_swapped=module == "norm_out.linear")
    block = re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)", module)
    if block is None or block[2] not in MMDIT_BLOCK:
        return None
    inner = MMDIT_BLOCK[block[2]]
    is_last_context = block[2] == "norm1_context.linear" and int(block[1]) == depth - 1
    return ParameterSlot(f"joint_blocks.{block[1]}.{inner.name}", inner.part, inner.parts, is_last_context)


def mmdit_from_diffusers(weights: Weights) -> dict[str, StoredTensor]:
    """Diffusers' SD3 transformer in the original layout. Unknown names stay as they are, to be reported."""
    blocks = [int(name.split(".")[1]) for name in weights if re.match(r"transformer_blocks\.\d+\.", name)]
    depth = max(blocks, default=-1) + 1
    return placed(weights, lambda module: mmdit_slot(module, depth))


CONTROL_EXTRAS = ("control_type",)  # a number that tells how hints are prepared, no weight
STREAM_EXTRAS = ("context_embedder.weight", "context_embedder.bias")  # in files of nets that see no text; unused


def control_slot(module: str) -> ParameterSlot | None:
    """The slot of a ControlNet's module, of either kind and in any layout, or None where the name is ours."""
    slot = mmdit_slot(module, depth=0)  # no block is the last of a transformer
    block = re.fullmatch(r"transformer_blocks\.(\d+)\.((?:adaLN_modulation|attn|mlp)\..+)", module)
    if slot is None and block is not None:
        return ParameterSlot(f"stream_blocks.{block[1]}.{block[2]}")
    return slot


def control_from_any(weights: Weights) -> dict[str, StoredTensor]:
    """A ControlNet in our layout: `joint_blocks` with text, or `stream_blocks` of image tokens alone."""
    named = placed({name: tensor for name, tensor in weights.items() if name not in CONTROL_EXTRAS}, control_slot)
    if any(name.startswith("joint_blocks.") and ".context_block." in name for name in named):
        return named
    streams = {re.sub(r"^joint_blocks\.(\d+)\.x_block\.", r"stream_blocks.\1.", name): t for name, t in named.items()}
    return {name: tensor for name, tensor in streams.items() if name not in STREAM_EXTRAS}


def placed(weights: Weights, slot_of: Callable[[str], ParameterSlot | None]) -> dict[str, StoredTensor]:
    """Every tensor in the slot of its module, fused where several share one; without a slot it keeps its name."""
    gathered: dict[str, dict[int, str]] = {}
    slots: dict[str, ParameterSlot] = {}
    for foreign in weights:
        module, suffix = _split(foreign)
        slot = slot_of(module) or ParameterSlot(module)
        gathered.setdefault(slot.name + suffix, {})[slot.part] = foreign
        slots[slot.name + suffix] = slot
    renamed: dict[str, StoredTensor] = {}
    for name, parts in gathered.items():
        slot = slots[name]
        if set(parts) != set(range(slot.parts)):
            renamed |= {foreign: weights[foreign] for foreign in parts.values()}
            continue
        sources = [weights[parts[part]] for part in range(slot.parts)]
        is_as_it_is = slot.parts == 1 and not slot.is_swapped
        renamed[name] = (
            sources[0] if is_as_it_is else derived(name, sources, swap_halves if slot.is_swapped else stack_rows)
        )
    return renamed


def _split(name: str) -> tuple[str, str]:
    for suffix in (".weight", ".bias"):
        if name.endswith(suffix):
            return name.removesuffix(suffix), suffix
    return name, ""


def stack_rows(parts: Sequence[Tensor]) -> Tensor:
    """Fuse along dim 0; parts that are stored differently grow first, float8 does not by itself."""
    is_mixed = len({part.dtype for part in parts}) > 1
    return torch.cat([part.float() for part in parts] if is_mixed else list(parts))


def swap_halves(parts: Sequence[Tensor]) -> Tensor:
    """The second half of the rows first."""
    first, second = parts[0].chunk(2)
    return torch.cat([second, first])


def derived(name: str, sources: Sequence[StoredTensor], combine: Combine) -> StoredTensor:
    """The tensor `name` made from stored ones; its shape is found on the meta device. Raises `TensorMismatch`."""
    try:
        shape = _shape(combine, tuple(source.shape for source in sources))
    except (RuntimeError, IndexError, ValueError, ZeroDivisionError) as error:
        shapes = ", ".join(str(list(source.shape)) for source in sources)
        raise TensorMismatch(f"{name}: tensors of shapes {shapes} do not combine ({error})") from None
    kept = tuple(sources)
    parts = sources if combine is stack_rows else sources[:1]
    dtype = max((part.dtype for part in parts), key=lambda dtype: dtype.itemsize)
    return StoredTensor(shape, dtype, lambda: combine([source.read() for source in kept]), kept, combine)


@lru_cache(maxsize=1024)
def _shape(combine: Combine, shapes: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """Found once: a network has hundreds of matrices and few shapes, and each asking takes 0.1 ms."""
    return tuple(combine([torch.empty(shape, device="meta") for shape in shapes]).shape)


VAE_RULES: tuple[tuple[str, str], ...] = (
    (r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d+)\.resnets\.(\d+)", r"up.\1.block.\2"),
    (r"up_blocks\.(\d+)\.upsamplers\.0", r"up.\1.upsample"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"conv_norm_out", "norm_out"),
)


def vae_from_diffusers(weights: Weights) -> dict[str, StoredTensor]:
    """Diffusers' autoencoder in the LDM layout: levels counted from full resolution, attention as 1x1 convolutions."""
    levels = {int(found[1]) for name in weights if (found := re.search(r"up_blocks\.(\d+)\.", name))}
    renamed: dict[str, StoredTensor] = {}
    for foreign, tensor in weights.items():
        name = foreign
        for pattern, replacement in VAE_RULES:
            name = re.sub(pattern, replacement, name)
        name = re.sub(r"\bup\.(\d+)", lambda found: f"up.{max(levels) - int(found[1])}", name)
        is_flat = ".attn_1." in name and name.endswith(".weight") and len(tensor.shape) == 2
        renamed[name] = derived(name, [tensor], _as_convolution) if is_flat else tensor
    return renamed


def _as_convolution(parts: Sequence[Tensor]) -> Tensor:
    return parts[0][:, :, None, None]


OPENCLIP_RULES: tuple[tuple[str, str], ...] = (
    (r"token_embedding\.weight", "embeddings.token_embedding.weight"),
    (r"positional_embedding", "embeddings.position_embedding.weight"),
    (r"ln_final\.(.+)", r"final_layer_norm.\1"),
    (r"transformer\.resblocks\.(\d+)\.ln_([12])\.(.+)", r"encoder.layers.\1.layer_norm\2.\3"),
    (r"transformer\.resblocks\.(\d+)\.attn\.out_proj\.(.+)", r"encoder.layers.\1.self_attn.out_proj.\2"),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.(.+)", r"encoder.layers.\1.mlp.fc1.\2"),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.(.+)", r"encoder.layers.\1.mlp.fc2.\2"),
)


def clip_from_openclip(weights: Weights) -> dict[str, StoredTensor]:
    """OpenCLIP's text tower in transformers' names; the fused in-projection is cut into thirds."""
    renamed: dict[str, StoredTensor] = {}
    for foreign, tensor in weights.items():
        fused = re.fullmatch(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)", foreign)
        if fused:
            for letter, part in QKV:
                name = f"encoder.layers.{fused[1]}.self_attn.{letter}_proj.{fused[2]}"
                renamed[name] = derived(name, [tensor], _third(part))
            continue
        name = next((re.sub(p, r, foreign) for p, r in OPENCLIP_RULES if re.fullmatch(p, foreign)), foreign)
        renamed[name] = tensor
    return renamed


def _third(part: int) -> Combine:
    return lambda parts: parts[0].chunk(3)[part]


def clip_from_any(weights: Weights) -> dict[str, StoredTensor]:
    """A CLIP text tower of any layout as transformers keeps it in memory: without `text_model.`.

    `text_projection` without `.weight` is stored [in, out] and gets transposed; what is no weight is dropped.
    """
    is_openclip = "transformer.resblocks.0.ln_1.weight" in weights
    named = (
        clip_from_openclip(weights) if is_openclip else {n.removeprefix("text_model."): t for n, t in weights.items()}
    )
    if "text_projection" in named:
        named["text_projection.weight"] = derived("text_projection", [named.pop("text_projection")], _transposed)
    return {
        name: tensor for name, tensor in named.items() if name.split(".")[-1] not in ("position_ids", "logit_scale")
    }


def _transposed(parts: Sequence[Tensor]) -> Tensor:
    return parts[0].t().contiguous()


def t5_from_any(weights: Weights) -> dict[str, StoredTensor]:
    """A T5 encoder whose embedding is stored once or twice: both names of transformers' class are there afterwards."""
    named = {name: tensor for name, tensor in weights.items() if name != "logit_scale"}
    embedding = named.get("shared.weight") or named.get("encoder.embed_tokens.weight")
    return (
        named if embedding is None else named | {"shared.weight": embedding, "encoder.embed_tokens.weight": embedding}
    )


TINY_CHANNELS = 16


def tiny_vae_from_any(weights: Weights) -> dict[str, StoredTensor] | None:
    """TAESD3 in diffusers' names; of a file that holds half of it, that half. None where it is something else.

    Its author's files count layers from the first, of which the decoder's has no weights and diffusers none at all.
    """
    named: dict[str, StoredTensor] = {}
    halves = {"taesd_encoder.": "encoder", "taesd_decoder.": "decoder", "encoder.layers.": "", "decoder.layers.": ""}
    is_half = not any(name.startswith(tuple(halves)) for name in weights)
    whose = "encoder" if "0.weight" in weights else "decoder"
    for foreign, tensor in weights.items():
        prefix = next((known for known in halves if foreign.startswith(known)), "")
        side = halves.get(prefix, whose) or prefix.partition(".")[0]
        number, _, rest = foreign.removeprefix(prefix).partition(".")
        if not number.isdigit() or (not prefix and not is_half):
            return None
        before = 1 if side == "decoder" and not prefix.endswith("layers.") else 0
        named[f"{side}.layers.{int(number) - before}.{rest}"] = tensor
    first, last = named.get("decoder.layers.0.weight"), named.get("encoder.layers.14.weight")
    sizes = {tensor.shape[axis : axis + 1] for tensor, axis in ((first, 1), (last, 0)) if tensor is not None}
    return named if sizes == {(TINY_CHANNELS,)} else None
