import math
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigmagraph.engine.errors import BadValue, NodeFailed
from sigmagraph.engine.execution.inline import execute
from sigmagraph.engine.graph.plan import plan
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.validate import validate
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.expressions import FUNCTIONS, evaluate


def compute(expression: str, **values: Any) -> tuple[float, int, bool]:
    result: tuple[float, int, bool] = NODES["ComfyMathExpression"](expression=expression, values=values)
    return result


numbers = st.integers(-50, 50) | st.floats(-50, 50, allow_nan=False).map(lambda number: round(number, 3))
formulas = st.recursive(
    numbers.map(repr) | st.sampled_from("abc"),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%", "<", ">=", "==", "and", "or"]), inner).map(
            lambda parts: f"({' '.join(parts)})"
        ),
        inner.map(lambda part: f"(-{part})"),
        inner.map(lambda part: f"abs({part})"),
        st.tuples(inner, inner).map(lambda parts: f"max({parts[0]}, {parts[1]})"),
        st.tuples(inner, inner, inner).map(lambda parts: f"({parts[0]} if {parts[1]} else {parts[2]})"),
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=300)
@given(formulas, numbers, numbers, numbers)
def test_a_formula_has_the_value_that_python_gives_it(formula: str, a: float, b: float, c: float) -> None:
    names = {"a": a, "b": b, "c": c}
    try:
        expected = eval(formula, {"__builtins__": {}, "abs": abs, "max": max}, names)
        is_finite = math.isfinite(expected)
    except (ArithmeticError, ValueError):
        is_finite = False
    if is_finite:
        assert evaluate(formula, names) == expected
    else:
        with pytest.raises(BadValue):
            evaluate(formula, names)


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("max(5, round(a * 24)) + (5 - (max(5, round(a * 24)) % 17)) % 17", (124.0, 124, True)),
        ("sum(values) / 2", (4.0, 4, True)),
        ("values[1] - values[-1]", (0.0, 0, False)),
        ("floor(log2(b)) ** 2", (1.0, 1, True)),
        ("a > b and not b == 3", (0.0, 0, False)),
        ("-7.9", (-7.9, -7, True)),
    ],
)
def test_formulas_of_real_workflows(formula: str, expected: tuple[float, int, bool]) -> None:
    assert compute(formula, a=5, b=3) == expected


LONG_BUT_SOUND = ("+".join("a" * 4900), "-" * 9000 + "a", "round(a, 10**9)")
HOSTILE = (
    "__import__('os').system('true')",
    "().__class__.__bases__[0].__subclasses__()",
    "(lambda: 1)()",
    "[x for x in range(10**9)]",
    "a.real",
    "'text'",
    "f'{a}'",
    "open('x')",
    "(a := 3)",
    "9**9**9**9",
    "2**100000",
    "(2**4000)*(2**4000)*(2**4000)",
    "1" + "0" * 9000,
    "(" * 3000 + "a" + ")" * 3000,
    *LONG_BUT_SOUND,
    "1e308 * 10",
    "sqrt(-1)",
    "(-8) ** 0.5",
    "1 / 0",
    "max()",
    "sum([[1]])",
    "a b",
    "",
    "   ",
    "c + 1",
    "a" * 20_000,
)


@pytest.mark.parametrize("formula", HOSTILE)
def test_what_is_no_formula_of_numbers_is_refused_at_once(formula: str) -> None:
    begun = time.monotonic()
    with suppress(BadValue) if formula in LONG_BUT_SOUND else pytest.raises(BadValue, match="expression"):
        compute(formula, a=5, b=3)
    assert time.monotonic() - begun < 2


def test_every_function_that_is_promised_is_there() -> None:
    promised = "sum min max abs round pow sqrt ceil floor log log2 log10 sin cos tan int float"
    assert set(promised.split()) == set(FUNCTIONS)


def test_a_switch_runs_what_leads_to_its_choice_alone() -> None:
    graph: dict[str, Any] = {
        "1": {"class_type": "PrimitiveInt", "inputs": {"value": 7}},
        "2": {"class_type": "ComfyNumberConvert", "inputs": {"value": ["3", 0]}},  # fails if it runs
        "3": {"class_type": "PrimitiveString", "inputs": {"value": "no number"}},
        "4": {"class_type": "ComfySwitchNode", "inputs": {"switch": False, "on_false": ["1", 0], "on_true": ["2", 1]}},
        "5": {"class_type": "PreviewAny", "inputs": {"source": ["4", 0]}},
    }
    result = execute(plan(validate(parse_workflow(graph), NODES))).or_raise()
    assert result.nodes["5"].outcome == "executed"
    assert "2" not in result.nodes or result.nodes["2"].outcome != "executed"
    graph["4"]["inputs"]["switch"] = True
    with pytest.raises(NodeFailed, match="finite number"):
        execute(plan(validate(parse_workflow(graph), NODES))).or_raise()


@pytest.mark.parametrize("value", [0, 1, "", "x", [], [0], None, 0.0, False, True])
def test_truth_is_pythons(value: Any) -> None:
    assert NODES["ComfyNotNode"](value=value) is (not value)
    assert NODES["ComfyAndNode"](values={"value_1": value, "value_2": 1}) is bool(value)
    assert NODES["ComfyOrNode"](values={"value_1": value, "value_2": 0}) is bool(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3, (3.0, 3)), (2.9, (2.9, 2)), (-2.9, (-2.9, -2)), (True, (1.0, 1)), (" 12 ", (12.0, 12)), ("3.99", (3.99, 3))],
)
def test_numbers_are_read_from_what_holds_one(value: Any, expected: tuple[float, int]) -> None:
    assert NODES["ComfyNumberConvert"](value=value) == expected


def test_a_whole_number_beyond_a_floats_precision_stays_whole() -> None:
    assert NODES["ComfyNumberConvert"](value="9007199254740993")[1] == 9007199254740993


@pytest.mark.parametrize("value", ["", "x", "inf", "nan", float("inf"), None, [1], "9" * 5000])
def test_what_is_no_finite_number_is_refused(value: Any) -> None:
    with pytest.raises(BadValue, match="finite number"):
        NODES["ComfyNumberConvert"](value=value)


def test_texts_are_formatted_and_nothing_else_is_reached() -> None:
    node = NODES["StringFormat"]
    assert node(f_string="{a}: {b:.2f} {{x}} {c!r:>5}", values={"a": "w", "b": 2, "c": 1}) == "w: 2.00 {x}     1"
    for hostile in ("{a.__class__}", "{a[0]}", "{}", "{0}", "{a:>999999999}", "{a:{b}}{z}", "{a", "{a!x}"):
        with pytest.raises(BadValue, match="f_string"):
            node(f_string=hostile, values={"a": "x", "b": 10**9})


def test_colours_and_resolutions() -> None:
    assert NODES["ColorToRGBInt"](color="#0a9299") == (0x0A9299, "#0a9299", 1.0)
    assert NODES["ColorToRGBInt"](color="#FF000080") == (0xFF0000, "#FF0000", 128 / 255)
    with pytest.raises(BadValue, match="#RRGGBB"):
        NODES["ColorToRGBInt"](color="red")
    selector = NODES["ResolutionSelector"]
    assert selector(aspect_ratio="1:1 (Square)", megapixels=1.0) == (1024, 1024)
    width, height = selector(aspect_ratio="16:9 (Widescreen)", megapixels=0.4, multiple=32)
    assert (width % 32, height % 32) == (0, 0)
    assert abs(width / height - 16 / 9) < 0.1
    assert abs(width * height / (0.4 * 1024 * 1024) - 1) < 0.05


def test_rounding_a_whole_number_far_beyond_its_digits_ends_at_once() -> None:
    """Python's `round` computes ten to that power first: it holds every thread, and no cancel ends it."""
    assert NODES["ComfyMathExpression"](expression="round(a, -10**9)", values={"a": 3}) == (0.0, 0, False)
    assert NODES["ComfyMathExpression"](expression="round(a, -1)", values={"a": 1234}) == (1230.0, 1230, True)
    assert NODES["ComfyMathExpression"](expression="round(a, 1)", values={"a": 1.26})[0] == 1.3


def test_a_whole_number_beyond_all_floats_is_refused_by_name() -> None:
    with pytest.raises(BadValue, match="too large"):
        NODES["ComfyMathExpression"](expression="10**400", values={"a": 1})
