"""The demo's vocabularies follow the layout that CLIP and T5 files have."""

import random

import pytest

from models.demo import scenes
from models.demo.diffusion import captions_corpus
from models.demo.text import CHUNK, Tokenizers, clip_tokenizer, t5_tokenizer


@pytest.fixture(scope="module")
def tokenizers() -> Tokenizers:
    corpus = captions_corpus()[:4000]
    return Tokenizers(clip_tokenizer(corpus), t5_tokenizer(corpus))


def test_clip_ids_are_framed_by_the_last_two_of_the_vocabulary(tokenizers: Tokenizers) -> None:
    tokens, end = tokenizers(["a red circle"]), tokenizers.clip.get_vocab_size() - 1
    ids = tokens.clip_l[0].tolist()
    assert ids[0] == end - 1
    assert ids[4:] == [end] * (CHUNK - 4)
    assert tokens.clip_g[0].tolist() == [*ids[:5], *[0] * (CHUNK - 5)]


def test_t5_ids_end_with_one_and_are_padded_with_zero(tokenizers: Tokenizers) -> None:
    ids = tokenizers(["a red circle"]).t5[0].tolist()
    assert ids[3] == 1
    assert ids[4:] == [0] * (CHUNK - 4)
    assert tokenizers.t5.decode(ids[:3]) == "a red circle"


def test_every_caption_fits_one_chunk_in_whole_words(tokenizers: Tokenizers) -> None:
    rng = random.Random(0)
    for scene in scenes.scenes(500, 8, held_out=True):
        wording = scenes.wording(scene, rng)
        words = wording.replace(",", " ,").split()
        assert len(tokenizers.clip.encode(wording).ids) == len(words) <= CHUNK - 2
        assert len(tokenizers.t5.encode(wording).ids) == len(words) <= CHUNK - 1


def test_words_that_were_never_seen_are_spelled(tokenizers: Tokenizers) -> None:
    assert tokenizers.clip.decode(tokenizers.clip.encode("zebra", add_special_tokens=False).ids)
    assert 2 not in tokenizers.t5.encode("zebra").ids, "2 is the unknown token"
