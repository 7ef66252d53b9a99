"""The weight markup of prompts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigmagraph.engine.models.text.prompt import Segment, segments


def weights(prompt: str) -> list[tuple[str, float]]:
    return [(segment.text, round(segment.weight, 6)) for segment in segments(prompt)]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a cat", [("a cat", 1.0)]),
        ("", []),
        ("a (red) cat", [("a ", 1.0), ("red", 1.1), (" cat", 1.0)]),
        ("((sea))", [("sea", 1.21)]),
        ("(red:1.3)", [("red", 1.3)]),
        ("(a (b:1.4) c:1.1)", [("a ", 1.1), ("b", 1.4), (" c", 1.1)]),
        ("(a (b) c:0.5)", [("a ", 0.5), ("b", 0.55), (" c", 0.5)]),
        ("(dog:0)", [("dog", 0.0)]),
        ("(cat:-1)", [("cat", -1.0)]),
        ("(one:two:1.5)", [("one:two", 1.5)]),
        ("(odd:abc)", [("odd:abc", 1.1)]),
        ("(odd:nan)", [("odd:nan", 1.1)]),
        ("(:1.5)", [(":1.5", 1.1)]),
        ("\\(happy\\)", [("(happy)", 1.0)]),
        ("(a\\)b:2)", [("a)b", 2.0)]),
        ("open (paren", [("open ", 1.0), ("(paren", 1.0)]),
        ("stray) (paren)", [("stray) (paren)", 1.0)]),
        ("[a] {b}", [("[a] {b}", 1.0)]),
        ("()", []),
    ],
)
def test_markup_becomes_segments_with_weights(prompt: str, expected: list[tuple[str, float]]) -> None:
    assert weights(prompt) == expected


@given(st.text(alphabet="ab ():.1\\", max_size=60))
def test_no_prompt_fails_and_no_text_is_lost(prompt: str) -> None:
    found = segments(prompt)
    assert "".join(s.text for s in found).count("a") == prompt.count("a")
    assert "".join(s.text for s in found).count("b") == prompt.count("b")


@given(st.text(alphabet="abc ,.", max_size=40), st.floats(-5, 5).map(lambda w: round(w, 3)))
def test_an_explicit_weight_is_the_weight(text: str, weight: float) -> None:
    assert segments(f"(x{text}:{weight})") == [Segment(f"x{text}", weight)]
