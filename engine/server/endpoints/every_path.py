"""The rest of the server in the OpenAPI document: every route, by the first sentence of its handler."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from aiohttp import web

from sigmagraph.engine.server.context import OPERATIONS

__all__ = ["every_path"]

Json = dict[str, Any]
VERBS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")
PART = re.compile(r"\{(\w+)(?::[^{}]*(?:\{[^{}]*\}[^{}]*)*)?\}")
NAMES: Json = {"type": "array", "items": {"type": "string"}}
BODIES: Mapping[str, Json] = {
    "POST /prompt": {"required": ["prompt"], "properties": {
        "prompt": {"type": "object", "description": "node id to class_type and inputs"},
        "client_id": {"type": "string"}, "prompt_id": {"type": "string", "format": "uuid"},
        "front": {"type": "boolean"}, "number": {"type": "number"}, "extra_data": {"type": "object"}}},
    "POST /lab/plan": {"properties": {
        "template": {"type": "string"}, "name": {"type": "string"}, "workflow": {"type": "object"},
        "job_id": {"type": "string"}, "set": {"type": "object"}, "samplers": NAMES, "schedules": NAMES, "caches": NAMES,
        "steps": {"type": "array", "items": {"type": "integer"}}, "reference": {"type": "string"}}},
    "POST /estimate": {"properties": {
        "template": {"type": "string"}, "name": {"type": "string"}, "workflow": {"type": "object"},
        "job_id": {"type": "string"}, "set": {"type": "object"}}},
    "POST /replay": {"properties": {
        "workflow": {"type": "object"}, "name": {"type": "string"}, "job_id": {"type": "string"},
        "image": {"type": "object"}, "set": {"type": "object"}, "dry_run": {"type": "boolean"},
        "psnr": {"type": "number"}, "wait_s": {"type": "number"}}},
    "POST /workflows/{name}": {"required": ["workflow"], "properties": {
        "workflow": {"type": "object"}, "parameters": {"type": "object"}, "outputs": {"type": "object"},
        "description": {"type": "string"}}},
    "POST /workflows/{name}/run": {"properties": {"parameters": {"type": "object"}, "set": {"type": "object"}}},
    "POST /workflow/convert": {"description": "the editor's document"},
    "POST /queue": {"properties": {"delete": NAMES, "clear": {"type": "boolean"}}},
    "POST /history": {"properties": {"delete": NAMES, "clear": {"type": "boolean"}}},
    "POST /interrupt": {"properties": {"prompt_id": {"type": "string"}}},
    "POST /free": {"properties": {"unload_models": {"type": "boolean"}, "free_memory": {"type": "boolean"}}},
    "POST /jobs/{id}/place": {"properties": {"front": {"type": "boolean"}, "number": {"type": "number"}}},
    "POST /jobs/cancel": {"properties": {"job_ids": NAMES}},
    "POST /api/v2/jobs": {"required": ["workflow"], "properties": {
        "workflow": {"type": "object"}, "inputs": {"type": "object"}, "metadata": {}, "priority": {"type": "integer"},
        "webhook_url": {"type": "string"}, "webhook_secret": {"type": "string"}, "extra_data": {"type": "object"}}},
    "POST /api/v2/assets/from-hash": {"required": ["hash"], "properties": {"hash": {"type": "string"}}},
    "POST /api/v2/assets/from-path": {"required": ["path"], "properties": {"path": {"type": "string"}}},
}  # fmt: skip
"""What the bodies that programs write hold; other routes take any JSON object."""
FORMS = frozenset({"/upload/image", "/upload/mask", "/api/v2/assets"})
NO_BODY = frozenset({"/jobs/{id}/cancel", "/api/v2/jobs/{id}/cancel", "/logout"})
ANSWER: Json = {"200": {"description": "Done"}, "default": {"description": "Refused, with the reason"}}


def every_path(app: web.Application, known: frozenset[Callable[..., Any]]) -> Json:
    """The routes that `known` handlers do not answer. A path and its mirror below `/api` are one, the shorter."""
    found: Json = {}
    for path, verb, handler in _routes(app):
        is_mirror = path.startswith("/api/") and path.removeprefix("/api") in found
        if handler not in known and not is_mirror:
            more = app[OPERATIONS].get(f"{verb} {path}", {})
            found.setdefault(path, {})[verb.lower()] = _operation(path, verb, handler, more)
    return {path: found[path] for path in sorted(found)}


def _routes(app: web.Application) -> Iterator[tuple[str, str, Callable[..., Any]]]:
    """Path, verb and handler, shorter paths first; HEAD only where nothing else answers, and no catch-all."""
    every = [(PART.sub(r"{\1}", route.resource.canonical), route) for route in app.router.routes() if route.resource]
    gets = {path for path, route in every if route.method == "GET"}
    for path, route in sorted(every, key=lambda pair: (len(pair[0]), pair[0])):
        if route.method in VERBS and not (route.method == "HEAD" and path in gets) and path not in ("/{path}", "/api/"):
            yield path, route.method, route.handler


def _operation(path: str, verb: str, handler: Callable[..., Any], more: Json) -> Json:
    first = (inspect.getdoc(handler) or "").partition("\n")[0]
    sentence = (first.partition(": ")[2] or first) if first.startswith("`") else first
    sentence = sentence.replace("`", "").rstrip(".")
    operation: Json = {"tags": [_tag(path)], "responses": more.get("responses", ANSWER)}
    operation |= {"summary": sentence[:1].upper() + sentence[1:]} if sentence else {}
    names = PART.findall(path)
    if names:
        schema = {"type": "string"}
        operation["parameters"] = [{"name": name, "in": "path", "required": True, "schema": schema} for name in names]
    if "parameters" in more:
        operation["parameters"] = [*operation.get("parameters", ()), *more["parameters"]]
    if verb in ("POST", "PUT", "PATCH") and path not in NO_BODY:
        operation["requestBody"] = {"content": _content(path, verb)}
    return operation


def _content(path: str, verb: str) -> Json:
    if path in FORMS:
        file = "file" if path.startswith("/api/v2") else "image"
        fields = {file: {"type": "string", "format": "binary"}}
        return {"multipart/form-data": {"schema": {"type": "object", "properties": fields, "required": [file]}}}
    return {"application/json": {"schema": {"type": "object", **BODIES.get(f"{verb} {path}", {})}}}


def _tag(path: str) -> str:
    parts = path.strip("/").split("/")
    return "Comfy API v2" if parts[:2] == ["api", "v2"] else parts[0] or "pages"
