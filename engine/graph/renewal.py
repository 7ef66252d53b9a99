"""A node class's declaration asked again: lists of files change while a server runs."""

import logging
from functools import lru_cache

from sigmagraph.engine.graph.node import Node

__all__ = ["renewed"]

LOG = logging.getLogger(__name__)


def renewed(node: Node) -> Node:
    """The node as its class declares it now. Where the class cannot say so any more, what it said last stands.

    The folder it lists may be gone: that is one node's trouble, not that of the list of all nodes.
    """
    if node.refresh is None:
        return node
    try:
        return node.refresh()
    except (Exception, SystemExit) as error:  # noqa: BLE001  # code of packs: whatever it raises
        _tell(node.class_type, f"{type(error).__name__}: {error}")
        return node


@lru_cache(maxsize=1024)  # once for each reason, not for each request
def _tell(class_type: str, reason: str) -> None:
    LOG.warning("%s does not declare its inputs any more (%s); its last declaration stands", class_type, reason)
