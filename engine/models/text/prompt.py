"""Prompt weights: `(bright:1.3) sea` -> segments of text, each with its weight. Knows no tokens.

Rules, as existing graphs expect: `(text)` multiplies the weight by 1.1 per level; `(text:1.3)` sets it, whatever is
outside; the last colon counts; a number that does not parse leaves its text in place. A backslash makes a parenthesis
literal, an unclosed one is literal too. Square brackets mean nothing.
"""

import math
import re
from dataclasses import dataclass

EMPHASIS = 1.1
# Escaped parentheses are hidden behind private-use characters while the nesting is read.
HIDDEN_OPEN, HIDDEN_CLOSE = "\ue0f8", "\ue0f9"


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of prompt text with one weight."""

    text: str
    weight: float


def segments(prompt: str) -> list[Segment]:
    """The prompt cut where the weight changes, in order; markup and escapes removed."""
    hidden = prompt.replace("\\(", HIDDEN_OPEN).replace("\\)", HIDDEN_CLOSE)
    found = _weighted(hidden, 1.0)
    return [Segment(s.text.replace(HIDDEN_OPEN, "(").replace(HIDDEN_CLOSE, ")"), s.weight) for s in found]


def _weighted(text: str, weight: float) -> list[Segment]:
    found: list[Segment] = []
    for piece in _top_level_pieces(text):
        if len(piece) >= 2 and piece.startswith("(") and piece.endswith(")"):
            inner, inner_weight = _explicit_weight(piece[1:-1], weight * EMPHASIS)
            found += _weighted(inner, inner_weight)
        else:
            found.append(Segment(piece, weight))
    return found


def _top_level_pieces(text: str) -> list[str]:
    """`a (b (c)) d` -> `a `, `(b (c))`, ` d`. A stray closing parenthesis keeps the next opening one literal."""
    cuts, depth = [0], 0
    for mark in re.finditer(r"[()]", text):
        if mark[0] == "(" and depth == 0:
            cuts.append(mark.start())
        depth += 1 if mark[0] == "(" else -1
        if mark[0] == ")" and depth == 0:
            cuts.append(mark.end())
    return [text[start:stop] for start, stop in zip(cuts, [*cuts[1:], len(text)], strict=True) if start < stop]


def _explicit_weight(text: str, otherwise: float) -> tuple[str, float]:
    before, colon, number = text.rpartition(":")
    if not colon or not before:
        return text, otherwise
    try:
        weight = float(number)
    except ValueError:
        return text, otherwise
    return (before, weight) if math.isfinite(weight) else (text, otherwise)
