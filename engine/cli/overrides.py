"""`--set NODE.INPUT=VALUE` on the command line: the rules are the graph layer's."""

from sigmagraph.engine.graph.overrides import override

__all__ = ["override"]
