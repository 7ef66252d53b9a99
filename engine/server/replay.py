"""`POST /replay`: run a recorded workflow again over HTTP and answer whether it is the same, and if not, why."""

import asyncio
import dataclasses
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from aiohttp import web

from sigmagraph.engine.errors import MissingFile, UnknownJob
from sigmagraph.engine.execution.replay import Recorded, Verdict, judged, output_of, what_differs, with_revisions
from sigmagraph.engine.graph.graph import Graph
from sigmagraph.engine.graph.lock import Difference, Lock, lock_of
from sigmagraph.engine.graph.node import Node
from sigmagraph.engine.graph.validate import validate
from sigmagraph.engine.graph.workflow import Workflow
from sigmagraph.engine.jobs.job import Job, State
from sigmagraph.engine.server.access.auth import take_turn
from sigmagraph.engine.server.context import JOBS, OWNER, SETTINGS, folders, reply
from sigmagraph.engine.server.decoding.asking import compared
from sigmagraph.engine.server.files import resolve
from sigmagraph.engine.server.request_fields import RequestFields, changed, read_request_fields, recorded_of
from sigmagraph.engine.server.workflows import bound, library, submitted
from sigmagraph.engine.units import DAY_S
from sigmagraph.engine.writing import make_folder, write_file

__all__ = ["REPLAY_ROWS"]

LONGEST_WAIT_S = 3600.0
USUAL_WAIT_S = 300.0
UPLOADS_KEPT = 4
"""Recorded pictures of one owner take as much of the disk as so many of the largest bodies."""
KEPT = ".replays"  # recorded pictures of replays under way, with the temporary files


async def replay(request: web.Request) -> web.Response:
    """`POST /replay`: 200 with the verdict, 202 where it takes longer than `wait_s`; `dry_run` runs nothing."""
    take_turn(request)
    incoming = await read_request_fields(request)
    jobs, nodes = request.app[JOBS], await request.app[JOBS].nodes()
    recorded, now = await _workflows(request, incoming, nodes)
    await jobs.check(now, None, request[OWNER])
    graph = await asyncio.to_thread(validate, now, _unchecked(nodes), folders(request))
    target = output_of(recorded, graph)
    found = what_differs(recorded, now, await asyncio.to_thread(_lock, request, graph, target, recorded.lock))
    if incoming.flag("dry_run"):
        return reply({"dry_run": True, "differences": _written(found)})
    wait_s = incoming.number("wait_s", USUAL_WAIT_S, 0, LONGEST_WAIT_S)
    meta = {
        "replay": {
            "output": target,
            "image": recorded.lock.image if recorded.lock is not None else 0,
            "psnr": incoming.number("psnr", 40.0, 0, 1000),
            "differences": _written(found),
        }
    }
    job_id = await submitted(request, incoming, now, [target], meta, "replay", _origin(incoming))
    if recorded.picture is not None:
        await asyncio.to_thread(_keep, request, job_id, recorded.picture)
    return await _answer(request, await jobs.wait(job_id, request[OWNER], wait_s))


def _origin(incoming: RequestFields) -> dict[str, Any]:
    """Of what it is a replay, as far as the caller said: a job's id, a picture's name."""
    image = incoming.mapping("image").get("filename")
    named = {"job_id": incoming.fields.get("job_id"), "image": image, "name": incoming.fields.get("name")}
    return {"how": "replay"} | {name: value for name, value in named.items() if isinstance(value, str)}


async def verdict(request: web.Request) -> web.Response:
    """`GET /replay/{id}`: the verdict of a replay that was not waited for."""
    job = await request.app[JOBS].get(request.match_info["id"], request[OWNER])
    if "replay" not in job.meta:
        raise UnknownJob(job.id)
    return await _answer(request, job)


async def _workflows(
    request: web.Request, incoming: RequestFields, nodes: Mapping[str, Node]
) -> tuple[Recorded, Workflow]:
    """What was recorded, and what is to run now."""
    if "name" in incoming.fields and incoming.data is None:
        stored = await asyncio.to_thread(library(request).read, str(incoming.fields["name"]))
        return Recorded(bound(stored, RequestFields(), nodes)), bound(stored, incoming, nodes)
    recorded = await recorded_of(request, incoming)
    return recorded, changed(recorded.workflow, incoming.fields.get("set"), nodes)


def _unchecked(nodes: Mapping[str, Node]) -> dict[str, Node]:
    """The declarations without the checks that only a worker can do; it has done them."""
    return {name: dataclasses.replace(node, validator=None) if node.validator else node for name, node in nodes.items()}


def _lock(request: web.Request, graph: Graph, target: str, recorded: Lock | None) -> Lock:
    """What a run would be locked to now, as far as the workers have told; digests as `recorded` has them."""
    stats = next((worker.stats for worker in request.app[JOBS].workers() if worker.stats.get("environment")), {})
    lock = lock_of(graph, target, folders(request), recorded)
    told = (stats.get(name, {}) for name in ("revisions", "environment", "precisions"))
    return with_revisions(lock, graph.prompt(), *told)


async def _answer(request: web.Request, job: Job) -> web.Response:
    place = {"job_id": job.id, "state": str(job.state)}
    if not job.state.is_end:
        return reply(place | {"verdict": None, "status": f"/replay/{job.id}"}, 202)
    if job.state is not State.SUCCEEDED:
        reason = job.failure.message if job.failure is not None else str(job.state)
        return reply(place | {"verdict": None, "error": reason})
    found, record, sources = await _judged(request, job)
    return reply(place | found.written() | {"image": record, "nodes": sources})


async def _judged(request: web.Request, job: Job) -> tuple[Verdict, Mapping[str, Any] | None, Mapping[str, Any]]:
    """The verdict of an ended replay, the picture it is about, and where each node's result came from."""
    asked, outcome = job.meta["replay"], job.outcome
    shown = (outcome.outputs if outcome is not None else {}).get(asked["output"], {}).get("images", ())
    record = shown[asked["image"]] if asked["image"] < len(shown) else None
    found = [
        Difference(difference["field"], difference["recorded"], difference["now"])
        for difference in asked["differences"]
    ]
    kept = _kept(request, job.id)
    if record is None or not kept.is_file():
        return judged(None, found), record, _sources(job)
    path = _picture(request, record)
    if not path.is_file():
        raise MissingFile(path.name, "the replay's picture is no longer there to be compared")
    figures = await compared(request, kept, path)
    return judged(figures, found, asked["psnr"]), record, _sources(job)


def _sources(job: Job) -> dict[str, Any]:
    nodes = job.outcome.nodes if job.outcome is not None else {}
    return {node_id: {"outcome": n["outcome"], "milliseconds": n["milliseconds"]} for node_id, n in nodes.items()}


def _picture(request: web.Request, record: Mapping[str, Any]) -> Path:
    places = folders(request)
    root = places.temp_dir if record["type"] == "temp" else places.output_dir
    return resolve(root, record["subfolder"], record["filename"])


def _kept(request: web.Request, job_id: str) -> Path:
    return folders(request).temp_dir / KEPT / job_id


def _keep(request: web.Request, job_id: str, picture: bytes) -> None:
    """The recorded picture until its job is forgotten, or newer ones take its owner's share of the disk.

    A replay whose recorded picture is gone is judged by what its lock says.
    """
    path, settings = _kept(request, job_id), request.app[SETTINGS]
    folder, room = make_folder(path.parent), UPLOADS_KEPT * settings.max_upload_bytes - len(picture)
    oldest = time.time() - settings.keep_days * DAY_S
    for made_at, size, other in sorted(_files(folder), reverse=True):
        room -= size
        if made_at < oldest or room < 0:
            other.unlink(missing_ok=True)
    write_file(path, picture)


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """When each was written, and its bytes."""
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another replay's thread was faster
            found = path.stat()
            yield found.st_mtime, found.st_size, path


def _written(found: list[Difference]) -> list[dict[str, Any]]:
    return [{"field": difference.field, "recorded": difference.recorded, "now": difference.now} for difference in found]


REPLAY_ROWS = (("POST", "/replay", replay), ("GET", "/replay/{id}", verdict))
