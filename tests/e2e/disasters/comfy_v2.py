"""What a careful client of Comfy API v2 does with a server that comes and goes: submit, upload, cancel, listen."""

import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple
from urllib.parse import quote

from tests.e2e.disasters.processes import UNREACHABLE, Server

JOBS, ASSETS = "/api/v2/jobs", "/api/v2/assets"
ENDED = ("succeeded", "failed", "canceled", "expired")
LONGEST_S = 600.0
BOUNDARY = "between-two-parts"


class Told(NamedTuple):
    """One server-sent event; previews have no id."""

    id: str
    name: str
    data: Any


def submitted(server: Server, label: str, body: dict[str, Any]) -> str:
    """The job's id. Its key is its label: when the server says that the key was used, the job is looked for by that."""
    job = new_job(server, label, body)
    if job is None:
        [job] = labelled(server, label)
    return str(job["id"])


def new_job(server: Server, label: str, body: dict[str, Any]) -> Any:
    """What the server says of the job; None where the label's key was used."""
    try:
        return server.insist(JOBS, {**body, "metadata": {"label": label}}, label)
    except urllib.error.HTTPError as refusal:
        if code_of(refusal) != (422, "idempotency_key_reuse"):
            raise
        return None


def labelled(server: Server, label: str) -> list[Any]:
    """Every job of a label."""
    return list(server.insist(f"{JOBS}?metadata%5Blabel%5D={quote(label)}", None, "-")["jobs"])


def code_of(refusal: urllib.error.HTTPError) -> tuple[int, str]:
    """Its status, and the code of the envelope."""
    return refusal.code, str(json.loads(refusal.read())["error"]["code"])


def uploaded(server: Server, data: bytes) -> Any:
    """The record of an asset; sent again until it has been answered."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n'
    form = head.encode() + b"Content-Type: image/png\r\n\r\n" + data + f"\r\n--{BOUNDARY}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    while True:
        try:
            return json.loads(fetched(server, ASSETS, data=form, headers=kind))
        except urllib.error.HTTPError as refusal:
            if refusal.code != 503:
                raise
        except UNREACHABLE:
            time.sleep(0.1)


def has_content(server: Server, digest: str) -> bool:
    """What `HEAD /assets/by-hash/{hash}` says."""
    try:
        fetched(server, f"{ASSETS}/by-hash/{digest}", method="HEAD")
    except urllib.error.HTTPError as refusal:
        if refusal.code != 404:
            raise
        return False
    return True


def fetched(server: Server, path: str, **more: Any) -> bytes:
    """The bytes of an answer."""
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", **more)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())


def heard(server: Server, job_id: str, chance: random.Random) -> list[Told]:
    """A job's events to the last, read on behind the last id whenever the line breaks; it breaks it itself as well."""
    told: list[Told] = []
    until = time.monotonic() + LONGEST_S
    while not (told and told[-1].data.get("status") in ENDED):
        assert time.monotonic() < until, (job_id, told[-1:])
        last = next((each.id for each in reversed(told) if each.id), "0")
        try:
            told.extend(islice(stream(server, job_id, last), chance.randint(1, 60)))
        except urllib.error.HTTPError as refusal:
            if refusal.code < 500:
                raise
        except UNREACHABLE:
            time.sleep(0.1)
    return [each for each in told if each.id]


def whole(server: Server, job_id: str) -> list[Told]:
    """The events of an ended job, read in one go."""
    return [each for each in stream(server, job_id, "0") if each.id]


def stream(server: Server, job_id: str, last: str) -> Iterator[Told]:
    """The events behind an id; one that was cut in the middle is none."""
    url = f"http://127.0.0.1:{server.port}{JOBS}/{job_id}/events"
    fields: dict[str, str] = {}
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Last-Event-ID": last}), timeout=60) as answer:
        for line in answer:
            name, colon, value = line.decode().rstrip("\n").partition(": ")
            if colon and name:
                fields[name] = value
            elif line == b"\n" and fields:
                yield Told(fields.get("id", ""), fields["event"], json.loads(fields["data"]))
                fields = {}
