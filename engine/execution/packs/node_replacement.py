"""Offered as `ComfyAPI().node_replacement`: packs say which of their classes stand in for those that are gone."""

from sigmagraph.engine.graph.replacements import Replacement
from sigmagraph.engine.graph.schema.io import NodeReplace

__all__ = ["NodeReplacement", "NodeReplacementSync", "registered"]

_REGISTERED: list[Replacement] = []


class NodeReplacementSync:
    """The blocking face."""

    @staticmethod
    def register(node_replace: NodeReplace) -> None:
        """Note a replacement of the pack that is being loaded."""
        _REGISTERED.append(Replacement.of_wire(node_replace.as_dict()))


class NodeReplacement:
    """The async face."""

    @staticmethod
    async def register(node_replace: NodeReplace) -> None:
        """Note a replacement of the pack that is being loaded."""
        NodeReplacementSync.register(node_replace)


def registered() -> tuple[Replacement, ...]:
    """What was noted since this was asked last: packs are loaded one after the other."""
    found = tuple(_REGISTERED)
    _REGISTERED.clear()
    return found
