"""The names of ComfyUI's own modules that node packs import, made of what this engine has.

A name stands here for one of two reasons. Most do what they say, on our values. The rest belong to model families and
mechanisms this engine does not have: packs import them at their top and use them in some of their nodes only. So they
can be imported, and whoever uses one is told what is missing (`absent.py`). Any other name is an ImportError.
"""

from collections.abc import Mapping
from typing import Any

from sigmagraph.engine.compose.shims import (
    absent,
    arithmetic,
    controls,
    devices,
    extras,
    helpers,
    patching,
    sampling,
    serving,
)
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.graph.comfy.comfy_class import Border
from sigmagraph.engine.graph.node import Node
from sigmagraph.nodes.support.packs import hooks

__all__ = ["shim_names"]

Names = dict[str, dict[str, Any]]


def shim_names(folders: Folders, nodes: Mapping[str, Node], border: Border) -> Names:
    """Module -> name -> value, of all the modules here; what does its work goes before what is only named."""
    names: Names = {}
    for part in (
        absent.names(),
        helpers.names(),
        arithmetic.names(),
        controls.names(),
        hooks.names(),
        devices.names(),
        sampling.names(),
        patching.names(),
        serving.names(),
        extras.names(folders, nodes, border),
    ):
        for module, values in part.items():
            names.setdefault(module, {}).update(values)
    return names
