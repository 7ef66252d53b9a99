"""JSON as any reader takes it, from values that Python's own JSON would write in forms that only Python reads."""

import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["compact"]

ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=str)


def compact(value: Any) -> str:
    """JSON without blanks, which UTF-8 can hold: what JSON lacks becomes its text, half a character its escape.

    NaN and infinities become null, as a browser writes them: one such number of one job, and no page could read a list.
    """
    try:
        text = ENCODER.encode(value)
    except ValueError:
        text = ENCODER.encode(_finite(value))
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _finite(value: Any) -> Any:
    match value:
        case Mapping():
            return {str(name) if isinstance(name, float) else name: _finite(entry) for name, entry in value.items()}
        case list() | tuple():
            return [_finite(entry) for entry in value]
        case float() if not math.isfinite(value):
            return None
    return value
