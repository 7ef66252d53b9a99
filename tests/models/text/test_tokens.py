"""Chunks against recorded ones: real CLIP ids from the subset vocabulary, T5's chunk rules on recorded ids."""

from collections.abc import Sequence

import pytest

from sigmagraph.engine.models.text.prompt import segments
from sigmagraph.engine.models.text.tokenizer import Chunk, Tokenizer, Vocabulary, clip_rule, t5_rule
from sigmagraph.engine.models.text.vocabulary import Vocabularies
from tests.models.conftest import DATA, packed_json

TOKENS = packed_json("tokens.json")
# Prompts that mention embeddings are in test_embeddings.py.
PLAIN = [name for name in TOKENS if not name.startswith("emb_")]


def clip_vocabulary() -> Vocabulary:
    text = (DATA / "clip_subset.tokenizer.json").read_text("utf-8")
    return Vocabularies({"tokenizer.clip_l": text})["clip_l"]


def recorded(chunks: Sequence[Sequence[Sequence[float]]]) -> tuple[Chunk, ...]:
    return tuple(tuple((int(token), float(weight)) for token, weight in chunk) for chunk in chunks)


@pytest.mark.parametrize("name", [*PLAIN, "emb_glued"])
@pytest.mark.parametrize("encoder", ["l", "g"])
def test_clip_chunks_are_those_recorded_with_the_real_vocabulary(name: str, encoder: str) -> None:
    rule = clip_rule(49408, 77, pads_with_end=encoder == "l")
    chunks = Tokenizer(clip_vocabulary(), rule)(TOKENS[name]["text"])
    assert chunks == recorded(TOKENS[name][encoder])


def replayed(text: str, recording: Chunk) -> Vocabulary:
    """A stand-in for T5's vocabulary: the segments of `text`, asked for in order, get the recorded ids of their weight.

    Neighbouring segments of equal weight cannot be told apart in a recording: the first gets all, the others none.
    """
    ids = list(recording[: recording.index((1, 1.0))])
    answers: list[list[int]] = []
    weights = [segment.weight for segment in segments(text) if segment.text]
    for i, weight in enumerate(weights):
        taken = 0
        while i == 0 or weight != weights[i - 1]:
            if taken == len(ids) or ids[taken][1] != weight:
                break
            taken += 1
        answers.append([token for token, _ in ids[:taken]])
        ids = ids[taken:]
    assert not ids, "the recording holds weights that the prompt's segments do not have"
    left = iter(answers)
    return lambda _: next(left)


@pytest.mark.parametrize("name", PLAIN)
def test_t5_weights_and_padding_are_those_recorded(name: str) -> None:
    text, chunks = TOKENS[name]["text"], recorded(TOKENS[name]["t5xxl"])
    assert Tokenizer(replayed(text, chunks[0]), t5_rule(77))(text) == chunks
