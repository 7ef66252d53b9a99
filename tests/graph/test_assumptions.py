from typing import Any

import pytest

from sigmagraph.engine.graph.editor import convert
from tests.graph.test_editor import NODES


def warnings_for(kind: str, values: Any) -> list[str]:
    node = {"id": 3, "type": kind, "inputs": [], "outputs": [], "widgets_values": values}
    return convert({"nodes": [node], "links": []}, NODES)[1]


@pytest.mark.parametrize(
    ("kind", "values", "assumed"),
    [
        ("Sample", [5, 20, "heun"], "3 values for 4 widgets; assumed that it lacks control_after_generate"),
        ("Sample", [5, "fixed"], "2 values for 4 widgets; assumed defaults for steps, name"),
        ("EmptyImage", [1, 2, 3, 4, "old"], "5 values for 4 widgets; assumed that the last are old: 'old'"),
    ],
)
def test_values_that_do_not_fit_todays_widgets_are_named_with_what_was_assumed(
    kind: str, values: Any, assumed: str
) -> None:
    assert warnings_for(kind, values) == [f"node 3 ({kind}): the file has {assumed}"]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("Sample", [5, "fixed", 20, "heun"]),
        ("LoadImage", ["a.png", 1.0]),  # the button at the end may be left out
        ("EmptyImage", [1, 2, 3, 4, None, ""]),  # what a page's players and viewers leave
        ("EmptyImage", {"width": 1}),
        ("EmptyImage", None),
    ],
)
def test_values_that_fit_are_no_reason_to_speak(kind: str, values: Any) -> None:
    assert warnings_for(kind, values) == []
