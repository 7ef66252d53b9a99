"""What happens to jobs as log lines, each with the ids of its job and node, so that a log can be searched by them."""

import logging
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from sigmagraph.engine.execution.events import NodeBlocked, NodeFinished, RunFailed
from sigmagraph.engine.jobs.events import Ended, JobEvent, Preview, Requeued, Started
from sigmagraph.engine.jobs.job import State
from sigmagraph.engine.server.context import JOBS

__all__ = ["keep_journal", "note"]

LOG = logging.getLogger("sigmagraph.jobs")


def note(what: JobEvent | Preview) -> None:
    """Log an event that an operator asks about: beginnings, ends and failures; single nodes at level debug."""
    if isinstance(what, Preview):
        return
    body, job = what.body, {"job": what.job_id, "owner": what.owner}
    match body:
        case Started():
            LOG.info("job started", extra=job | {"attempt": body.attempt, "worker": body.worker})
        case Requeued():
            LOG.warning("job queued again", extra=job | {"attempt": body.attempt, "reason": body.reason})
        case Ended():
            failure = body.failure
            more: dict[str, Any] = {"state": str(body.state)}
            more |= {"code": failure.code, "error": failure.message} if failure is not None else {}
            LOG.log(logging.WARNING if body.state is State.FAILED else logging.INFO, "job ended", extra=job | more)
        case RunFailed() | NodeBlocked():
            place = {"node": body.node_id, "class_type": body.class_type, "error": body.message}
            LOG.warning("node failed" if isinstance(body, RunFailed) else "node blocked", extra=job | place)
        case NodeFinished():
            place = {"node": body.node_id, "class_type": body.class_type}
            LOG.debug("node done", extra=job | place | {"source": body.source, "ms": round(body.milliseconds, 3)})
        case _:
            pass


async def keep_journal(app: web.Application) -> AsyncIterator[None]:
    """Listen to the job layer while the server runs."""
    unlisten = app[JOBS].listen(note)
    yield
    unlisten()
