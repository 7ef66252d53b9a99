"""Editor documents into API prompts (`convert`) and back (`drawn`). Knows declarations as data, no node code."""

from sigmagraph.engine.graph.editor.convert import convert
from sigmagraph.engine.graph.editor.layout import drawn

__all__ = ["convert", "drawn"]
