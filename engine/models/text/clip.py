"""`Clip`: the text side of a checkpoint as one immutable value: prompt in, `Conditioning` out."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from pathlib import Path
from typing import Literal, Protocol

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models.conditioning import Conditioning
from sigmagraph.engine.models.files.adapter_keys import encoder_keys
from sigmagraph.engine.models.files.lora import Adapter, Adapting, WeightPatch
from sigmagraph.engine.models.files.rename import ParameterSlot
from sigmagraph.engine.models.hooks import Hook
from sigmagraph.engine.models.text.embeddings import Embeddings
from sigmagraph.engine.models.text.encode import (
    CLIP_G,
    CLIP_L,
    T5,
    Chunks,
    Going,
    TextEncoder,
    TextWidths,
    Tokens,
    assemble,
    nobody,
)
from sigmagraph.engine.models.text.tokenizer import ChunkRule, Tokenizer, Vocabulary
from sigmagraph.engine.models.text.vocabulary import Vocabularies

EmptyPadding = Literal["none", "empty_prompt"]


class VocabularySource(Protocol):
    """Something that has the vocabulary of an encoder by its name."""

    def __getitem__(self, encoder: str) -> Vocabulary:
        """Raises an `EngineError` where there is none."""


@dataclass(frozen=True, eq=False)
class Clip:
    """Up to three encoders (`clip_l`, `clip_g`, `t5xxl`) and their vocabularies. Any may be missing.

    `t5_padding`: fillers and length that T5's chunk has at least, in place of its rule's own.
    `attached` are hooks that its conditionings carry; `schedule` are the values that encode for parts of the way.
    `layer`: take the hidden states of another layer than usual (negative, from the end), in all encoders. `patches`
    are merged into copies of what they change when the value first encodes.
    """

    encoders: Mapping[str, TextEncoder]
    vocabularies: VocabularySource
    widths: TextWidths = field(default_factory=TextWidths)
    layer: int | None = None
    patches: Mapping[str, tuple[WeightPatch, ...]] = field(default_factory=dict)
    embeddings: Embeddings = field(default_factory=Embeddings)
    t5_padding: tuple[int, int] | None = None
    attached: tuple[Hook, ...] = ()
    schedule: tuple[tuple[float, float, "Clip"], ...] = ()

    def looking_in(self, tokenizers: Sequence[Path], embeddings: Sequence[Path]) -> "Clip":
        """The same encoders, whose tokenizers and learned embeddings are looked for in these folders too."""
        vocabularies = self.vocabularies
        if isinstance(vocabularies, Vocabularies):
            vocabularies = vocabularies.looking_in(tokenizers)
        return replace(self, vocabularies=vocabularies, embeddings=self.embeddings.looking_in(embeddings))

    def with_adapter(self, adapter: Adapting, strength: float) -> "Clip":
        """The same encoders with an adapter at this strength (negative allowed), after those they have already."""
        patches = dict(self.patches)
        for name, encoder in self.encoders.items():
            if (patch := adapter.of_encoder(name, encoder.parameters(), strength)) is not None:
                patches[name] = (*patches.get(name, ()), patch)
        return self if patches == self.patches else replace(self, patches=patches)

    def fitting(self, adapter: Adapter) -> dict[str, dict[str, ParameterSlot]]:
        """Per encoder, the adapter's base keys that have a place in it."""
        return {name: adapter.fitting(encoder_keys(name, e.parameters())) for name, e in self.encoders.items()}

    @cached_property
    def patched(self) -> Mapping[str, TextEncoder]:
        """The encoders that encode: as loaded, or with their patches merged in."""
        return {
            name: encoder.patched(self.patches[name]) if name in self.patches else encoder
            for name, encoder in self.encoders.items()
        }

    def with_last_layer(self, layer: int) -> "Clip":
        """The same encoders, stopping at `layer` (-1 is the last). Raises `BadValue` for anything not negative."""
        if layer >= 0:
            raise BadValue("stop_at_clip_layer", layer, "a negative number, counted from the last layer")
        return replace(self, layer=layer)

    def with_t5_padding(self, min_padding: int, min_length: int) -> "Clip":
        """The same encoders; T5's chunk ends with so many fillers, and has so many tokens, at least."""
        return replace(self, t5_padding=(min_padding, min_length))

    def tokenize(self, text: str) -> dict[str, Chunks]:
        """Chunks of weighted ids for every encoder that is there."""
        return {name: self._tokenizer(name)(text) for name in self.encoders}

    def encode(self, text: str, going: Going = nobody) -> Conditioning:
        """The same text through all encoders; `going` hears of every layer, and may end it by raising."""
        return self.encode_tokens(self.tokenize(text), going)

    def encode_tokens(self, tokens: Tokens, going: Going = nobody) -> Conditioning:
        """Chunks per encoder -> context [1, L, C] and pooled [1, P]; an entry for each part of a schedule."""
        if not self.schedule:
            return self._encoded(tokens, going).with_hooks(self.attached)
        first, *others = (clip._encoded(tokens, going).within(start, end) for start, end, clip in self.schedule)
        return reduce(Conditioning.beside, others, first).with_hooks(self.attached)

    def _encoded(self, tokens: Tokens, going: Going) -> Conditioning:
        return assemble(self.patched, tokens, self.widths, self.layer, going)

    def with_hooks(self, hooks: Sequence[Hook], attaches: bool, is_scheduled: bool) -> "Clip":
        """The encoders with the hooks' adapters; conditionings carry the hooks too if `attaches`.

        With `is_scheduled` keyframes count for the encoders: each part of the way between two gets an encoding of its
        own. Without, adapters are as strong as the hooks say.
        """
        attached = (*self.attached, *hooks) if attaches else self.attached
        if not is_scheduled:
            return replace(self._adapted(hooks, None), attached=attached)
        starts = sorted({0.0, *(one.start_percent for hook in hooks for one in hook.keyframes)})
        parts = [
            (start, end, self._adapted(hooks, start)) for start, end in zip(starts, [*starts[1:], 1.0], strict=True)
        ]
        return replace(self, attached=attached, schedule=tuple(parts))

    def _adapted(self, hooks: Sequence[Hook], percent: float | None) -> "Clip":
        """The encoders with adapters as they are at a share of the way."""
        clip = self
        for hook in hooks:
            factor = 1.0 if percent is None else hook.factor(-percent, operator.neg)
            clip = clip.with_adapter(hook.adapter, hook.strength_clip * factor)
        return clip

    def encode_each(
        self, *, clip_l: str, clip_g: str, t5xxl: str, empty_padding: EmptyPadding = "none", going: Going = nobody
    ) -> Conditioning:
        """A text per encoder. With `none` an empty T5 text is one token, and two empty CLIP texts are left out.

        Otherwise the CLIPs get equally many chunks: the shorter is continued with the empty text's.
        """
        texts = {CLIP_L: clip_l, CLIP_G: clip_g, T5: t5xxl}
        is_left_out = {name: empty_padding == "none" and not texts[name] for name in texts}
        if not (clip_l == clip_g == ""):
            is_left_out |= {CLIP_L: False, CLIP_G: False}
        tokens = {name: () if is_left_out[name] else self._tokenizer(name)(texts[name]) for name in self.encoders}
        return self.encode_tokens(self._with_equal_chunks(tokens), going)

    def _with_equal_chunks(self, tokens: Mapping[str, Chunks]) -> dict[str, Chunks]:
        clips = [name for name in (CLIP_L, CLIP_G) if name in tokens]
        most = max((len(tokens[name]) for name in clips), default=0)
        filled = {name: tokens[name] + self._empty(name) * (most - len(tokens[name])) for name in clips}
        return {**tokens, **filled}

    def _empty(self, name: str) -> Chunks:
        return self._rule(name).chunks([])

    def _rule(self, name: str) -> ChunkRule:
        rule = self.encoders[name].rule
        if name != T5 or self.t5_padding is None:
            return rule
        padding, length = self.t5_padding
        return replace(rule, min_padding=padding, min_length=length)

    def _tokenizer(self, name: str) -> Tokenizer:
        return Tokenizer(self.vocabularies[name], self._rule(name), self.embeddings.finder(name))
