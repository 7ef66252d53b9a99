"""The built-in node library, one file per family. Thin: the work is in `engine`."""

from engine.graph.node import Node
from engine.registry import Registry
from nodes import conditioning, image, latent, loaders, sampling

__all__ = ["NODES"]

NODES: Registry[Node] = Registry("node")
for _family in (loaders, conditioning, latent, sampling, image):
    for _node in _family.NODES:
        NODES.add(_node.class_type, _node)
