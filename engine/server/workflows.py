"""`/workflows`: save, list, fetch, delete, and run by name with parameters, so that callers never touch node ids."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from aiohttp import web

from sigmagraph.engine.errors import BadValue, UnknownName
from sigmagraph.engine.graph.editor import app_mode, drawn
from sigmagraph.engine.graph.node import Node
from sigmagraph.engine.graph.overrides import find_input, override_values
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.workflow import Workflow
from sigmagraph.engine.jobs.job import Idempotency, Submission
from sigmagraph.engine.server.access.auth import require_any_graph, take_turn
from sigmagraph.engine.server.comfy.userdata import user_root
from sigmagraph.engine.server.context import JOBS, OWNER, empty, reply
from sigmagraph.engine.server.library import Library, Stored
from sigmagraph.engine.server.own_files import room_of
from sigmagraph.engine.server.request_fields import (
    RequestFields,
    changed,
    declarations,
    read_request_fields,
    recorded_of,
    webhook_of,
)
from sigmagraph.engine.server.transport.request_bodies import object_body

__all__ = ["WORKFLOW_ROWS", "bound", "library", "submitted"]

LONGEST_NUMBER = 18  # digits


def library(request: web.Request) -> Library:
    """The stored workflows of the request's owner."""
    return Library(user_root(request) / "stored", room_of(request))


async def listing(request: web.Request) -> web.Response:
    """`GET /workflows`: the newest version of each name."""
    shelf = library(request)
    stored = await asyncio.to_thread(lambda: [shelf.read(name) for name in shelf.names()])
    return reply({"workflows": [_summary(workflow) for workflow in stored]})


async def save(request: web.Request) -> web.Response:
    """`POST /workflows/{name}`: keep a document of any form as the next version."""
    take_turn(request)
    incoming = await read_request_fields(request)
    nodes = await request.app[JOBS].nodes()
    recorded = await recorded_of(request, incoming)
    workflow = recorded.workflow
    await request.app[JOBS].check(workflow, None, request[OWNER])
    offered = await _offered(request, workflow)
    parameters = _targets(incoming.mapping("parameters") or offered["parameters"]) or _titled(workflow, nodes)
    for target in chain.from_iterable(map(_every, parameters.values())):
        find_input(workflow, target, nodes)
    named = incoming.mapping("outputs") or offered["outputs"]
    outputs = {name: _node(workflow, str(place)) for name, place in named.items()}
    editor = dict(workflow.editor) if workflow.editor is not None else None
    description = str(incoming.fields.get("description", ""))
    name = request.match_info["name"]
    draft = Stored(name, 0, 0.0, workflow.prompt(), editor, parameters, outputs, description)
    stored = await asyncio.to_thread(library(request).save, draft)
    return reply(_summary(stored) | {"warnings": list(workflow.warnings)}, 201)


async def versions(request: web.Request) -> web.Response:
    """`GET /workflows/{name}/versions`."""
    return reply({"versions": await asyncio.to_thread(library(request).versions, request.match_info["name"])})


async def fetch(request: web.Request) -> web.Response:
    """`GET /workflows/{name}?version=&form=`: the whole; `form=api` or `form=editor` gives the document alone."""
    stored = await _stored(request)
    form = request.query.get("form")
    if form == "api":
        return reply(stored.prompt)
    if form == "editor":
        return reply(stored.document or drawn(stored.prompt, await declarations(request)))
    if form is not None:
        raise BadValue("form", form, "api or editor")
    return reply(_summary(stored) | {"prompt": stored.prompt, "document": stored.document})


async def delete(request: web.Request) -> web.Response:
    """`DELETE /workflows/{name}?version=`."""
    await asyncio.to_thread(library(request).delete, request.match_info["name"], _version(request.query.get("version")))
    return empty(204)


async def run(request: web.Request) -> web.Response:
    """`POST /workflows/{name}/run`: a job from a stored workflow; 202 with where to watch it."""
    incoming = await read_request_fields(request)
    stored = await _stored(request, incoming)
    workflow = bound(stored, incoming, await request.app[JOBS].nodes())
    targets = sorted(set(stored.outputs.values())) or None
    meta = {"workflow": stored.name, "version": stored.version}
    job_id = await submitted(request, incoming, workflow, targets, meta, "workflows")
    where = {"status": f"/jobs/{job_id}", "events": f"/jobs/{job_id}/events", "history": f"/history/{job_id}"}
    return reply({"job_id": job_id, "workflow": stored.name, "version": stored.version, **where}, 202)


def bound(stored: Stored, incoming: RequestFields, nodes: Mapping[str, Node]) -> Workflow:
    """The stored workflow with the caller's parameters and settings in their places."""
    workflow = parse_workflow(dict(stored.prompt))
    values: list[tuple[str, Any]] = []
    for name, value in incoming.mapping("parameters").items():
        if name not in stored.parameters:
            raise UnknownName(f"parameter of {stored.name}", name, stored.parameters)
        values += ((target, value) for target in _every(stored.parameters[name]))
    named = override_values(workflow, values, nodes)
    editor = stored.document if named is workflow or not values else None  # a drawing with other values would lie
    return changed(Workflow(named.nodes, editor), incoming.fields.get("set"), nodes)


async def submitted(
    request: web.Request,
    incoming: RequestFields,
    workflow: Workflow,
    targets: list[str] | None,
    meta: Mapping[str, Any],
    source: str,
    made_from: Mapping[str, Any] | None = None,
) -> str:
    """Have it run; the job's id. `made_from` says of which job or picture it came."""
    require_any_graph(request)
    key = request.headers.get("Idempotency-Key")
    extra: dict[str, Any] = {"made_from": made_from} if made_from is not None else {}
    extra |= {"extra_pnginfo": {"workflow": workflow.editor}} if workflow.editor is not None else {}
    submission = Submission(
        workflow,
        request[OWNER],
        targets=targets,
        extra_data=extra,
        meta=meta,
        source=source,
        webhook=webhook_of(incoming),
        idempotency=Idempotency.of(key, request.path_qs.encode() + incoming.written()) if key else None,
    )
    return (await request.app[JOBS].submit(submission)).job.id


async def _stored(request: web.Request, incoming: RequestFields | None = None) -> Stored:
    wanted = request.query.get("version") or (incoming.fields.get("version") if incoming else None)
    return await asyncio.to_thread(library(request).read, request.match_info["name"], _version(wanted))


def _version(text: Any) -> int | None:
    if text is None or text == "":
        return None
    if not str(text).isdecimal() or len(str(text)) > LONGEST_NUMBER:
        raise BadValue("version", str(text)[:40], "a whole number")
    return int(text)


async def _offered(request: web.Request, workflow: Workflow) -> dict[str, dict[str, Any]]:
    """The parameters and outputs that a drawing names for the editor's app mode."""
    app = await asyncio.to_thread(app_mode, workflow.editor, await declarations(request), workflow.prompt())
    if app is None:
        return {"parameters": {}, "outputs": {}}
    shown = [(workflow.nodes[place].title, place) for place in app.outputs]
    titles = Counter(title for title, _ in shown)
    return {
        "parameters": {offered.name: list(offered.targets) for offered in app.inputs},
        "outputs": {title if titles[title] == 1 else place: place for title, place in shown},
    }


def _targets(given: Mapping[str, Any]) -> dict[str, str | Sequence[str]]:
    """`NODE.INPUT` for each name, or several that are set alike."""
    found: dict[str, str | Sequence[str]] = {}
    for name, places in given.items():
        several = [str(place) for place in places] if isinstance(places, list) else [str(places)]
        if not several:
            raise BadValue(f"parameters.{name}", places, "NODE.INPUT, or a list of at least one")
        found[name] = several[0] if len(several) == 1 else several
    return found


def _every(places: str | Sequence[str]) -> Sequence[str]:
    return [places] if isinstance(places, str) else places


def _titled(workflow: Workflow, nodes: Mapping[str, Node]) -> dict[str, str | Sequence[str]]:
    """Parameters where none are named: the literal inputs of nodes whose title is their own, as `title.input`."""
    titles: dict[str, int] = {}
    for node in workflow.nodes.values():
        titles[node.title] = titles.get(node.title, 0) + 1
    return {
        f"{node.title}.{name}": f"{node_id}.{name}"
        for node_id, node in workflow.nodes.items()
        if titles[node.title] == 1 and node.class_type in nodes
        for name, value in node.inputs.items()
        if not isinstance(value, tuple) and name in nodes[node.class_type].declared
    }


def _node(workflow: Workflow, name: str) -> str:
    """A node's id, from its id or its title."""
    if name in workflow.nodes:
        return name
    found = [node_id for node_id, node in workflow.nodes.items() if node.title == name]
    if len(found) != 1:
        raise UnknownName("node of this workflow", name, {*workflow.nodes, *(n.title for n in workflow.nodes.values())})
    return found[0]


def _summary(stored: Stored) -> dict[str, Any]:
    return {
        "name": stored.name,
        "version": stored.version,
        "saved_at": stored.saved_at,
        "description": stored.description,
        "parameters": stored.parameters,
        "outputs": stored.outputs,
        "nodes": len(stored.prompt),
    }


async def convert(request: web.Request) -> web.Response:
    """`POST /workflow/convert`: the editor's document, bare in the API form; what has that form stays so."""
    known = await declarations(request)
    workflow = await asyncio.to_thread(parse_workflow, await object_body(request), known)
    return reply(workflow.prompt())


WORKFLOW_ROWS = (
    ("POST", "/workflow/convert", convert),
    ("GET", "/workflows", listing),
    ("GET", "/workflows/{name}", fetch),
    ("POST", "/workflows/{name}", save),
    ("DELETE", "/workflows/{name}", delete),
    ("GET", "/workflows/{name}/versions", versions),
    ("POST", "/workflows/{name}/run", run),
)
