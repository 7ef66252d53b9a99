"""The built-in node library, one file per family. Thin: the work is in `engine`."""

from sigmagraph.engine.graph.node import Node
from sigmagraph.engine.registry import Registry
from sigmagraph.nodes import (
    adapters,
    conditioning,
    custom_sampling,
    guidance,
    image,
    image_sizes,
    latent,
    latent_edits,
    latent_places,
    loaders,
    model_sampling,
    previews,
    samplers,
    sampling,
    schedulers,
    sigmas,
)

__all__ = ["NODES"]

NODES: Registry[Node] = Registry("node")
_FAMILIES = (
    loaders,
    adapters,
    conditioning,
    latent,
    latent_edits,
    latent_places,
    sampling,
    custom_sampling,
    samplers,
    schedulers,
    sigmas,
    model_sampling,
    guidance,
    image,
    image_sizes,
    previews,
)
for _family in _FAMILIES:
    for _node in _family.NODES:
        NODES.add(_node.class_type, _node)
