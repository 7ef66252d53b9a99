"""Strings joined, cut, compared and changed."""

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import Extra, Multiline, Options, Output, Range, Socket, Tooltip, node
from sigmagraph.nodes.support.lengths import bounded

__all__ = ["NODES"]

Text = Annotated[str, Multiline()]
Indent = Annotated[int, Range(0, 8), Tooltip("0 puts everything on one line.")]
MAX_ATTEMPTS = 1000  # each reads on from its brace: a string of nothing but braces would take time by the square
Line = Annotated[str, Extra({"multiline": False})]
CASES: Mapping[str, Callable[[str], str]] = {
    "UPPERCASE": str.upper,
    "lowercase": str.lower,
    "Capitalize": str.capitalize,
    "Title Case": str.title,
}
TRIMS: Mapping[str, Callable[[str], str]] = {"Both": str.strip, "Left": str.lstrip, "Right": str.rstrip}
COMPARISONS: Mapping[str, Callable[[str, str], bool]] = {
    "Starts With": str.startswith,
    "Ends With": str.endswith,
    "Equal": str.__eq__,
}


@node("StringConcatenate", category="utils/string", display_name="Concatenate")
def concatenate(*, string_a: Text, string_b: Text, delimiter: Line = "") -> str:
    """Two strings with something between them."""
    return bounded(string_a + delimiter + string_b, "string_a")


@node("StringSubstring", category="utils/string", display_name="Substring")
def substring(
    *,
    string: Text,
    start: int,
    end: int,
) -> str:
    """From one place to before another, counted from 0; negative places count from the end."""
    return string[start:end]


@node("StringLength", category="utils/string", display_name="Length", outputs=[Output("INT", "length")])
def length(*, string: Text) -> int:
    """How many characters it has."""
    return len(string)


@node("CaseConverter", category="utils/string", display_name="Case Converter")
def case_converter(*, string: Text, mode: Annotated[str, Options(list(CASES), named=True)]) -> str:
    """Capital or small letters."""
    return CASES[mode](string)


@node("StringTrim", category="utils/string", display_name="Trim")
def trim(*, string: Text, mode: Annotated[str, Options(list(TRIMS), named=True)]) -> str:
    """Without white space at its ends."""
    return TRIMS[mode](string)


@node("StringReplace", category="utils/string", display_name="Replace")
def replace(*, string: Text, find: Text, replace: Text) -> str:
    """Every occurrence of one string replaced by another."""
    found = string.count(find)
    bounded(string, "string", added=found * (len(replace) - len(find)))
    return string.replace(find, replace)


@node("StringContains", category="utils/string", display_name="Contains", outputs=[Output("BOOLEAN", "contains")])
def contains(*, string: Text, substring: Text, case_sensitive: bool = True) -> bool:
    """Whether one string lies within the other."""
    return substring in string if case_sensitive else substring.lower() in string.lower()


@node("StringCompare", category="utils/string", display_name="Compare")
def compare(
    *,
    string_a: Text,
    string_b: Text,
    mode: Annotated[str, Options(list(COMPARISONS), named=True)],
    case_sensitive: bool = True,
) -> bool:
    """Whether the first begins or ends with the second, or is equal to it."""
    first, second = (string_a, string_b) if case_sensitive else (string_a.lower(), string_b.lower())
    return COMPARISONS[mode](first, second)


@node("JsonExtractString", category="utils/string", display_name="Extract Text from JSON")
def json_extract_string(*, json_string: Text, key: Line) -> str:
    """A value of the first JSON object in a string, as a string; nothing where there is no such key."""
    found = _first_object(json_string).get(key)
    return "" if found is None else str(found)


def _first_object(text: str) -> dict[str, Any]:
    """The object that begins at the first opening brace at which one does."""
    decoder, start = json.JSONDecoder(), text.find("{")
    for _ in range(MAX_ATTEMPTS):
        if start < 0:
            break
        try:
            found, _end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
        else:
            return found if isinstance(found, dict) else {}
    return {}


@node("ConvertArrayToString", category="utils/string", display_name="Convert Array to String")
def array_to_string(*, array: Annotated[Any, Socket("ARRAY")], indent: Indent = 2) -> str:
    """A list as JSON."""
    return _json(array, indent)


@node("ConvertDictionaryToString", category="utils/string", display_name="Convert Dictionary to String")
def dictionary_to_string(*, dictionary: Annotated[Any, Socket("DICT")], indent: Indent = 2) -> str:
    """A dictionary as JSON."""
    return _json(dictionary, indent)


def _json(value: Any, indent: int) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, indent=indent or None)
    except (TypeError, ValueError) as error:
        raise BadValue("value", type(value).__name__, f"what JSON can hold ({error})") from error


NODES = (
    concatenate,
    substring,
    length,
    case_converter,
    trim,
    replace,
    contains,
    compare,
    json_extract_string,
    array_to_string,
    dictionary_to_string,
)
