"""Folders of other people's nodes: loading them, and the names they import. Loaded only when the operator says so."""

from sigmagraph.engine.execution.packs.loader import INSTALLED, Pack, load_installed, load_packs, with_replacements
from sigmagraph.engine.execution.packs.shims import shim_modules

__all__ = ["INSTALLED", "Pack", "load_installed", "load_packs", "shim_modules", "with_replacements"]
