"""JSON that any reader takes."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from sigmagraph.engine.json_text import compact


def strict(text: str) -> Any:
    """As a page reads it: no NaN, no infinity."""

    def refused(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text.encode(), parse_constant=refused)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ({"a": [1, 2.5, "é"]}, {"a": [1, 2.5, "é"]}),
        ({"a": math.nan, "b": (math.inf, [-math.inf, {"c": math.nan}])}, {"a": None, "b": [None, [None, {"c": None}]]}),
        ({math.nan: 1, 2: 3}, {"nan": 1, "2": 3}),
        ("half \ud800 of \udc00", "half \ud800 of \udc00"),
        ({"\ud800": "\\ud800"}, {"\ud800": "\\ud800"}),
        (Path("a"), "a"),
    ],
)
def test_what_comes_back_is_what_was_written(value: Any, read: Any) -> None:
    assert strict(compact(value)) == read
