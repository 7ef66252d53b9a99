"""The layout of chunks, on a vocabulary that gives one id per letter."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models.text.tokenizer import LONGEST_TEXT, MOST_TOKENS, ChunkRule, Tokenizer, clip_rule, t5_rule

START, END = 998, 999


def letters(text: str) -> list[int]:
    return [ord(letter) for letter in text if letter != " "]


def clip(length: int = 12) -> Tokenizer:
    return Tokenizer(letters, clip_rule(1000, length, pads_with_end=True))


def ids(chunk: tuple[tuple[int, float], ...]) -> list[int]:
    return [token for token, _ in chunk]


def test_a_clip_chunk_starts_ends_and_pads_with_the_last_two_ids_of_the_vocabulary() -> None:
    (chunk,) = clip()("ab")
    assert ids(chunk) == [START, 97, 98, *[END] * 9]


def test_bigg_pads_with_zero() -> None:
    (chunk,) = Tokenizer(letters, clip_rule(1000, 6, pads_with_end=False))("a")
    assert ids(chunk) == [START, 97, END, 0, 0, 0]


def test_an_empty_prompt_is_one_chunk_of_padding() -> None:
    rule = clip_rule(1000, 12, pads_with_end=True)
    assert clip()("") == (rule.empty(12),)


def test_t5_is_one_chunk_of_any_length_but_the_least() -> None:
    tokenizer = Tokenizer(letters, t5_rule(8))
    assert ids(tokenizer("abc")[0]) == [97, 98, 99, 1, 0, 0, 0, 0]
    assert ids(tokenizer("a" * 200)[0]) == [97] * 200 + [1]


def test_a_short_segment_moves_to_the_next_chunk_whole() -> None:
    first, second = clip()("aaaaaa(bbbbbb:1.5)")
    assert ids(first) == [START, *[97] * 6, *[END] * 5]
    assert second[1:7] == ((98, 1.5),) * 6


def test_a_long_segment_is_split_exactly_at_the_end_of_the_chunk() -> None:
    first, second = clip()("aaaa(bbbbbbbb:1.5)")
    assert ids(first) == [START, *[97] * 4, *[98] * 6, END]
    assert ids(second)[:4] == [START, 98, 98, END]


def test_a_segment_that_fits_exactly_opens_no_second_chunk() -> None:
    assert len(clip()("a" * 10)) == 1
    assert len(clip()("a" * 11)) == 2


def test_short_segments_are_split_where_no_chunk_could_hold_them() -> None:
    chunks = Tokenizer(letters, clip_rule(1000, 5, pads_with_end=True))("aaaaaaa")
    assert [ids(chunk).count(97) for chunk in chunks] == [3, 3, 1]


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from([0.5, 1.0, 1.5])), max_size=12), st.integers(3, 40))
def test_tokens_keep_their_order_and_weights_and_every_chunk_its_length(
    groups: list[tuple[int, float]], length: int
) -> None:
    rule = ChunkRule(end=END, pad=END, start=START, chunk_length=length)
    tokens = [[(100 * i + k, weight) for k in range(count)] for i, (count, weight) in enumerate(groups)]
    chunks = rule.chunks(tokens)
    assert all(len(chunk) == length for chunk in chunks)
    kept = [token for chunk in chunks for token in chunk if token[0] not in (START, END)]
    assert kept == [token for group in tokens for token in group if token[0] not in (START, END)]


@pytest.mark.parametrize("tokenizer", [clip(), Tokenizer(letters, t5_rule(8))], ids=["clip", "t5"])
def test_a_text_beyond_what_an_encoder_can_read_is_refused(tokenizer: Tokenizer) -> None:
    assert tokenizer("a" * MOST_TOKENS)
    with pytest.raises(BadValue, match=r"4,097 tokens.*at most 4,096 tokens"):
        tokenizer("a" * (MOST_TOKENS + 1))


@pytest.mark.parametrize("unit", ["word ", "(", "((a:1.1) ", "embedding:none "])
def test_a_text_of_three_megabytes_is_refused_before_it_is_read(unit: str) -> None:
    began = time.process_time()
    with pytest.raises(BadValue, match=f"at most {LONGEST_TEXT:,} characters"):
        clip()(unit * (3_000_000 // len(unit)))
    assert time.process_time() - began < 0.5
