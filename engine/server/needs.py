"""`GET /needs`: weight files that templates name, which are here, and the command that brings the rest."""

import asyncio
from pathlib import Path
from typing import Any

from aiohttp import web

from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.graph.reading.document import load_workflow
from sigmagraph.engine.model_folders import MODEL_FOLDERS
from sigmagraph.engine.model_hub import sets_for
from sigmagraph.engine.server.comfy.notes import notes_of
from sigmagraph.engine.server.context import WORKFLOWS, OwnerFolders, folders, reply

__all__ = ["needs"]

WEIGHTS = (".safetensors", ".sft", ".gguf")


async def needs(request: web.Request) -> web.Response:
    """`GET /needs`: `workflows`, each with its `files` (`is_here`) and `fetch`, the command for what is missing.

    `fetch` is null where nothing is missing, or nothing that `sigmagraph fetch` brings.
    """
    return reply({"workflows": await asyncio.to_thread(_all, request.app[WORKFLOWS], folders(request))})


def _all(root: Path, places: OwnerFolders) -> list[dict[str, Any]]:
    present = {name for folder in MODEL_FOLDERS for name in places.files(folder)}
    found = (_of(path, present) for path in sorted(root.glob("*.json")))
    return [need for need in found if need is not None]


def _of(path: Path, present: set[str]) -> dict[str, Any] | None:
    """What one template needs; None of a file that is not a workflow, and of one that names no weights."""
    try:
        nodes = load_workflow(path).nodes.values()
    except EngineError:
        return None
    values = (value for node in nodes for value in node.inputs.values() if isinstance(value, str))
    names = sorted({value for value in values if value.lower().endswith(WEIGHTS)})
    sets = sets_for(name for name in names if name not in present)
    return (
        {
            "name": path.stem,
            "title": notes_of(path).title,
            "files": [{"name": name, "is_here": name in present} for name in names],
            "fetch": f"sigmagraph fetch {' '.join(sets)}" if sets else None,
        }
        if names
        else None
    )
