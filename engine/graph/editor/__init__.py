"""Editor documents into API prompts (`convert`) and back (`drawn`). Knows declarations as data, no node code."""

from engine.graph.editor.convert import convert
from engine.graph.editor.layout import drawn

__all__ = ["convert", "drawn"]
