"""What a client hands over to be run: a document of any form, a picture, a stored name, an earlier output.

The body is JSON with fields, a form with a file, or the bare bytes of a picture with fields in the query.
"""

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from sigmagraph.engine.errors import BadDocument, BadValue, MissingFile, few_hints, suggestion
from sigmagraph.engine.execution.replay import Recorded, read_recorded
from sigmagraph.engine.graph.declarations import Declarations
from sigmagraph.engine.graph.node import Node
from sigmagraph.engine.graph.overrides import override, override_values
from sigmagraph.engine.graph.reading.carried import FORMS, Form
from sigmagraph.engine.graph.reading.document import parse_json, parse_workflow, read_workflow
from sigmagraph.engine.graph.reading.image_metadata import is_carrier
from sigmagraph.engine.graph.workflow import Workflow
from sigmagraph.engine.jobs.job import Webhook
from sigmagraph.engine.server.comfy.userdata import user_root
from sigmagraph.engine.server.context import JOBS, OWNER, SETTINGS, folders
from sigmagraph.engine.server.files import resolve
from sigmagraph.engine.server.library import Library
from sigmagraph.engine.server.transport.body_budget import hold
from sigmagraph.engine.server.transport.request_bodies import json_body, multipart_body, read_body

__all__ = [
    "RequestFields",
    "changed",
    "declarations",
    "prompt_body",
    "read_request_fields",
    "recorded_of",
    "webhook_of",
]

FLAGS = {"true": True, "1": True, "yes": True, "": True, "false": False, "0": False, "no": False}
MOST_LISTED = 100
KINDS = ("output", "input", "temp")


@dataclass(frozen=True, slots=True)
class RequestFields:
    """The fields of a request, and the file that came with it."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    data: bytes | None = None

    def written(self) -> bytes:
        """What was asked, as bytes that are equal for equal requests, however the form was cut."""
        fields = json.dumps(self.fields, sort_keys=True, default=str).encode("utf-8", "surrogatepass")
        return fields + b"\0" + (self.data or b"")

    def flag(self, name: str) -> bool:
        """A field that is true or false; absent is false."""
        value = self.fields.get(name, False)
        if isinstance(value, str) and value.lower() in FLAGS:
            return FLAGS[value.lower()]
        if not isinstance(value, bool):
            raise BadValue(name, value, "true or false")
        return value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A field that is a number within bounds."""
        value = self.fields.get(name, default)
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if isinstance(value, bool) or not low <= number <= high:
            raise BadValue(name, value, f"a number from {low:g} to {high:g}")
        return number

    def mapping(self, name: str) -> Mapping[str, Any]:
        """A field that is an object; absent is empty."""
        value = self.fields.get(name) or {}
        if isinstance(value, str):
            value = _json(value, name)
        if not isinstance(value, dict):
            raise BadValue(name, value, "an object")
        return value


async def read_request_fields(request: web.Request) -> RequestFields:
    """The request's fields and file."""
    kind = request.content_type
    if kind.startswith("multipart/"):
        return await _form(request)
    data = await read_body(request)
    if is_carrier(data):
        query = {name: request.query.getall(name) for name in request.query}
        return RequestFields({name: found if name == "set" else found[-1] for name, found in query.items()}, data)
    body = _json(data, "the body") if data.strip() else {}
    if not isinstance(body, dict):
        raise BadValue("the body", type(body).__name__, "a JSON object, a form, or a picture")
    return RequestFields(body)


async def _form(request: web.Request) -> RequestFields:
    """A multipart form: the part with a file name is the file; `set` may come several times."""
    fields: dict[str, Any] = {}
    data: bytes | None = None
    for name, value in (await multipart_body(request)).items():
        if isinstance(value, web.FileField):
            hold(request, value.file.seek(0, os.SEEK_END))
            value.file.seek(0)
            data = await asyncio.to_thread(value.file.read)
        elif name == "set":
            fields.setdefault("set", []).append(value)
        else:
            fields[name] = value
    return RequestFields(fields, data)


async def declarations(request: web.Request) -> Declarations:
    """The nodes in `/object_info` form, as the converter wants them."""
    return Declarations(await request.app[JOBS].nodes(), folders(request))


async def recorded_of(request: web.Request, incoming: RequestFields) -> Recorded:
    """The workflow that came in, whatever way: file, document, an output of ours, or the request of a job."""
    known, form = await declarations(request), _form_of(incoming.fields.get("form", "auto"))
    if incoming.data is not None:
        recorded = await asyncio.to_thread(read_recorded, incoming.data, known, form)
    elif "image" in incoming.fields:
        data = await asyncio.to_thread(_output, request, incoming.mapping("image"))
        recorded = await asyncio.to_thread(read_recorded, data, known, form)
    elif "job_id" in incoming.fields:
        job = await request.app[JOBS].get(str(incoming.fields["job_id"]), request[OWNER])
        recorded = Recorded(parse_workflow(dict(job.request.prompt) if job.request is not None else {}))
    elif isinstance(incoming.fields.get("workflow"), dict):
        recorded = Recorded(await asyncio.to_thread(parse_workflow, incoming.fields["workflow"], known))
    else:
        raise BadDocument("nothing to run: send a picture, or one of the fields workflow, name, image, job_id")
    most = request.app[SETTINGS].max_nodes
    if len(recorded.workflow.nodes) > most:
        raise BadDocument(f"the workflow has {len(recorded.workflow.nodes)} nodes; this server takes at most {most}")
    return recorded


def _form_of(value: Any) -> Form:
    """Which workflow of a picture counts."""
    if value not in FORMS:
        raise BadValue("form", value, ", ".join(FORMS))
    form: Form = value
    return form


def changed(workflow: Workflow, settings: Any, nodes: Mapping[str, Node]) -> Workflow:
    """The workflow with `set` applied: `{"NODE.INPUT": value}`, or texts `NODE.INPUT=VALUE`."""
    if isinstance(settings, str) and settings.lstrip().startswith("{"):
        settings = _json(settings, "set")
    if isinstance(settings, Mapping):
        return override_values(workflow, list(settings.items()), nodes)
    texts = [settings] if isinstance(settings, str) else settings or ()
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise BadValue("set", settings, "an object, or texts of the form NODE.INPUT=VALUE")
    return override(workflow, texts, nodes)


async def prompt_body(request: web.Request) -> Any:
    """The body of `POST /prompt`; in place of the prompt an editor document, a picture, or a stored workflow's name."""
    data = await read_body(request)
    is_picture = is_carrier(data)
    body = {} if is_picture else await json_body(request, None)
    if isinstance(body, dict) and isinstance(body.get("prompt"), str):
        try:
            stored = await asyncio.to_thread(Library(user_root(request) / "stored").read, body["prompt"])
        except (BadValue, MissingFile):
            return body  # no such name: a string is not a prompt, and who takes prompts says so
        return _with_drawing(body, dict(stored.prompt), stored.document)
    document = body if _is_drawing(body) else body.get("prompt") if isinstance(body, dict) else None
    if not is_picture and not _is_drawing(document):
        return body
    known = await declarations(request)
    if is_picture:
        workflow = await asyncio.to_thread(read_workflow, data, known, _form_of(request.query.get("form", "auto")))
    else:
        workflow = await asyncio.to_thread(parse_workflow, document, known)
    await asyncio.to_thread(_refuse_unknown, workflow, known)
    return _with_drawing({} if _is_drawing(body) else body, workflow.prompt(), workflow.editor)


def _with_drawing(body: Mapping[str, Any], prompt: Any, drawing: Mapping[str, Any] | None) -> dict[str, Any]:
    """The body with an API prompt, and the drawing where pictures look for it, unless the client sent another."""
    extra = _object(body.get("extra_data"))
    found = {"workflow": drawing} if drawing is not None else {}
    return {
        **body,
        "prompt": prompt,
        "extra_data": extra | {"extra_pnginfo": found | _object(extra.get("extra_pnginfo"))},
    }


def _refuse_unknown(workflow: Workflow, known: Mapping[str, Any]) -> None:
    """Every unknown class at once: ComfyUI's own answer names only the first."""
    unknown = sorted({node.class_type for node in workflow.nodes.values()} - set(known))
    if unknown:
        with few_hints():
            listed = ", ".join(f"{name!r}{suggestion(name, known)}" for name in unknown[:MOST_LISTED])
        more = f" and {len(unknown) - MOST_LISTED} more" if len(unknown) > MOST_LISTED else ""
        raise BadDocument(f"there are no node classes {listed}{more}")


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_drawing(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("nodes"), list)


def webhook_of(incoming: RequestFields) -> Webhook | None:
    """Where the end of the job is to be told: `{"url": ..., "secret": ...}`."""
    wanted = incoming.mapping("webhook")
    if not wanted:
        return None
    url, secret = wanted.get("url"), wanted.get("secret", "")
    if not isinstance(url, str) or not url.startswith(("http://", "https://")) or len(url) > 2048:
        raise BadValue("webhook.url", url, "an http or https address")
    if not isinstance(secret, str):
        raise BadValue("webhook.secret", secret, "a string")
    return Webhook(url, secret)


def _output(request: web.Request, record: Mapping[str, Any]) -> bytes:
    kind, places = record.get("type", "output"), folders(request)
    if kind not in KINDS:
        raise BadValue("image.type", kind, "output, input or temp")
    root = {"output": places.output_dir, "input": places.input_dir, "temp": places.temp_dir}[kind]
    path = resolve(root, str(record.get("subfolder", "")), str(record.get("filename", "")))
    try:
        return path.read_bytes()
    except OSError as error:
        raise MissingFile(path.name, "there is no such picture") from error


def _json(text: str | bytes, place: str) -> Any:
    try:
        return parse_json(text)
    except BadDocument as error:
        raise BadValue(place, f"{text[:40]!r}", f"JSON ({error})") from error
