"""Chunks against recorded ones: real ids from the parts of CLIP's and T5's vocabularies that the prompts reach."""

import json
from collections.abc import Sequence
from functools import cache

import pytest

from sigmagraph.engine.models.text.tokenizer import Chunk, Tokenizer, Vocabulary, clip_rule, t5_rule
from sigmagraph.engine.models.text.vocabulary import Vocabularies
from tests.models.conftest import DATA, packed_json

TOKENS = packed_json("tokens.json")
# Prompts that mention embeddings are in test_embeddings.py.
PLAIN = [name for name in TOKENS if not name.startswith("emb_")]

T5_CHARACTERS = [
    {"type": "NFKC"},
    {"type": "Replace", "pattern": {"Regex": r"\s"}, "content": " "},
    {"type": "Strip", "strip_left": False, "strip_right": True},
    {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u2581"},
]


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


@cache
def t5_vocabulary() -> Vocabulary:
    """T5's own pieces at their own ids; what these prompts cannot reach is filled with what no text spells."""
    subset = packed_json("t5_subset.json")
    vocabulary: list[tuple[str, float]] = [(f"\0{at}", -1000.0) for at in range(subset["size"])]
    for at, piece, score in subset["pieces"]:
        vocabulary[at] = piece, score
    written = {
        "version": "1.0",
        "normalizer": {"type": "Sequence", "normalizers": T5_CHARACTERS},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first"},
        "model": {"type": "Unigram", "unk_id": 2, "vocab": vocabulary, "byte_fallback": False},
        "added_tokens": [],
    }
    return Vocabularies({"tokenizer.t5xxl": json.dumps(written)})["t5xxl"]


@pytest.mark.parametrize("name", PLAIN)
def test_t5_chunks_are_those_recorded_with_the_real_vocabulary(name: str) -> None:
    assert Tokenizer(t5_vocabulary(), t5_rule(77))(TOKENS[name]["text"]) == recorded(TOKENS[name]["t5xxl"])
