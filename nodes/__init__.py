"""The built-in node library: each module here is a family of nodes. Thin: the work is in `engine`."""

import importlib
import pkgutil

from sigmagraph.engine.graph.node import Node
from sigmagraph.engine.registry import Registry

__all__ = ["NODES"]

NODES: Registry[Node] = Registry("node")
"""Every node of every family, by name; a family is a module of this folder with a list `NODES`."""

for _module in sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg):
    for _node in importlib.import_module(f"{__name__}.{_module}").NODES:
        NODES.add(_node.class_type, _node)
