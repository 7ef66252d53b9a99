"""Text encoders as node packs handle them: a text becomes lists of weighted ids, and these become a conditioning."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models.conditioning import Conditioning
from sigmagraph.engine.models.text.clip import Clip
from sigmagraph.engine.models.text.encode import CLIP_G, CLIP_L, T5, Chunks
from sigmagraph.nodes.support.packs.conditioning import conditioning_out
from sigmagraph.nodes.support.packs.weights import changed_clip, clip_weights

__all__ = ["PackClip", "clip_of"]

NAMES = {CLIP_L: "l", CLIP_G: "g", T5: "t5xxl"}  # ours -> by which packs take the tokens of one encoder
PADDING = {"t5xxl_min_length": 1, "t5xxl_min_padding": 0}
Row = list[tuple[Any, ...]]
Rows = list[Row]


class PackClip:
    """Text encoders of ours on a pack's side; what is set on a clone concerns nobody else."""

    def __init__(self, clip: Clip, *_: Any, **__: Any) -> None:
        if not isinstance(clip, Clip):
            raise BadValue("CLIP", type(clip).__qualname__, "text encoders that a loader of this engine gave")
        self.value = clip
        self.patcher = Patcher("the encoders' patcher", self)
        self.cond_stage_model = Inner("the encoders' network", clip)
        self.tokenizer = Inner("the encoders' tokenizer")

    @property
    def layer_idx(self) -> int | None:
        """The layer whose states are taken, from the end; None for the usual one."""
        return self.value.layer

    def clone(self, *_: Any, **__: Any) -> "PackClip":
        """Another object for the same encoders, with what is set so far."""
        return PackClip(self.value)

    copy = clone

    def clip_layer(self, layer_idx: int) -> None:
        """Take the states of another layer from now on, counted from the end."""
        self.value = self.value.with_last_layer(layer_idx)

    def set_tokenizer_option(self, option_name: str, value: Any) -> None:
        """How long T5's chunk is at least, and how many fillers end it."""
        if option_name not in PADDING:
            raise BadValue("set_tokenizer_option", option_name, " or ".join(PADDING))
        length, padding = PADDING["t5xxl_min_length"], PADDING["t5xxl_min_padding"]
        if self.value.t5_padding is not None:
            padding, length = self.value.t5_padding
        now = {"t5xxl_min_length": length, "t5xxl_min_padding": padding, option_name: int(value)}
        self.value = self.value.with_t5_padding(now["t5xxl_min_padding"], now["t5xxl_min_length"])

    def tokenize(self, text: str, return_word_ids: bool = False, **_: Any) -> dict[str, Rows]:
        """Chunks of (id, weight) for each encoder; with word ids every token counts as a word, fillers as 0."""
        return {
            NAMES[name]: [_row(chunk, return_word_ids, self._special(name)) for chunk in chunks]
            for name, chunks in self.value.tokenize(text).items()
        }

    def encode_from_tokens(self, tokens: Any, return_pooled: Any = False, return_dict: bool = False) -> Any:
        """The context [1, L, C]; with `return_pooled` the pooled vector beside it, or both in a dict."""
        made = self._encoded(tokens)
        if return_dict:
            return {"cond": made.context, "pooled_output": made.pooled}
        return (made.context, made.pooled) if return_pooled else made.context

    def encode_from_tokens_scheduled(
        self, tokens: Any, unprojected: bool = False, add_dict: Mapping[str, Any] | None = None, show_pbar: bool = True
    ) -> list[Any]:
        """A conditioning, with `add_dict` in each of its entries."""
        return [[context, {**extra, **(add_dict or {})}] for context, extra in conditioning_out(self._encoded(tokens))]

    def encode(self, text: str) -> Tensor:
        """The context of a text."""
        return self.value.encode(text).context

    def add_patches(
        self, patches: Mapping[Any, Any], strength_patch: float = 1.0, strength_model: float = 1.0
    ) -> list[Any]:
        """Change weights from now on: so much of each is kept, so much of its patch is added."""
        self.value, taken = changed_clip(self.value, patches, strength_patch, strength_model)
        return taken

    def load_model(self, *_: Any, **__: Any) -> None:
        """Nothing: the engine sees to that itself."""

    def _encoded(self, tokens: Any) -> Conditioning:
        if not isinstance(tokens, Mapping) or not tokens.keys() <= set(NAMES.values()):
            found = sorted(tokens) if isinstance(tokens, Mapping) else type(tokens).__qualname__
            allowed = f"lists of (id, weight) under {', '.join(NAMES.values())}, as tokenize gives"
            raise BadValue("tokens", found, allowed)
        ours = {name: _chunks(tokens[short]) for name, short in NAMES.items() if short in tokens}
        return self.value.encode_tokens({name: ours.get(name, ()) for name in self.value.encoders})

    def _special(self, name: str) -> frozenset[int | None]:
        rule = self.value.encoders[name].rule
        return frozenset((rule.start, rule.end, rule.pad))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"text encoders' {name} is not here for node packs; docs/packs.md lists what they can use")

    def get_sd(self) -> Mapping[str, Tensor]:
        """The weights by name, each read when it is asked for."""
        return clip_weights(self.value)


class Inner:
    """A part that packs name and this engine does not show."""

    def __init__(self, what: str, value: Any = None) -> None:
        self._what, self.value = what, value
        self.model_options: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)  # also while a copy has nothing yet
        raise AttributeError(f"{self._what}: {name} is not here for node packs; docs/packs.md lists what they can use")


class Patcher(Inner):
    """What packs find for the patcher of text encoders: their weights by name."""

    def __init__(self, what: str, clip: PackClip) -> None:
        super().__init__(what)
        self._clip = clip
        first: Any = next(iter(clip.value.encoders.values()))
        self.load_device, self.offload_device = first.recipe.placement.device, torch.device("cpu")

    def model_state_dict(self, filter_prefix: str | None = None) -> Mapping[str, Tensor]:
        """The weights whose names begin so; the names are those that `add_patches` of the encoders takes."""
        found = self._clip.get_sd()
        return (
            found if filter_prefix is None else {name: found[name] for name in found if name.startswith(filter_prefix)}
        )


def clip_of(clip: Any) -> Any:
    """The value of ours that a pack's object means."""
    return clip.value if isinstance(clip, PackClip) else clip


def _row(chunk: Sequence[tuple[Any, float]], numbers_words: bool, special: frozenset[int | None]) -> Row:
    if not numbers_words:
        return list(chunk)
    words = (0 if isinstance(token, int) and token in special else place for place, (token, _) in enumerate(chunk))
    return [(token, weight, word) for (token, weight), word in zip(chunk, words, strict=True)]


def _chunks(rows: Any) -> Chunks:
    """Rows of a pack as chunks of ours; a word's number, where there is one, says nothing here."""
    return tuple(tuple((token[0], float(token[1])) for token in row) for row in rows)
