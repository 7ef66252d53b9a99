"""Choices and formulas: switches, booleans, numbers, colours, sizes."""

import math
import re
from dataclasses import replace
from string import ascii_lowercase
from typing import Annotated, Any

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import (
    Autogrow,
    Extra,
    MatchType,
    Multiline,
    Optional,
    Options,
    Output,
    Range,
    Socket,
    Tooltip,
    input_of,
    node,
)
from sigmagraph.nodes.support.expressions import evaluate
from sigmagraph.nodes.support.formats import formatted

__all__ = ["NODES"]

Anything = Annotated[Any, MatchType("T"), Extra({"lazy": True})]
VALUE = input_of("value", Annotated[Any, Socket("*")])
NUMBER = input_of("value", Annotated[Any, Socket("FLOAT,INT,BOOLEAN")])
SEVERAL = Autogrow(VALUE, tuple(f"value_{number}" for number in range(1, 101)), least=1)
RATIOS = {
    "1:1 (Square)": (1, 1),
    "2:3 (Portrait Photo)": (2, 3),
    "3:2 (Photo)": (3, 2),
    "3:4 (Portrait Standard)": (3, 4),
    "4:3 (Standard)": (4, 3),
    "9:16 (Portrait Widescreen)": (9, 16),
    "16:9 (Widescreen)": (16, 9),
    "21:9 (Ultrawide)": (21, 9),
}
MEGAPIXEL = 1024 * 1024


@node(
    "ComfySwitchNode",
    category="utils/logic",
    display_name="If/Else Switch",
    outputs=[Output("*", "output", match=MatchType("T"))],
)
def switch(*, switch: bool, on_false: Anything = None, on_true: Anything = None) -> Any:
    """One of two values of any type; what leads to the other is not run."""
    return on_true if switch else on_false


def _wanted(*, switch: bool, on_false: Any = None, on_true: Any = None, **_: Any) -> list[str]:
    """The input that is needed and has no value yet."""
    name, value = ("on_true", on_true) if switch else ("on_false", on_false)
    return [name] if value is None else []


@node("ComfyNotNode", category="utils/logic", display_name="Not", outputs=[Output("BOOLEAN", "output")])
def negation(*, value: Annotated[Any, Socket("*")]) -> bool:
    """True for false, 0, nothing, and what is empty."""
    return not _truth(value)


@node("ComfyAndNode", category="utils/logic", display_name="And")
def conjunction(*, values: Annotated[dict[str, Any], SEVERAL]) -> bool:
    """Whether all values are true or something."""
    return all(_truth(value) for value in values.values())


@node("ComfyOrNode", category="utils/logic", display_name="Or")
def disjunction(*, values: Annotated[dict[str, Any], SEVERAL]) -> bool:
    """Whether any value is true or something."""
    return any(_truth(value) for value in values.values())


@node(
    "ComfyMathExpression",
    category="utils/math",
    display_name="Math Expression",
    outputs=[Output("FLOAT"), Output("INT"), Output("BOOLEAN", "BOOL")],
)
def math_expression(
    *,
    expression: Annotated[
        str, Multiline(), Tooltip("A formula of the inputs a to z, such as 'max(a, 8) // 8 * 8'.")
    ] = "a + b",
    values: Annotated[dict[str, Any], Autogrow(NUMBER, tuple(ascii_lowercase), least=1)],
) -> tuple[float, int, bool]:
    """The value of a formula: as a number, cut to a whole number, and whether it is not 0."""
    known = {name: value for name, value in values.items() if value is not None}
    found = evaluate(expression, {**known, "values": list(known.values())})
    try:
        return float(found), int(found), bool(found)
    except OverflowError as error:
        raise BadValue("expression", expression, "a formula whose value fits a float") from error


@node(
    "ComfyNumberConvert",
    category="utils/math",
    display_name="Convert Number",
    outputs=[Output("FLOAT"), Output("INT")],
)
def number_convert(*, value: Annotated[Any, Socket("INT,FLOAT,STRING,BOOLEAN")]) -> tuple[float, int]:
    """A number, a boolean or a string that holds a number, as both kinds of number; the whole one is cut off."""
    try:
        if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,4000}\s*", value):
            value = int(value)
        number = float(value)
        whole = value if isinstance(value, int) else int(number)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadValue("value", value, "a finite number, or a string that holds one") from error
    if not math.isfinite(number):
        raise BadValue("value", value, "a finite number, or a string that holds one")
    return number, int(whole)


@node("StringFormat", category="utils/string", display_name="Format Text")
def string_format(
    *,
    f_string: Annotated[str, Multiline(), Tooltip("{a} is the first value; {a:.2f} has two decimals.")] = "{a}",
    values: Annotated[dict[str, Any], Autogrow(VALUE, tuple(ascii_lowercase), least=0)],
) -> str:
    """A text with values in its braces, by Python's rules of formatting; parts of values are not reached."""
    return formatted(f_string, values)


@node(
    "CustomCombo",
    category="utils",
    display_name="Custom Combo",
    experimental=True,
    outputs=[Output("STRING"), Output("INT", "INDEX")],
)
def custom_combo(
    *,
    choice: Annotated[str, Socket("COMBO"), Extra({"multiselect": False, "options": []})],
    index: Annotated[int, Optional(), Socket("INT")] = 0,
) -> tuple[str, int]:
    """One of the options that the editor's user wrote down, and its place among them."""
    return choice, index


@node(
    "ColorToRGBInt",
    category="utils",
    display_name="Color Picker",
    outputs=[Output("INT", "rgb_int"), Output("COLOR", "hex"), Output("FLOAT", "alpha")],
)
def color_to_rgb_int(*, color: Annotated[str, Socket("COLOR")] = "#ffffff") -> tuple[int, str, float]:
    """A colour #RRGGBB or #RRGGBBAA as a number, without its opacity, and the opacity."""
    if not re.fullmatch(r"#([0-9a-fA-F]{6}|[0-9a-fA-F]{8})", color):
        raise BadValue("color", color, "#RRGGBB or #RRGGBBAA")
    alpha = int(color[7:], 16) / 255.0 if len(color) == 9 else 1.0
    return int(color[1:7], 16), color[:7], alpha


@node(
    "ResolutionSelector",
    category="utils",
    display_name="Resolution Selector",
    outputs=[Output("INT", "width"), Output("INT", "height")],
)
def resolution_selector(
    *,
    aspect_ratio: Annotated[str, Options(list(RATIOS), named=True)] = "1:1 (Square)",
    megapixels: Annotated[float, Range(0.1, 16.0, step=0.1), Tooltip("Of 1024 x 1024 pixels.")] = 1.0,
    preview: Annotated[Any, Socket("RESOLUTION_PREVIEW")] = None,
    multiple: Annotated[int, Optional(), Range(8, 128, step=4), Tooltip("Both sides are multiples of it.")] = 8,
) -> tuple[int, int]:
    """Width and height of about so many pixels, in proportions that are asked for."""
    across, down = RATIOS[aspect_ratio]
    factor = math.sqrt(megapixels * MEGAPIXEL / (across * down))
    width, height = (max(multiple, round(side * factor / multiple) * multiple) for side in (across, down))
    return width, height


def _truth(value: Any) -> bool:
    """Python's own, but a tensor of several values is something."""
    try:
        return bool(value)
    except (RuntimeError, ValueError, TypeError):
        return True


NODES = (
    replace(switch, lazy_status=_wanted),
    negation,
    conjunction,
    disjunction,
    math_expression,
    number_convert,
    string_format,
    custom_combo,
    color_to_rgb_int,
    resolution_selector,
)
