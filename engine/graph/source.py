"""Where a class or function of a node pack is written, for messages about it."""

import sys
from pathlib import Path
from typing import Any

__all__ = ["PACKS", "source_of"]

PACKS = "custom_nodes."
"""How the modules of packs in folders begin."""


def source_of(written: Any, module: str) -> str:
    """`folder/nodes.py, class Blur`, the file as seen from the pack's folder; empty for what is not a pack's.

    A file outside of that folder is named alone.
    """
    own = getattr(written, "__module__", None)
    file = getattr(sys.modules.get(own), "__file__", None) if isinstance(own, str) else None
    if not module.startswith(PACKS) or not isinstance(own, str) or not isinstance(file, str):
        return ""
    parts, inner = Path(file).parts, own.removeprefix(f"{module}.").split(".") if own.startswith(f"{module}.") else [""]
    place = "/".join(parts[-len(inner) - (parts[-1] == "__init__.py" and inner != [""]) :])
    kind = "class" if isinstance(written, type) else "function"
    return f"{place}, {kind} {getattr(written, '__name__', '')}"
