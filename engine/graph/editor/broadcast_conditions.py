"""The conditions of a value sent without a line, as its node stores them: patterns, labels, frames, colours, priority.

Patterns are the page's (JavaScript's), read by the `regex` package, which gives a search up in time.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import regex

from sigmagraph.engine.errors import BadDocument
from sigmagraph.engine.graph.editor.group_members import DrawnFrames
from sigmagraph.engine.graph.editor.records import Drawing, EditorNode

__all__ = ["Test", "by_label", "by_pattern", "default_priority", "number", "restricted", "settings_of", "side_of"]

BROKEN = (regex.error, ValueError, OverflowError, RecursionError)  # what a pattern that is none raises
LIMIT_S = 0.5  # of one search; a pattern that takes longer refuses the file
MAX_PATTERN = 1_000  # characters
POSITIVE, NEGATIVE = r"(_|\b)pos(itive|_|\b)", r"(_|\b)neg(ative|_|\b)"
SIDES = {"positive": POSITIVE, "+ve": POSITIVE, "negative": NEGATIVE, "-ve": NEGATIVE}
SAME, OTHER = 1, 2  # restrictions by frame and by colour
EXACT, START, END, TITLE, PATTERN = range(5)  # how names are compared where two values of one type are sent

Test = Callable[[str, str], bool]
"""Of a target's input name and its node's title."""


def settings_of(node: EditorNode) -> Mapping[str, Any]:
    """The node's conditions: those of today's files, else what old files have beside them and in their widgets."""
    stored = node.properties.get("ue_properties")
    stored = stored if isinstance(stored, dict) else {}
    if "version" in stored:
        return stored
    values = node.values if isinstance(node.values, list) and node.type == "Anything Everywhere?" else []
    patterns = dict(zip(("title_regex", "input_regex", "group_regex"), values, strict=False))
    return {**node.properties, **stored, **patterns}


def by_pattern(node: EditorNode, set_up: Mapping[str, Any]) -> Iterator[Test]:
    """By patterns on the title of the target's node and on the name of its input."""
    title, name = (_search(node, set_up, key) for key in ("title", "input"))
    if title is not None:
        yield lambda _, shown: title(shown)
    if name is not None:
        yield lambda shown, _: name(shown)


def _search(node: EditorNode, set_up: Mapping[str, Any], key: str) -> Callable[[str], bool] | None:
    """Whether a string matches the pattern stored under `key`; None without one. Its opposite where it is inverted."""
    written = set_up.get(f"{key}_regex")
    if not isinstance(written, str) or written in ("", ".*"):
        return None
    found = _pattern(node, written)
    is_inverted = bool(set_up.get(f"{key}_regex_invert"))
    return None if found is None else lambda text: found(text) != is_inverted


def _pattern(node: EditorNode, written: str) -> Callable[[str], bool] | None:
    """A search that ends in time; None for a broken pattern, which the page passes over too."""
    if len(written) > MAX_PATTERN:
        raise BadDocument(
            f"node {node.id} ({node.type}): a pattern of {len(written)} characters, at most {MAX_PATTERN}"
        )
    try:
        compiled = regex.compile(written)
    except BROKEN:
        return None

    def found(text: str) -> bool:
        try:
            return compiled.search(text, timeout=LIMIT_S) is not None
        except TimeoutError as error:
            raise BadDocument(f"node {node.id} ({node.type}): {written[:80]!r} takes too long to search for") from error

    return found


def side_of(node: EditorNode, at: int, label: str) -> str:
    """The label of an input. Old files name both of Prompts Everywhere by their type; the second is the negative."""
    if node.type != "Prompts Everywhere" or label in SIDES:
        return label
    return "negative" if at == 1 else "positive"


def by_label(node: EditorNode, set_up: Mapping[str, Any], label: str, *, is_repeated: bool) -> Iterator[Test]:
    """Where two values of one type are sent, the label of the sending slot says which input each goes to."""
    if node.type == "Prompts Everywhere":
        side = _pattern(node, SIDES[label])
        if side is not None:
            yield lambda name, _: side(name)
    elif is_repeated or set_up.get("apply_to_unrepeated"):
        yield from _rule(node, number(set_up, "repeated_type_rule"), label)


def _rule(node: EditorNode, rule: int, label: str) -> Iterator[Test]:
    if rule == START:
        yield lambda name, _: name.startswith(label) or label.startswith(name)
    elif rule == END:
        yield lambda name, _: name.endswith(label) or label.endswith(name)
    elif rule == TITLE:
        yield lambda _, title: title == label
    elif rule == PATTERN:
        search = _pattern(node, label)
        yield lambda name, _: search is not None and search(name)
    elif rule == EXACT:
        yield lambda name, _: name == label


def restricted(
    drawing: Drawing, node: EditorNode, set_up: Mapping[str, Any], frames: DrawnFrames
) -> frozenset[str] | None:
    """The ids a broadcast is restricted to by its group, its colour and the titles of groups; None for all."""
    kept: set[str] | None = None
    by_group, by_colour = (number(set_up, f"{key}_restricted") for key in ("group", "color"))
    if by_group in (SAME, OTHER):
        inside = frames.beside(node)
        kept = inside if by_group == SAME else set(drawing.nodes) - inside
    if by_colour in (SAME, OTHER):
        frames.look(len(drawing.nodes))
        own = node.written.get("color")
        alike = {i for i, other in drawing.nodes.items() if (other.written.get("color") == own) == (by_colour == SAME)}
        kept = alike if kept is None else kept & alike
    titled = _search(node, set_up, "group")
    if titled is not None:
        inside = frames.titled(titled)
        kept = inside if kept is None else kept & inside
    return None if kept is None else frozenset(kept)


def default_priority(node: EditorNode, set_up: Mapping[str, Any], is_repeated: bool) -> int:
    """The narrower, the higher."""
    patterns = (set_up.get(f"{key}_regex") for key in ("title", "input", "group"))
    has_pattern = any(isinstance(pattern, str) and pattern not in ("", ".*") for pattern in patterns)
    narrow = 10 * (node.type == "Prompts Everywhere") + 20 * (has_pattern or is_repeated)
    return 10 + narrow + 3 * (number(set_up, "group_restricted") > 0) + 6 * (number(set_up, "color_restricted") > 0)


def number(set_up: Mapping[str, Any], key: str) -> int:
    """A whole number of the settings, 0 where there is none."""
    value = set_up.get(key)
    return value if type(value) is int else 0
