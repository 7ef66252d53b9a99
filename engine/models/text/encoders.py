"""The text encoders: transformers' classes, shaped by the weights' sizes, run in float32 unless told otherwise.

Importing this module imports transformers, which takes seconds: only the loader does so, and only for text. Heads of
the CLIP towers are always 64 wide; T5's count of heads is the width of its table of relative positions.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from threading import RLock, get_ident

import torch
from torch import Tensor, nn
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel
from transformers.models.t5.configuration_t5 import T5Config
from transformers.models.t5.modeling_t5 import T5EncoderModel

from sigmagraph.engine.errors import TensorMismatch
from sigmagraph.engine.models.files.lora import WeightPatch, patched
from sigmagraph.engine.models.files.read import StoredTensor, Weights
from sigmagraph.engine.models.memory.device import Placement
from sigmagraph.engine.models.memory.recipe import Recipe
from sigmagraph.engine.models.memory.residency import RESIDENCY
from sigmagraph.engine.models.text.encode import Encoded, Going, TextEncoder, nobody
from sigmagraph.engine.models.text.tokenizer import ChunkRule, clip_rule, t5_rule

HEAD_WIDTH = 64
T5_FURTHEST = 128  # distances from there on share T5's last bucket
PROJECTION = "text_projection.weight"
PENULTIMATE = -2


class ClipEncoder:
    """A CLIP text tower: hidden states of a layer without the final norm; pooled at the first end token."""

    def __init__(
        self,
        recipe: Recipe[CLIPTextModel],
        projection: StoredTensor | None,
        width: int,
        vocabulary: int,
        rule: ChunkRule,
    ) -> None:
        self.recipe, self.projection, self.rule = recipe, projection, rule
        self.width, self.vocabulary = width, vocabulary
        self.pooled_width = width if projection is None else projection.shape[0]

    @torch.no_grad()
    def encode(
        self, ids: Tensor, layer: int | None = None, extra: Tensor | None = None, going: Going = nobody
    ) -> Encoded:
        """Ids [n, L] -> hidden [n, L, D] of `layer` (negative, from the end; None: last but one) and pooled [n, P]."""
        known, where = _known(ids, self.vocabulary + (0 if extra is None else len(extra))), self.recipe.placement
        ids = known.to(where.device)
        positions = torch.arange(ids.shape[1], device=ids.device)[None]
        with (
            self.recipe.use() as network,
            _extended(network, "embeddings.token_embedding", extra, self),
            told(network.get_submodule("encoder.layers"), going),
        ):
            output = network(ids, position_ids=positions, output_hidden_states=True)
        rows = torch.arange(ids.shape[0], device=ids.device)
        pooled = output.last_hidden_state[rows, (ids == self.rule.end).int().argmax(dim=1)]
        if self.projection is not None:
            pooled = pooled @ self.projection.on(where.device).to(where.dtype).T
        return Encoded(output.hidden_states[PENULTIMATE if layer is None else layer], pooled)

    def parameters(self) -> Collection[str]:
        """The names of the tower's weights; the projection is not among them."""
        return self.recipe.base.keys()

    def patched(self, patches: Sequence[WeightPatch]) -> "ClipEncoder":
        """The same encoder with these adapters merged in; what they leave alone is shared."""
        outer = {} if self.projection is None else {PROJECTION: self.projection}
        return self.with_weights(self.recipe.with_patches(patches), patched(outer, patches).get(PROJECTION))

    def with_weights(self, recipe: Recipe[CLIPTextModel], projection: StoredTensor | None) -> "ClipEncoder":
        """An encoder of the same sizes with other weights."""
        return ClipEncoder(recipe, projection, self.width, self.vocabulary, self.rule)


class T5Encoder:
    """A T5 v1.1 encoder: hidden states after the final norm. No pooled vector, no mask: padding counts."""

    pooled_width = 0
    projection: StoredTensor | None = None

    def __init__(self, recipe: Recipe[T5EncoderModel], width: int, vocabulary: int, rule: ChunkRule) -> None:
        self.recipe, self.rule = recipe, rule
        self.width, self.vocabulary = width, vocabulary

    @torch.no_grad()
    def encode(
        self, ids: Tensor, layer: int | None = None, extra: Tensor | None = None, going: Going = nobody
    ) -> Encoded:
        """Ids [n, L] -> hidden [n, L, D]. An earlier `layer` gets the final norm too."""
        known = _known(ids, self.vocabulary + (0 if extra is None else len(extra)))
        with (
            self.recipe.use() as network,
            _extended(network, "encoder.embed_tokens", extra, self),
            told(network.get_submodule("encoder.block"), going),
        ):
            output = network(known.to(self.recipe.placement.device), output_hidden_states=layer is not None)
            if layer is None or layer == -1:
                return Encoded(output.last_hidden_state)
            return Encoded(network.encoder.final_layer_norm(output.hidden_states[layer]))

    def parameters(self) -> Collection[str]:
        """The names of the encoder's weights."""
        return self.recipe.base.keys()

    def patched(self, patches: Sequence[WeightPatch]) -> "T5Encoder":
        """The same encoder with these adapters merged in; what they leave alone is shared."""
        return self.with_weights(self.recipe.with_patches(patches))

    def with_weights(self, recipe: Recipe[T5EncoderModel], projection: StoredTensor | None = None) -> "T5Encoder":
        """An encoder of the same sizes with other weights; it has no projection."""
        return T5Encoder(recipe, self.width, self.vocabulary, self.rule)


class ExtendedEmbedding(nn.Module):
    """An embedding table and more rows behind it, without copying the table."""

    def __init__(self, table: nn.Module, size: int, extra: Tensor) -> None:
        super().__init__()
        self.table, self.size, self.extra = table, size, extra

    def forward(self, ids: Tensor) -> Tensor:
        beyond = ids - self.size
        known: Tensor = self.table(ids.clamp(max=self.size - 1))
        return torch.where(beyond[..., None] < 0, known, self.extra[beyond.clamp(min=0)])


@contextmanager
def told(layers: nn.Module, going: Going) -> Iterator[None]:
    """Before each part of a layer that this thread computes, `going` hears of it; other jobs may use the network too.

    A whole layer of T5-XXL takes 30 s for 2,048 tokens on one busy core, and a cancel is waited for as long.
    """
    if going is nobody:
        yield
        return
    blocks, thread = list(layers.children()), get_ident()

    def hook(done: int) -> Callable[..., None]:
        return lambda *_: going(done, len(blocks)) if get_ident() == thread else None

    parts = [(done, part) for done, block in enumerate(blocks) for part in block.modules() if not any(part.children())]
    hooks = [part.register_forward_pre_hook(hook(done)) for done, part in parts]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


EXTENDING = RLock()


@contextmanager
def _extended(network: nn.Module, place: str, extra: Tensor | None, encoder: ClipEncoder | T5Encoder) -> Iterator[None]:
    """The network knows the extra embeddings for as long as the block lasts; others wait that long."""
    if extra is None:
        yield
        return
    with EXTENDING:
        table, where = network.get_submodule(place), encoder.recipe.placement
        rows = extra.to(where.device, where.dtype)
        network.set_submodule(place, ExtendedEmbedding(table, encoder.vocabulary, rows))
        try:
            yield
        finally:
            network.set_submodule(place, table)


def _known(ids: Tensor, vocabulary: int) -> Tensor:
    """The ids themselves, if there is an embedding for each."""
    if int(ids.max()) >= vocabulary:
        raise TensorMismatch(f"the tokenizer gives id {int(ids.max())}, the encoder knows {vocabulary}: not a pair")
    return ids


def clip_encoder(name: str, weights: Weights, placement: Placement, place: str = "") -> TextEncoder:
    """CLIP-L (`clip_l`: quick-GELU, pads with its end token) or bigG (`clip_g`: GELU, pads with 0).

    Heads, layers, widths, vocabulary and chunk length are read from the tensors.
    """
    try:
        vocabulary, width = weights["embeddings.token_embedding.weight"].shape
        length = weights["embeddings.position_embedding.weight"].shape[0]
        inner = weights["encoder.layers.0.mlp.fc1.weight"].shape[0]
    except (KeyError, ValueError, IndexError) as error:
        raise TensorMismatch(f"{name}: not a CLIP text encoder, {error} is missing or misshapen") from None
    is_l = name == "clip_l"
    layers, heads = _count(weights, "encoder.layers."), _heads(name, width)
    build = partial(_clip_tower, vocabulary, width, inner, layers, heads, length, is_l)
    tower = {key: tensor for key, tensor in weights.items() if key != PROJECTION}
    what = f"{place}: {name}" if place else name
    recipe = Recipe.checked(what, "text", build, tower, placement, RESIDENCY, "encoder.layers.")
    # SD3 takes CLIP-L's pooled vector unprojected, even from files that carry a projection
    projection = _projection(name, weights, width) if PROJECTION in weights and not is_l else None
    return ClipEncoder(recipe, projection, width, vocabulary, clip_rule(vocabulary, length, pads_with_end=is_l))


def _clip_tower(
    vocabulary: int, width: int, inner: int, layers: int, heads: int, length: int, is_l: bool
) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=length,
        hidden_act="quick_gelu" if is_l else "gelu",
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1 if is_l else 0,
    )
    return CLIPTextModel(config)


def _projection(name: str, weights: Weights, width: int) -> StoredTensor:
    shape = weights[PROJECTION].shape
    if len(shape) != 2 or shape[1] != width:
        raise TensorMismatch(f"{name}: {PROJECTION} is {list(shape)} for a width of {width}")
    return weights[PROJECTION]


def _heads(name: str, width: int) -> int:
    if width < HEAD_WIDTH or width % HEAD_WIDTH:
        raise TensorMismatch(f"{name}: a width of {width} is not a multiple of the head width {HEAD_WIDTH}")
    return width // HEAD_WIDTH


def t5_encoder(weights: Weights, placement: Placement, min_length: int, place: str = "") -> TextEncoder:
    """A T5 v1.1 encoder (gated GELU) of any size; prompts are padded to `min_length` tokens."""
    first = "encoder.block.0.layer.0.SelfAttention."
    try:
        vocabulary, width = weights["shared.weight"].shape
        buckets, heads = weights[first + "relative_attention_bias.weight"].shape
        inner = weights[first + "q.weight"].shape[0]
        feed_forward = weights["encoder.block.0.layer.1.DenseReluDense.wi_1.weight"].shape[0]
    except (KeyError, ValueError, IndexError) as error:
        raise TensorMismatch(f"t5xxl: not a T5 v1.1 encoder, {error} is missing or misshapen") from None
    if heads < 1 or inner % heads:
        raise TensorMismatch(f"t5xxl: {heads} heads do not divide an attention width of {inner}")
    if not 4 <= buckets < 4 * T5_FURTHEST:  # a quarter of them are for exact distances
        raise TensorMismatch(f"t5xxl: {buckets} buckets of distances; from 4 to {4 * T5_FURTHEST - 1} can be used")
    layers = _count(weights, "encoder.block.")
    build = partial(_t5_network, vocabulary, width, inner // heads, feed_forward, layers, heads, buckets)
    what = f"{place}: t5xxl" if place else "t5xxl"
    recipe = Recipe.checked(what, "text", build, weights, placement, RESIDENCY, "encoder.block.")
    return T5Encoder(recipe, width, vocabulary, t5_rule(min_length))


def _t5_network(
    vocabulary: int, width: int, head_width: int, feed_forward: int, layers: int, heads: int, buckets: int
) -> T5EncoderModel:
    config = T5Config(
        vocab_size=vocabulary,
        d_model=width,
        d_kv=head_width,
        d_ff=feed_forward,
        num_layers=layers,
        num_heads=heads,
        relative_attention_num_buckets=buckets,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
    )
    return T5EncoderModel(config)


def _count(weights: Mapping[str, object], prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in weights if name.startswith(prefix)})
