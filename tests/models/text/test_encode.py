"""Assembly of conditionings, with encoders replaced by closed formulas: weights, order, padding, missing encoders."""

from collections.abc import Collection, Mapping, Sequence

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue, TensorMismatch
from sigmagraph.engine.models import Clip, Conditioning
from sigmagraph.engine.models.files.lora import WeightPatch
from sigmagraph.engine.models.text.encode import (
    CLIP_G,
    CLIP_L,
    T5,
    Encoded,
    Going,
    TextEncoder,
    TextWidths,
    Tokens,
    nobody,
)
from sigmagraph.engine.models.text.tokenizer import Chunk, ChunkRule, Vocabulary, clip_rule, t5_rule
from tests.models.conftest import Arrays, packed_json
from tests.models.text.test_tokens import clip_vocabulary, t5_vocabulary

CASES = packed_json("conditioning.json")
TOKENS = packed_json("tokens.json")
RULES = {
    CLIP_L: clip_rule(49408, 77, pads_with_end=True),
    CLIP_G: clip_rule(49408, 77, pads_with_end=False),
    T5: t5_rule(77),
}
WIDTHS = {CLIP_L: 768, CLIP_G: 1280, T5: 4096}
MISSING = {
    "all": (),
    "no_t5": (T5,),
    "no_l": (CLIP_L,),
    "no_g": (CLIP_G,),
    "only_t5": (CLIP_L, CLIP_G),
    "only_l": (CLIP_G, T5),
    "only_g": (CLIP_L, T5),
    "none": (CLIP_L, CLIP_G, T5),
}


class Formula:
    """hidden = sin(...) and pooled = cos(...) of ids and positions, as the recording was made with."""

    def __init__(self, name: str, width: int | None = None) -> None:
        self.width = width or WIDTHS[name]
        self.vocabulary = 49408
        self.pooled_width = 0 if name == T5 else self.width
        self.rule: ChunkRule = RULES[name]

    def encode(
        self, ids: Tensor, layer: int | None = None, extra: Tensor | None = None, going: Going = nobody
    ) -> Encoded:
        columns, positions = torch.arange(self.width).double(), torch.arange(ids.shape[1]).double()
        speed = ((columns % 13) + 1) / 13
        phase = 0.37 * (ids % 997).double()[..., None] * speed
        hidden = torch.sin(phase + 0.11 * positions[:, None] + 0.013 * columns)
        total = ((torch.arange(ids.shape[1]) + 1) * ids).sum(dim=1) % 100003
        pooled = torch.cos(0.001 * total.double()[:, None] + 0.02 * columns)
        return Encoded(hidden.float(), pooled.float() if self.pooled_width else None)

    def parameters(self) -> Collection[str]:
        return ()

    def patched(self, patches: Sequence[WeightPatch]) -> "Formula":
        return self


def clip_without(missing: tuple[str, ...], vocabularies: Mapping[str, Vocabulary] | None = None) -> Clip:
    encoders: dict[str, TextEncoder] = {name: Formula(name) for name in RULES if name not in missing}
    return Clip(encoders, vocabularies if vocabularies is not None else {})


def recorded_tokens(prompt: str) -> Tokens:
    short = {CLIP_L: "l", CLIP_G: "g", T5: "t5xxl"}
    chunks: dict[str, tuple[Chunk, ...]] = {}
    for name in RULES:
        rows = TOKENS[prompt][short[name]]
        chunks[name] = tuple(tuple((int(token), float(weight)) for token, weight in row) for row in rows)
    return chunks


def assert_as_recorded(found: Conditioning, io: dict[str, Tensor], shapes: Mapping[str, list[int]]) -> None:
    assert list(found.context.shape) == shapes["cond_shape"]
    assert list(found.pooled.shape) == shapes["pooled_shape"]
    columns, pooled_columns = CASES["columns"], CASES["pooled_columns"]
    torch.testing.assert_close(found.context[..., columns], io["cond_columns"], rtol=0, atol=1e-5)
    torch.testing.assert_close(found.context.sum(dim=-1), io["cond_row_sum"], rtol=0, atol=1e-3)
    torch.testing.assert_close(found.pooled[..., pooled_columns], io["pooled_columns"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", [case for case in CASES["cases"] if not case.startswith("node/")])
def test_the_conditioning_of_recorded_tokens_is_the_recorded_one(arrays: Arrays, case: str) -> None:
    kind, prompt = case.split("/")
    clip = clip_without(MISSING[kind])
    tokens = {name: chunks for name, chunks in recorded_tokens(prompt).items() if name in clip.encoders}
    assert_as_recorded(clip.encode_tokens(tokens), arrays("conditioning")[case], CASES["cases"][case])


@pytest.mark.parametrize("case", [case for case in CASES["cases"] if case.startswith("node/")])
def test_a_text_per_encoder_gives_the_recorded_conditioning(arrays: Arrays, case: str) -> None:
    inputs, io = CASES["cases"][case], arrays("conditioning")[case]
    texts = {key: inputs[key] for key in RULES}
    clip = clip_without((), {CLIP_L: clip_vocabulary(), CLIP_G: clip_vocabulary(), T5: t5_vocabulary()})
    found = clip.encode_each(**texts, empty_padding=inputs["empty_padding"])
    assert_as_recorded(found, io, inputs)


def test_a_weight_of_zero_puts_the_empty_texts_state_in_place() -> None:
    clip = clip_without((CLIP_L, CLIP_G))
    empty = clip.encode_tokens({T5: (RULES[T5].empty(77),)})
    ids = [(7, 1.0), (8, 0.0), (1, 1.0), *[(0, 1.0)] * 74]
    found = clip.encode_tokens({T5: (tuple(ids),)})
    torch.testing.assert_close(found.context[:, 1], empty.context[:, 1], rtol=0, atol=1e-6)
    assert not torch.allclose(found.context[:, 0], empty.context[:, 0])


def test_encoders_of_another_width_than_the_models_are_named() -> None:
    clip = Clip({T5: Formula(T5, 128)}, {}, TextWidths(96, 64))
    with pytest.raises(TensorMismatch, match="128 columns, this model's context has 96"):
        clip.encode_tokens({T5: (RULES[T5].empty(77),)})


def test_only_layers_counted_from_the_end_are_accepted() -> None:
    with pytest.raises(BadValue, match="stop_at_clip_layer"):
        clip_without(()).with_last_layer(1)
    assert clip_without(()).with_last_layer(-2).layer == -2
