"""`/health`: the process answers. `/ready`: a worker has run a graph, so the next job will not wait for a start."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiohttp import web

from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.host import version_of
from sigmagraph.engine.jobs.job import State, Submission
from sigmagraph.engine.jobs.protocol import Jobs
from sigmagraph.engine.server.context import JOBS, reply

__all__ = ["WARM", "Readiness", "health", "ready", "warm_up"]

LOG = logging.getLogger("sigmagraph.server")
OWNER_OF_WARM_UP = "warm-up"
AGAIN_S = 5.0
GRAPH: Mapping[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}


class Readiness:
    """Whether the warm-up graph has run."""

    def __init__(self) -> None:
        self.is_done = False
        self.reason = "the worker is starting"


WARM: web.AppKey[Readiness] = web.AppKey("warm", Readiness)


async def health(request: web.Request) -> web.Response:
    """`GET /health`."""
    return reply({"status": "ok", "version": version_of("sigmagraph")})


async def ready(request: web.Request) -> web.Response:
    """`GET /ready`: 200, or 503 with the reason."""
    jobs, readiness = request.app[JOBS], request.app[WARM]
    if readiness.is_done and jobs.is_accepting and any(worker.is_ready for worker in jobs.workers()):
        return reply({"status": "ready"})
    workers = jobs.workers()
    problems = [problem for problem in (jobs.trouble, *(worker.last_error for worker in workers)) if problem]
    reason = readiness.reason if not readiness.is_done else "no worker is ready" if jobs.is_accepting else "stopping"
    if problems and not any(worker.is_ready for worker in workers):
        reason = f"no worker is ready: {problems[0]}"
    return reply({"status": "not ready", "reason": reason, "workers": problems}, 503)


async def warm_up(app: web.Application) -> AsyncIterator[None]:
    """Run the warm-up graph beside everything else."""
    task = asyncio.create_task(_warm(app[JOBS], app[WARM]))
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _warm(jobs: Jobs, readiness: Readiness) -> None:
    """A queue that is full at the start, or a locked database, is not for ever: it is tried until it has run."""
    while not await _tried(jobs, readiness):
        await asyncio.sleep(AGAIN_S)


async def _tried(jobs: Jobs, readiness: Readiness) -> bool:
    """Whether another try is needless."""
    try:
        await jobs.ready()
        if set(await jobs.nodes()) >= {node["class_type"] for node in GRAPH.values()}:
            await _run(jobs, readiness)
        else:  # a library without these nodes is as warm as it gets
            readiness.is_done = True
    except EngineError as error:
        readiness.reason = str(error)
        LOG.warning("the warm-up graph did not run", extra={"error": str(error)})
        return readiness.is_done
    return True


async def _run(jobs: Jobs, readiness: Readiness) -> None:
    readiness.reason = "the warm-up graph is running"
    accepted = await jobs.submit(Submission(parse_workflow(dict(GRAPH)), owner=OWNER_OF_WARM_UP, source="warm-up"))
    job = await jobs.wait(accepted.job.id)
    readiness.is_done = job.state is State.SUCCEEDED
    if job.failure is not None:
        readiness.reason = f"the warm-up graph failed: {job.failure.message}"
        LOG.error("the warm-up graph failed", extra={"job": job.id, "error": job.failure.message})
    await jobs.delete(job.id)
