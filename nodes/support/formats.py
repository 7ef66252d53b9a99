"""Texts with values in braces, by Python's format language without its reach into objects."""

import re
from collections.abc import Mapping
from string import Formatter
from typing import Any

from sigmagraph.engine.errors import BadValue
from sigmagraph.nodes.support.lengths import bounded

__all__ = ["formatted"]

MAX_WIDTH = 1000  # of one field, and of its decimals


class _Plain(Formatter):
    """Fields are names alone: no attribute, no index, no number."""

    def get_field(self, field_name: str, args: Any, kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        if field_name not in kwargs:
            known = ", ".join(f"{{{name}}}" for name in kwargs) or "no field, as nothing is linked"
            raise BadValue("f_string", f"{{{field_name}}}", known)
        return kwargs[field_name], field_name

    def format_field(self, value: Any, format_spec: str) -> str:
        if any(int(digits) > MAX_WIDTH for digits in re.findall(r"\d{1,9}", format_spec)) or len(format_spec) > 50:
            raise BadValue("f_string", format_spec[:60], f"a width of at most {MAX_WIDTH}")
        shown = value if isinstance(value, str | int | float | bool) else str(value)
        return bounded(format(shown, format_spec), "f_string")


def formatted(text: str, values: Mapping[str, Any]) -> str:
    """The text with `{name}` and `{name:spec}` replaced. Raises `BadValue` for what is no such text."""
    bounded(text, "f_string")
    try:
        return bounded(_Plain().vformat(text, (), values), "f_string")
    except (ValueError, IndexError, KeyError) as error:
        if isinstance(error, BadValue):
            raise
        raise BadValue("f_string", text[:200], f"a string with fields such as {{a}} ({error})") from error
