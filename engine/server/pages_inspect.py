"""`POST /inspect`: a workflow from anywhere, with the declarations of its nodes: all that a form is made of."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from aiohttp import web

from sigmagraph.engine.errors import MissingFile, few_hints, nearest
from sigmagraph.engine.graph.declarations import Declarations
from sigmagraph.engine.graph.editor import app_mode
from sigmagraph.engine.graph.reading.document import load_workflow, parse_workflow
from sigmagraph.engine.graph.workflow import Workflow
from sigmagraph.engine.server.access.auth import take_turn
from sigmagraph.engine.server.context import WORKFLOWS, reply
from sigmagraph.engine.server.files import resolve
from sigmagraph.engine.server.request_fields import RequestFields, declarations, read_request_fields, recorded_of
from sigmagraph.engine.server.workflows import library

__all__ = ["inspect", "read_any_workflow"]


async def inspect(request: web.Request) -> web.Response:
    """What `POST /replay` takes, or `{"template": NAME}`; nothing runs.

    The answer has `prompt` (API form), `document` (the drawing, or null), `parameters` (a stored workflow's names),
    `app` (what the drawing offers in app mode, or null), `warnings`, `nodes` (class -> its declaration) and `unknown`
    (class -> the nearest there is, or null; of a document with hundreds of them only the first are compared).
    """
    take_turn(request)
    incoming = await read_request_fields(request)
    known = await declarations(request)
    workflow, parameters = await read_any_workflow(request, incoming, known)
    return await asyncio.to_thread(_described, workflow, parameters, known)


def _described(workflow: Workflow, parameters: Mapping[str, Any], known: Declarations) -> web.Response:
    """The reply, made on a thread: a document may have thousands of classes, and not one that there is."""
    used = sorted({node.class_type for node in workflow.nodes.values()})
    with few_hints():
        unknown = {name: nearest(name, known) for name in used if name not in known}
    prompt = workflow.prompt()
    app = app_mode(workflow.editor, known, prompt)
    return reply(
        {
            "prompt": prompt,
            "document": workflow.editor,
            "parameters": parameters,
            "app": asdict(app) if app is not None else None,
            "warnings": list(workflow.warnings),
            "nodes": {name: known[name] for name in used if name in known},
            "unknown": unknown,
        }
    )


async def read_any_workflow(
    request: web.Request, incoming: RequestFields, known: Declarations
) -> tuple[Workflow, dict[str, Any]]:
    """The workflow of whatever `POST /inspect` takes, and the names that a stored one gives to its inputs."""
    if incoming.data is None and "template" in incoming.fields:
        name = str(incoming.fields["template"])
        path = resolve(request.app[WORKFLOWS], name + ".json")
        if not path.is_file():
            raise MissingFile(name, "there is no such template")
        return await asyncio.to_thread(load_workflow, path, known), {}
    if incoming.data is None and "name" in incoming.fields:
        stored = await asyncio.to_thread(library(request).read, str(incoming.fields["name"]))
        document: Any = dict(stored.document) if stored.document is not None else None
        return Workflow(parse_workflow(dict(stored.prompt)).nodes, document), dict(stored.parameters)
    return (await recorded_of(request, incoming)).workflow, {}
