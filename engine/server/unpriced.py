"""Levels of samplers, which a worker tells by the model: the one thing that runs for a client without a job.

So it has no price and no turn in the queue, and is bounded instead: nodes that load or change a model, and values that
they take; a few seconds (`check.SHOW_S`); one at a time for each owner, and who used least of late goes first.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.workflow import Workflow
from sigmagraph.engine.server.context import JOBS, OWNER
from sigmagraph.engine.server.decoding.shares import Shares
from sigmagraph.engine.server.turns import turn_of

__all__ = ["SHOWING", "levels_told"]

LEVELS = "lab_levels"
MODELS = frozenset({"MODEL", "CLIP", "VAE", "CLIP_VISION"})
VALUES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})
SHOWING: web.AppKey[Shares] = web.AppKey("showing", Shares)
MOST_WAITING = 8
"""Questions of one owner that wait for its turn."""
Row = dict[str, Any]


async def levels_told(request: web.Request, known: Mapping[str, Any], graphs: Sequence[Workflow]) -> list[list[Row]]:
    """The rows of each graph of `Sweep.levels`; refuses nodes that may cost more than opening a model."""
    for graph in graphs:
        _refuse_costly(graph, known)
    found = []
    async with turn_of(request.app[SHOWING], request[OWNER], "questions to the worker", MOST_WAITING):
        for graph in graphs:
            shown = await request.app[JOBS].show(graph, request[OWNER])
            found.append(shown[LEVELS]["levels"])
    return found


def _refuse_costly(graph: Workflow, known: Mapping[str, Any]) -> None:
    for node_id, node in graph.nodes.items():
        if node_id != LEVELS and node.class_type in known and not _is_cheap(known[node.class_type]):
            allowed = "nodes that load or change a model, and their values; the rest runs in a job"
            raise BadValue("before the model", f"node {node_id} ({node.class_type})", allowed)


def _is_cheap(declared: Mapping[str, Any]) -> bool:
    """Whether a node gives models alone, or is one of ours that gives plain values."""
    outputs = {kind if isinstance(kind, str) else "COMBO" for kind in declared.get("output", ())}
    is_packs = str(declared.get("python_module", "")).startswith("custom_nodes.")
    return bool(outputs) and (outputs <= MODELS or (outputs <= VALUES | MODELS and not is_packs))
