"""Editor documents into API prompts: `convert(document, declarations)`. Knows declarations as data, no node code."""

from engine.graph.editor.convert import convert

__all__ = ["convert"]
