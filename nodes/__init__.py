"""The built-in node library: a folder a kind, each module in it a family of nodes. Thin: the work is in `engine`."""

import importlib
import pkgutil

from sigmagraph.engine.graph.node import Node
from sigmagraph.engine.registry import Registry

__all__ = ["NODES"]

NODES: Registry[Node] = Registry("node")
"""Every node of every family, by name; a family is a module with a list `NODES`, in any folder here but `support`."""

for _folder in (folder for folder in pkgutil.iter_modules(__path__) if folder.name != "support"):
    for _module in pkgutil.iter_modules(importlib.import_module(f"{__name__}.{_folder.name}").__path__):
        for _node in importlib.import_module(f"{__name__}.{_folder.name}.{_module.name}").NODES:
            NODES.add(_node.class_type, _node)
