"""Chunks of tokens -> one `Conditioning`: prompt weights, the order of the encoders, what replaces a missing one.

Context = [CLIP-L and bigG side by side, zero-padded to T5's width] followed by T5's tokens; pooled = CLIP-L then bigG
(Esser 2024, arXiv:2403.03206, appendix B.3). Knows the encoders only through `TextEncoder`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from sigmagraph.engine.errors import TensorMismatch
from sigmagraph.engine.models.conditioning import Conditioning
from sigmagraph.engine.models.files.lora import WeightPatch
from sigmagraph.engine.models.text.tokenizer import Chunk, ChunkRule

CLIP_L, CLIP_G, T5 = "clip_l", "clip_g", "t5xxl"
ENCODERS = (CLIP_L, CLIP_G, T5)
LENGTH_OF_NOTHING = 77  # tokens of the zero context when no encoder is there at all

Chunks = tuple[Chunk, ...]
Going = Callable[[float, float], None]
"""Told many times in each layer how many are done, and of how many; what it raises ends the encoding."""
Tokens = Mapping[str, Chunks]


def nobody(done: float, whole: float) -> None:
    """Nobody wants to know, or to stop it."""


@dataclass(frozen=True, eq=False, slots=True)
class Encoded:
    """hidden [n, L, D] and, from the CLIPs, pooled [n, P]."""

    hidden: Tensor
    pooled: Tensor | None = None


class TextEncoder(Protocol):
    """What encoding needs of an encoder; `pooled_width` is 0 for one without a pooled vector."""

    width: int
    pooled_width: int
    vocabulary: int
    rule: ChunkRule

    def encode(
        self, ids: Tensor, layer: int | None = None, extra: Tensor | None = None, going: Going = nobody
    ) -> Encoded:
        """Ids [n, L], one row per chunk; `layer` None means the encoder's usual one.

        `extra` [k, D] are the embeddings of the ids `vocabulary` to `vocabulary + k - 1`.
        """

    def parameters(self) -> Collection[str]:
        """The names of its weights."""

    def patched(self, patches: Sequence[WeightPatch]) -> "TextEncoder":
        """The same encoder with these adapters merged in; what they leave alone is shared."""


@dataclass(frozen=True, slots=True)
class TextWidths:
    """What the diffusion model expects: context columns, pooled columns (both CLIPs together)."""

    context: int = 4096
    pooled: int = 2048


def weighted(encoder: TextEncoder, chunks: Chunks, layer: int | None = None, going: Going = nobody) -> Encoded:
    """Encode the chunks, laid end to end: hidden [1, n L, D], pooled [1, P] of the first.

    A token of weight w becomes (z - e) w + e, where e is the empty text's state at that position; pooled vectors are
    left alone. No chunks at all are encoded as the shortest empty text.
    """
    length = max((len(chunk) for chunk in chunks), default=0)
    weights = torch.tensor([[weight for _, weight in chunk] for chunk in chunks], dtype=torch.float64)
    needs_empty = not chunks or bool((weights != 1.0).any())
    rows = [*chunks, encoder.rule.empty(length)] if needs_empty else list(chunks)
    ids, extra = _ids(encoder, rows)
    encoded = encoder.encode(ids, layer, extra, going)
    hidden = encoded.hidden.float().cpu()
    if chunks and needs_empty:
        empty, is_plain = hidden[-1:], (weights == 1.0)[..., None]
        hidden = torch.where(is_plain, hidden[:-1], (hidden[:-1] - empty) * weights[..., None].float() + empty)
    pooled = None if encoded.pooled is None else encoded.pooled[:1].float().cpu()
    return Encoded(hidden.flatten(0, 1)[None], pooled)


def _ids(encoder: TextEncoder, rows: Sequence[Chunk]) -> tuple[Tensor, Tensor | None]:
    """Ids [n, L], and the embeddings of those beyond the vocabulary, where learned vectors occur.

    Vectors of another width than the encoder's are dropped; the row is filled with padding at its end.
    """
    extra: list[Tensor] = []
    ids: list[list[int]] = []
    for row in rows:
        ids.append([])
        for token, _ in row:
            if isinstance(token, int):
                ids[-1].append(token)
            elif token.values.shape[-1] == encoder.width:
                ids[-1].append(encoder.vocabulary + len(extra))
                extra.append(token.values)
        ids[-1] += [encoder.rule.pad] * (len(row) - len(ids[-1]))
    return torch.tensor(ids), torch.stack(extra) if extra else None


def assemble(
    encoders: Mapping[str, TextEncoder],
    tokens: Tokens,
    widths: TextWidths,
    layer: int | None = None,
    going: Going = nobody,
) -> Conditioning:
    """Encode with every encoder that is there and put the results in their places.

    A missing CLIP leaves zeros in its columns, a missing T5 leaves its tokens out. Two CLIPs without any chunks (not
    even the empty text's) contribute nothing.
    """
    has_clip_chunks = any(tokens.get(name) for name in (CLIP_L, CLIP_G))
    used = [name for name in encoders if name == T5 or has_clip_chunks]
    encoded = {name: weighted(encoders[name], tokens.get(name, ()), layer, going) for name in used}
    pooled_g_width = encoders[CLIP_G].pooled_width if CLIP_G in encoders else None
    left = encoders[CLIP_L].width if CLIP_L in encoders else widths.pooled - (pooled_g_width or 0)
    parts = _clip_columns([encoded.get(CLIP_L), encoded.get(CLIP_G)], left, widths.context)
    if T5 in encoded:
        parts.append(encoded[T5].hidden)
    context = torch.cat(_checked(parts, widths.context), dim=1) if parts else _nothing(widths)
    return Conditioning(context, _pooled(encoded, widths, left))


def _clip_columns(pair: Sequence[Encoded | None], left: int, context: int) -> list[Tensor]:
    """[CLIP-L columns, bigG columns, zeros] as one stretch of tokens, or nothing where neither CLIP was used."""
    clip_l, clip_g = pair
    if clip_l is not None and clip_g is not None:
        length = min(clip_l.hidden.shape[1], clip_g.hidden.shape[1])
        joined = torch.cat([clip_l.hidden[:, :length], clip_g.hidden[:, :length]], dim=-1)
    elif clip_g is not None:
        joined = F.pad(clip_g.hidden, (left, 0))
    elif clip_l is not None:
        joined = clip_l.hidden
    else:
        return []
    return [F.pad(joined, (0, max(context - joined.shape[-1], 0)))]


def _checked(parts: list[Tensor], context: int) -> list[Tensor]:
    for part in parts:
        if part.shape[-1] != context:
            raise TensorMismatch(f"the text encoders give {part.shape[-1]} columns, this model's context has {context}")
    return parts


def _nothing(widths: TextWidths) -> Tensor:
    return torch.zeros(1, LENGTH_OF_NOTHING, widths.context)


def _pooled(encoded: Mapping[str, Encoded], widths: TextWidths, left: int) -> Tensor:
    """CLIP-L in the first `left` columns, bigG in the rest; zeros for what is missing."""
    pooled = torch.zeros(1, widths.pooled)
    for name, columns in ((CLIP_L, slice(0, left)), (CLIP_G, slice(left, None))):
        vector = encoded[name].pooled if name in encoded else None
        if vector is None:
            continue
        if pooled[:, columns].shape != vector.shape:
            raise TensorMismatch(
                f"{name} pools {vector.shape[-1]} columns, this model has {pooled[:, columns].shape[-1]}"
            )
        pooled[:, columns] = vector
    return pooled
