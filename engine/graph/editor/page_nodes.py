"""Node types that live in the editor's page alone: no server knows a class for them, and no prompt holds them.

Three kinds: those that carry nothing (notes, frames, switches of other nodes' modes), those that hand their input on,
and pairs that hand a value on by its name. `broadcasts.py` has a fourth, which is drawn without any line.
"""

from collections.abc import Iterator, Mapping

from sigmagraph.engine.graph.editor.records import Drawing, EditorNode

__all__ = ["GETTERS", "HANDING_ON", "PAGE_ONLY", "SILENT", "name_of", "setters"]

_RGTHREE = (
    "Bookmark",
    "Fast Actions Button",
    "Fast Bypasser",
    "Fast Groups Bypasser",
    "Fast Groups Muter",
    "Fast Muter",
    "Label",
    "Mute / Bypass Relay",
    "Mute / Bypass Repeater",
    "Node Collector",
    "Node Combiner",
    "Random Unmuter",
)
SILENT = frozenset(
    ("Note", "MarkdownNote", "PrimitiveNode", "Note Plus (mtb)", "Show Metadata [Crystools]", "easy bookmark")
) | {f"{name} (rgthree)" for name in _RGTHREE}
HANDING_ON = frozenset(("Reroute", "Reroute (rgthree)", "SetNode", "easy setNode"))
GETTERS = {"GetNode": "SetNode", "easy getNode": "easy setNode"}
BROADCASTERS = frozenset(("Anything Everywhere", "Anything Everywhere?", "Anything Everywhere3", "Prompts Everywhere"))
PAGE_ONLY = SILENT | HANDING_ON | GETTERS.keys() | BROADCASTERS


def name_of(node: EditorNode) -> str:
    """The name under which a pair hands its value on: the only widget of both."""
    values = list(node.values.values()) if isinstance(node.values, Mapping) else node.values
    first = values[0] if isinstance(values, list) and values else ""
    return first if isinstance(first, str) else ""


def setters(drawing: Drawing) -> dict[tuple[str, str], EditorNode]:
    """Setting nodes by type and name; of two with one name the first in the file counts, as in the page."""
    return dict(reversed(list(_setters(drawing))))


def _setters(drawing: Drawing) -> Iterator[tuple[tuple[str, str], EditorNode]]:
    kinds = set(GETTERS.values())
    for node in drawing.nodes.values():
        if node.type in kinds and (name := name_of(node)):
            yield (node.type, name), node
