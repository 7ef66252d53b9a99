"""Models and text encoders between two others: lazy, tensor by tensor."""

from dataclasses import replace
from typing import Annotated, Any

from sigmagraph.engine.graph.node import Node, Range, input_of, node
from sigmagraph.engine.models.merge import Blend, MergeShares, merged_clips, merged_models, multiplied_clip, towards
from sigmagraph.nodes.conditioning.conditioning import NO_CLIP
from sigmagraph.nodes.support.types import Clip, Model, present

__all__ = ["NODES"]

CATEGORY = "advanced/model_merging"
SPECIFIC = "advanced/model_merging/model_specific"
Share = Annotated[float, Range(0.0, 1.0, step=0.01)]
Factor = Annotated[float, Range(0.0, 10.0, step=0.01)]
Multiplier = Annotated[float, Range(-10.0, 10.0, step=0.01)]
EMBEDDERS = ("pos_embed.", "x_embedder.", "context_embedder.", "y_embedder.", "t_embedder.")


@node("ModelMergeSimple", category=CATEGORY)
def model_merge_simple(*, model1: Model, model2: Model, ratio: Share = 1.0) -> Model:
    """`ratio` of the first model, the rest of the second."""
    return merged_models(model1, model2, MergeShares(towards(ratio)))


@node("ModelMergeAdd", category=CATEGORY)
def model_merge_add(*, model1: Model, model2: Model) -> Model:
    """The sum of both; the second is a difference, as a rule."""
    return merged_models(model1, model2, MergeShares(Blend(1.0, 1.0)))


@node("ModelMergeSubtract", category=CATEGORY)
def model_merge_subtract(*, model1: Model, model2: Model, multiplier: Multiplier = 1.0) -> Model:
    """`multiplier` times what the first has more than the second."""
    return merged_models(model1, model2, MergeShares(Blend(multiplier, -multiplier)))


@node("ModelMergeBlocks", category=CATEGORY)
def model_merge_blocks(
    *, model1: Model, model2: Model, input: Share = 1.0, middle: Share = 1.0, out: Share = 1.0
) -> Model:
    """Shares for the parts of a UNet. A transformer has none of these names: all of it follows `input`."""
    prefixes = tuple((prefix, towards(share)) for prefix, share in (("middle", middle), ("out", out)))
    return merged_models(model1, model2, MergeShares(towards(input), (("input", towards(input)), *prefixes)))


def by_block(class_type: str, depth: int) -> Node:
    """A node with a share for each embedder, block and the last layer; other tensors follow the first of them."""
    names = (*EMBEDDERS, *(f"joint_blocks.{block}." for block in range(depth)), "final_layer.")

    def merge(*, model1: Model, model2: Model, **shares: Any) -> Model:
        blends = tuple((name, towards(shares.get(name, 1.0))) for name in names)
        return merged_models(model1, model2, MergeShares(blends[0][1], blends))

    @node(class_type, category=SPECIFIC)
    def declared(*, model1: Model, model2: Model) -> Model:
        """So much of the first model in each part of the transformer, the rest of the second."""
        raise NotImplementedError

    inputs = (*declared.inputs, *(input_of(name, Share, 1.0) for name in names))
    return replace(declared, inputs=inputs, function=merge)


@node("CLIPMergeSimple", category=CATEGORY)
def clip_merge_simple(*, clip1: Clip, clip2: Clip, ratio: Share = 1.0) -> Clip:
    """`ratio` of the first text encoders, the rest of the second; an encoder that only one has stays."""
    return _clips(clip1, clip2, towards(ratio))


@node("CLIPMergeSubtract", category=CATEGORY)
def clip_merge_subtract(*, clip1: Clip, clip2: Clip, multiplier: Multiplier = 1.0) -> Clip:
    """`multiplier` times what the first encoders have more than the second."""
    return _clips(clip1, clip2, Blend(multiplier, -multiplier))


@node("CLIPMergeAdd", category=CATEGORY)
def clip_merge_add(*, clip1: Clip, clip2: Clip) -> Clip:
    """The sum of both; the second is a difference, as a rule."""
    return _clips(clip1, clip2, Blend(1.0, 1.0))


@node("CLIPAttentionMultiply", category="_for_testing/attention_experiments", experimental=True)
def clip_attention_multiply(
    *, clip: Clip, q: Factor = 1.0, k: Factor = 1.0, v: Factor = 1.0, out: Factor = 1.0
) -> Clip:
    """The CLIP encoders with so many times their queries, keys, values and outputs of attention; T5 stays."""
    factors = {"q_proj": q, "k_proj": k, "v_proj": v, "out_proj": out}
    endings = {f"self_attn.{name}.{kind}": factor for name, factor in factors.items() for kind in ("weight", "bias")}
    return multiplied_clip(present(clip, "clip", NO_CLIP), endings)


def _clips(one: Clip, other: Clip, blend: Blend) -> Clip:
    return merged_clips(present(one, "clip1", NO_CLIP), present(other, "clip2", NO_CLIP), MergeShares(blend))


NODES = (
    model_merge_simple,
    model_merge_add,
    model_merge_subtract,
    model_merge_blocks,
    by_block("ModelMergeSD3_2B", 24),
    by_block("ModelMergeSD35_Large", 38),
    clip_merge_simple,
    clip_merge_subtract,
    clip_merge_add,
    clip_attention_multiply,
)
