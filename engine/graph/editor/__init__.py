"""Editor documents into API prompts (`convert`), back (`drawn`), what they offer (`app_mode`). Knows no node code."""

from sigmagraph.engine.graph.editor.app_mode import AppMode, app_mode
from sigmagraph.engine.graph.editor.convert import convert
from sigmagraph.engine.graph.editor.layout import drawn

__all__ = ["AppMode", "app_mode", "convert", "drawn"]
