"""Sizes in words."""

import pytest

from sigmagraph.engine.units import bytes_in_words


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0.00 GB"),
        (400, "0.4 kB"),
        (99_999, "100.0 kB"),
        (100_000, "0.1 MB"),
        (2_300_000, "2.3 MB"),
        (99_000_000, "99.0 MB"),
        (240_000_000, "0.24 GB"),
        (4_940_000_000, "4.94 GB"),
    ],
)
def test_a_size_is_told_in_the_unit_that_tells_something(size: int, words: str) -> None:
    assert bytes_in_words(size) == words
