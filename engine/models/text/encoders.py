"""The text encoders: transformers' classes, shaped by the weights' sizes, run in float32.

Importing this module imports transformers, which takes seconds: only the loader does so, and only for text. Heads of
the CLIP towers are always 64 wide; T5's count of heads is the width of its table of relative positions.
"""

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel
from transformers.models.t5.configuration_t5 import T5Config
from transformers.models.t5.modeling_t5 import T5EncoderModel

from sigmagraph.engine.errors import TensorMismatch
from sigmagraph.engine.models.files.read import Weights
from sigmagraph.engine.models.memory.device import Placement
from sigmagraph.engine.models.memory.resident import replaced, resident
from sigmagraph.engine.models.text.encode import Encoded, TextEncoder
from sigmagraph.engine.models.text.tokenizer import ChunkRule, clip_rule, t5_rule

HEAD_WIDTH = 64
PROJECTION = "text_projection.weight"
PENULTIMATE = -2


class ClipEncoder:
    """A CLIP text tower: hidden states of a layer without the final norm; pooled at the first end token."""

    def __init__(self, network: CLIPTextModel, projection: Tensor | None, rule: ChunkRule) -> None:
        self._network, self._projection, self.rule = network, projection, rule
        self.width, self.vocabulary = int(network.config.hidden_size), int(network.config.vocab_size)
        self.pooled_width = self.width if projection is None else int(projection.shape[0])

    @torch.no_grad()
    def encode(self, ids: Tensor, layer: int | None = None, extra: Tensor | None = None) -> Encoded:
        """Ids [n, L] -> hidden [n, L, D] of `layer` (negative, from the end; None: last but one) and pooled [n, P]."""
        network = _extended(self._network, "embeddings.token_embedding", extra)
        known = _known(ids, self.vocabulary + (0 if extra is None else len(extra)))
        ids = known.to(network.device)
        positions = torch.arange(ids.shape[1], device=ids.device)[None]
        output = network(ids, position_ids=positions, output_hidden_states=True)
        rows = torch.arange(ids.shape[0], device=ids.device)
        pooled = output.last_hidden_state[rows, (ids == self.rule.end).int().argmax(dim=1)]
        if self._projection is not None:
            pooled = pooled @ self._projection.T
        return Encoded(output.hidden_states[PENULTIMATE if layer is None else layer], pooled)

    def parameters(self) -> Mapping[str, Tensor]:
        """The tower's weights by name; the projection is not among them."""
        return self._network.state_dict()

    def with_parameters(self, tensors: Mapping[str, Tensor]) -> "ClipEncoder":
        """The same encoder with some weights replaced; the others are shared."""
        return ClipEncoder(replaced(self._network, tensors), self._projection, self.rule)


class T5Encoder:
    """A T5 v1.1 encoder: hidden states after the final norm. No pooled vector, no mask: padding counts."""

    pooled_width = 0

    def __init__(self, network: T5EncoderModel, rule: ChunkRule) -> None:
        self._network, self.rule = network, rule
        self.width, self.vocabulary = int(network.config.d_model), int(network.config.vocab_size)

    @torch.no_grad()
    def encode(self, ids: Tensor, layer: int | None = None, extra: Tensor | None = None) -> Encoded:
        """Ids [n, L] -> hidden [n, L, D]. An earlier `layer` gets the final norm too."""
        network = _extended(self._network, "encoder.embed_tokens", extra)
        known = _known(ids, self.vocabulary + (0 if extra is None else len(extra)))
        output = network(known.to(network.device), output_hidden_states=layer is not None)
        if layer is None or layer == -1:
            return Encoded(output.last_hidden_state)
        return Encoded(self._network.encoder.final_layer_norm(output.hidden_states[layer]))

    def parameters(self) -> Mapping[str, Tensor]:
        """The encoder's weights by name."""
        return self._network.state_dict()

    def with_parameters(self, tensors: Mapping[str, Tensor]) -> "T5Encoder":
        """The same encoder with some weights replaced; the others are shared."""
        return T5Encoder(replaced(self._network, tensors), self.rule)


class ExtendedEmbedding(nn.Module):
    """An embedding table and more rows behind it, without copying the table."""

    def __init__(self, table: nn.Module, size: int, extra: Tensor) -> None:
        super().__init__()
        self.table, self.size, self.extra = table, size, extra

    def forward(self, ids: Tensor) -> Tensor:
        beyond = ids - self.size
        known: Tensor = self.table(ids.clamp(max=self.size - 1))
        return torch.where(beyond[..., None] < 0, known, self.extra[beyond.clamp(min=0)])


N = TypeVar("N", CLIPTextModel, T5EncoderModel)


def _extended(network: N, place: str, extra: Tensor | None) -> N:
    """The network itself, or a twin that shares its weights and knows the extra embeddings too."""
    if extra is None:
        return network
    twin = replaced(network, {})
    table = twin.get_submodule(place)
    rows = extra.to(network.device, network.dtype)
    twin.set_submodule(place, ExtendedEmbedding(table, int(network.config.vocab_size), rows))
    return twin


def _known(ids: Tensor, vocabulary: int) -> Tensor:
    """The ids themselves, if there is an embedding for each."""
    if int(ids.max()) >= vocabulary:
        raise TensorMismatch(f"the tokenizer gives id {int(ids.max())}, the encoder knows {vocabulary}: not a pair")
    return ids


def clip_encoder(name: str, weights: Weights, placement: Placement) -> TextEncoder:
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
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        projection_dim=width,
        num_hidden_layers=_count(weights, "encoder.layers."),
        num_attention_heads=_heads(name, width),
        max_position_embeddings=length,
        hidden_act="quick_gelu" if is_l else "gelu",
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1 if is_l else 0,
    )
    tower = {key: tensor for key, tensor in weights.items() if key != PROJECTION}
    network = resident(name, lambda: CLIPTextModel(config), tower, placement)
    # SD3 takes CLIP-L's pooled vector unprojected, even from files that carry a projection
    projection = _projection(name, weights, width, placement) if PROJECTION in weights and not is_l else None
    return ClipEncoder(network, projection, clip_rule(vocabulary, length, pads_with_end=is_l))


def _projection(name: str, weights: Weights, width: int, placement: Placement) -> Tensor:
    shape = weights[PROJECTION].shape
    if len(shape) != 2 or shape[1] != width:
        raise TensorMismatch(f"{name}: {PROJECTION} is {list(shape)} for a width of {width}")
    return weights[PROJECTION].read().to(placement.device, placement.dtype)


def _heads(name: str, width: int) -> int:
    if width < HEAD_WIDTH or width % HEAD_WIDTH:
        raise TensorMismatch(f"{name}: a width of {width} is no multiple of the head width {HEAD_WIDTH}")
    return width // HEAD_WIDTH


def t5_encoder(weights: Weights, placement: Placement, min_length: int) -> TextEncoder:
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
    config = T5Config(
        vocab_size=vocabulary,
        d_model=width,
        d_kv=inner // heads,
        d_ff=feed_forward,
        num_layers=_count(weights, "encoder.block."),
        num_heads=heads,
        relative_attention_num_buckets=buckets,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
    )
    return T5Encoder(resident("t5xxl", lambda: T5EncoderModel(config), weights, placement), t5_rule(min_length))


def _count(weights: Mapping[str, object], prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in weights if name.startswith(prefix)})
