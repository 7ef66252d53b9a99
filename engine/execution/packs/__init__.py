"""Folders of other people's nodes: loading them, and the names they import. Loaded only when the operator says so."""

from sigmagraph.engine.execution.packs.loader import Pack, load_packs
from sigmagraph.engine.execution.packs.offered import offered_modules

__all__ = ["Pack", "load_packs", "offered_modules"]
