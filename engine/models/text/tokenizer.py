"""Prompt -> chunks of weighted token ids, by the rules existing seeds and images depend on.

The vocabulary comes in as a function from a segment's text to ids without special tokens; start, end and padding ids,
and the chunk length, are facts about the encoder the tokens are for.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models.text.embeddings import Finder, Vector, pieces
from sigmagraph.engine.models.text.prompt import Segment, segments

Token = tuple[int | Vector, float]
Chunk = tuple[Token, ...]
Vocabulary = Callable[[str], Sequence[int]]

UNBROKEN_BELOW = 8  # a segment of fewer tokens is never split over two chunks
LONGEST_TEXT = 100_000
"""Characters: looking a longer text up takes seconds in which no cancel is heard."""
MOST_TOKENS = 4096
"""Of one text. T5 reads a text as one chunk, in memory that grows with the square: 4 GiB at so many tokens."""


@dataclass(frozen=True)
class ChunkRule:
    """How ids become chunks. `chunk_length` None: one chunk, as long as it needs to be, at least `min_length`.

    Such a chunk ends with `min_padding` fillers at least.
    """

    end: int
    pad: int
    start: int | None = None
    chunk_length: int | None = None
    min_length: int = 0
    min_padding: int = 0

    def empty(self, length: int) -> Chunk:
        """The chunk of an empty text, `length` tokens long."""
        return self._padded([], length)

    def _padded(self, tokens: Sequence[Token], length: int) -> Chunk:
        start = [(self.start, 1.0)] if self.start is not None else []
        chunk = [*start, *tokens, (self.end, 1.0)]
        return (*chunk, *[(self.pad, 1.0)] * (length - len(chunk)))

    def chunks(self, groups: Sequence[Sequence[Token]]) -> tuple[Chunk, ...]:
        """Fill chunks with groups (one per segment) in order; there is always at least one chunk."""
        if self.chunk_length is None:
            tokens = [token for group in groups for token in group]
            ends = len(tokens) + 1 + (self.start is not None)
            return (self._padded(tokens, max(self.min_length, ends + self.min_padding)),)
        room = self.chunk_length - 1 - (self.start is not None)
        filled: list[list[Token]] = [[]]
        for group in groups:
            rest, is_breakable = list(group), len(group) >= UNBROKEN_BELOW
            while len(filled[-1]) + len(rest) > room:
                fits = room - len(filled[-1]) if is_breakable or not filled[-1] else 0
                filled[-1] += rest[:fits]
                rest = rest[fits:]
                filled.append([])
            filled[-1] += rest
        return tuple(self._padded(tokens, self.chunk_length) for tokens in filled)


@dataclass(frozen=True)
class Tokenizer:
    """A vocabulary, the rule of the encoder it feeds, and where `embedding:name` is looked up."""

    vocabulary: Vocabulary
    rule: ChunkRule
    find: Finder = lambda _: None

    def __call__(self, prompt: str) -> tuple[Chunk, ...]:
        """Each weighted segment is looked up on its own, then all are laid out in chunks.

        Raises `BadValue` for a text that no encoder could read in sensible time and memory.
        """
        if len(prompt) > LONGEST_TEXT:
            raise BadValue("text", f"{len(prompt):,} characters", f"at most {LONGEST_TEXT:,} characters")
        groups = [group for segment in segments(prompt) for group in self._groups(segment)]
        tokens = sum(map(len, groups))
        if tokens > MOST_TOKENS:
            raise BadValue("text", f"a prompt of {tokens:,} tokens", f"at most {MOST_TOKENS:,} tokens")
        return self.rule.chunks(groups)

    def _groups(self, segment: Segment) -> Iterator[list[Token]]:
        """A segment's tokens: one group per stretch of text and per embedding in it."""
        for piece in pieces(segment.text, self.find):
            tokens: Sequence[int | Vector] = self.vocabulary(piece) if isinstance(piece, str) else piece
            yield [(token, segment.weight) for token in tokens]


def clip_rule(vocabulary_size: int, chunk_length: int, *, pads_with_end: bool) -> ChunkRule:
    """CLIP: the last two ids start and end a chunk; CLIP-L pads with the end token, bigG with 0."""
    end = vocabulary_size - 1
    return ChunkRule(end=end, pad=end if pads_with_end else 0, start=end - 1, chunk_length=chunk_length)


def t5_rule(min_length: int) -> ChunkRule:
    """T5: ids, then 1, then 0 up to `min_length`; no upper limit."""
    return ChunkRule(end=1, pad=0, min_length=min_length)
