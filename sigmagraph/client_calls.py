"""What goes over the wire between a client and a server: calls made, answers read. Sends nothing itself."""

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from sigmagraph.engine.errors import BadValue, MissingFile, ServerRefused, UnknownName

LOCAL = "http://127.0.0.1:8188"

MOST_SECONDS = 1_000_000  # what sockets take

Workflow = str | Path | Mapping[str, Any]


class Image(NamedTuple):
    """A picture on the server."""

    filename: str
    subfolder: str
    type: str


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a job's log: `number` counts from 1, `kind` is Queued, Started, NodeProgress ... Ended."""

    number: int
    kind: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """The end of a job: `status` is completed, failed or cancelled, `outputs` what each output node shows."""

    id: str
    status: str
    images: tuple[Image, ...]
    outputs: Mapping[str, Any] = field(repr=False)
    error: str = ""

    def or_raise(self) -> "Result":
        """Itself, or what went wrong as a `ServerRefused`."""
        if self.status != "completed":
            raise ServerRefused(self.id, 200, self.status, self.error or f"the job was {self.status}")
        return self


@dataclass(frozen=True, slots=True)
class Call:
    """One request, before it is sent."""

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def checked_url(given: object) -> str:
    """The address without its last slash."""
    url = given if isinstance(given, str) else ""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or any(letter.isspace() or not letter.isprintable() for letter in url):
        raise BadValue("url", given, f"an address such as {LOCAL}")
    return url.rstrip("/")


def checked_timeout(seconds: object) -> float:
    """How long an answer is waited for."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= MOST_SECONDS:
        raise BadValue("timeout_s", seconds, f"a number of seconds above 0, at most {MOST_SECONDS}")
    return float(seconds)


def job_path(job: object, rest: str = "") -> str:
    """Where a job is, by the id that `submit` gave."""
    if not isinstance(job, str) or not job:
        raise BadValue("job", job, "the id of a job, as `submit` returns it")
    return f"/jobs/{quote(job, safe='')}{rest}"


def key_headers(key: object) -> dict[str, str]:
    """What a key is sent as."""
    if key is None:
        return {}
    if not isinstance(key, str) or not key.isascii() or not key.isprintable():
        raise BadValue("key", f"(a {type(key).__name__}, not shown)", "a key as the server wrote it: one line of ASCII")
    return {"Authorization": f"Bearer {key}"}


def submission(workflow: Workflow, changes: Mapping[str, Any]) -> Call:
    """A file is read here; its name, where there is no such file, is taken for that of a workflow the server stores."""
    key = {"Idempotency-Key": uuid.uuid4().hex, "Content-Type": "application/json"}
    document: Any = workflow
    if not isinstance(workflow, str | Path | Mapping):
        raise BadValue("workflow", workflow, "a file, a document, or the name of a stored workflow")
    given: object = changes
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise BadValue("changes", given, 'a mapping from "NODE.INPUT" to values: {"KSampler.seed": 7}')
    if isinstance(workflow, str | Path) and Path(workflow).is_file():
        data = Path(workflow).read_bytes()
        try:
            document = json.loads(data)
        except ValueError:
            if changes:
                raise BadValue("changes", dict(changes), "none for a picture: read its workflow first") from None
            return Call("POST", "/prompt", data, key | {"Content-Type": "application/octet-stream"})
    elif isinstance(workflow, Path):
        raise MissingFile(workflow, "there is no such workflow file")
    body = {"prompt": _changed(document, changes) if changes else document}
    try:
        return Call("POST", "/prompt", json.dumps(body, allow_nan=False).encode(), key)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadValue("workflow", str(error), "values that JSON has: numbers, strings, lists, objects") from error


def _changed(document: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A workflow in API form with inputs replaced; NODE is an id, a title or a class that occurs once."""
    if not isinstance(document, Mapping) or not all(
        isinstance(n, dict) and "class_type" in n for n in document.values()
    ):
        raise BadValue("changes", dict(changes), "none, or a workflow in API form to make them in")
    nodes = {node_id: {**node, "inputs": dict(node.get("inputs", {}))} for node_id, node in document.items()}
    for target, value in changes.items():
        name, _, input_name = target.rpartition(".")
        if not name or not input_name:
            raise BadValue("changes", target, "NODE.INPUT, NODE being an id, a title or a class that occurs once")
        titled = [i for i, node in nodes.items() if node.get("_meta", {}).get("title") == name]
        found = [name] if name in nodes else titled or [i for i, n in nodes.items() if n["class_type"] == name]
        if len(found) != 1:
            names = {*nodes, *(str(n.get("_meta", {}).get("title", n["class_type"])) for n in nodes.values())}
            raise UnknownName("node of this workflow", name, names)
        nodes[found[0]]["inputs"][input_name] = value
    return nodes


def event_call(job: str, after: int) -> Call:
    """A job's log as a stream, behind entry `after`."""
    return Call("GET", job_path(job, "/events"), None, {"Last-Event-ID": str(after)})


def read_events(lines: Iterable[bytes]) -> Iterator[Event]:
    """Server-sent events: `id`, `event` and `data` lines, a blank one after each."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.decode().rstrip("\r\n").partition(": ")
        if name:
            fields[name] = value
        elif {"id", "event", "data"} <= fields.keys():
            yield Event(int(fields["id"]), fields["event"], json.loads(fields["data"]))
            fields = {}


def read_result(job: Mapping[str, Any]) -> Result:
    """A job that is over, as `GET /jobs/{id}` tells it."""
    outputs = job.get("outputs") or {}
    records = [record for ui in outputs.values() for record in ui.get("images", ())]
    images = tuple(Image(record["filename"], record.get("subfolder", ""), record["type"]) for record in records)
    failure = job.get("execution_error") or {}
    return Result(job["id"], job["status"], images, outputs, str(failure.get("exception_message", "")).strip())


def upload_call(path: str | Path) -> Call:
    """A picture for the input folder."""
    return _form("/upload/image", "image", path, {})


def replay_call(path: str | Path, dry_run: bool) -> Call:
    """A recorded picture, to be made again."""
    return _form("/replay", "file", path, {"dry_run": "true"} if dry_run else {})


def _form(where: str, part: str, file: str | Path, fields: Mapping[str, str]) -> Call:
    """A multipart form with one file and plain fields."""
    if not isinstance(file, str | Path):
        raise BadValue("file", type(file).__name__, "a path: a string or a pathlib.Path")
    path = Path(file)
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise MissingFile(path, getattr(error, "strerror", None) or "cannot be read") from error
    boundary = uuid.uuid4().hex
    name = path.name.replace('"', "%22")
    parts = [f'form-data; name="{key}"\r\n\r\n{value}'.encode() for key, value in fields.items()]
    parts.append(f'form-data; name="{part}"; filename="{name}"\r\n\r\n'.encode() + data)
    body = b"".join(f"--{boundary}\r\nContent-Disposition: ".encode() + piece + b"\r\n" for piece in parts)
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    return Call("POST", where, body + f"--{boundary}--\r\n".encode(), headers)


def view_call(image: Image) -> Call:
    """A picture to be fetched."""
    if not isinstance(image, Image):
        raise BadValue("image", image, "one of a result's images")
    return Call("GET", "/view?" + urlencode(image._asdict()))


def parsed(call: Call, data: bytes) -> dict[str, Any]:
    """The object in an answer; an empty one is an empty object."""
    try:
        found = json.loads(data) if data.strip() else {}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or (call.path == "/prompt" and "prompt_id" not in found):
        raise ServerRefused(
            f"{call.method} {call.path}", 200, "", "not an answer of sigmagraph: is it at this address?"
        )
    return found


def refusal(call: Call, status: int, data: bytes) -> ServerRefused:
    """What the server said, in its own words; every wrong input of a workflow on a line of its own."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = {}
    error = _object(body, "error")
    if isinstance(body, dict) and isinstance(body.get("error"), str):
        error = {"message": body["error"]}
    lines = [str(error.get("message") or data.decode("utf-8", "replace")[:200] or f"status {status}")]
    for node_id, node in _object(body, "node_errors").items():
        place = f"node {node_id} ({node.get('class_type')})" if isinstance(node, dict) else f"node {node_id}"
        faults = node.get("errors") if isinstance(node, dict) else None
        shown = [fault for fault in faults if isinstance(fault, dict)] if isinstance(faults, list) else []
        lines += [f"{place}: {fault.get('message')}: {fault.get('details')}" for fault in shown] or [place]
    place = f"{call.method} {call.path.partition('?')[0]}"
    return ServerRefused(place, status, error.get("type", ""), "\n".join(lines))


def _object(body: Any, name: str) -> dict[str, Any]:
    """A field that is an object; an empty one for anything else: other servers have other bodies."""
    found = body.get(name) if isinstance(body, dict) else None
    return found if isinstance(found, dict) else {}
