"""`GET /workers`: machines, devices, what is resident there, what runs. With keys it is an administrator's."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from sigmagraph.engine.jobs.protocol import WorkerStatus
from sigmagraph.engine.server.access.auth import require
from sigmagraph.engine.server.context import JOBS, reply

__all__ = ["workers"]

KEPT = ("devices", "resident", "memory_limit_bytes", "loads", "evictions", "precisions", "system", "memory")


async def workers(request: web.Request) -> web.Response:
    """Every worker as the front sees it, how many jobs wait and run, what is wrong with the cluster, if anything."""
    require(request, "admin")
    jobs = request.app[JOBS]
    counts = await jobs.counts()
    found = [_shown(status) for status in jobs.workers()]
    return reply({"workers": found, "queued": counts.queued, "running": counts.running, "trouble": jobs.trouble})


def _shown(status: WorkerStatus) -> Mapping[str, Any]:
    """Sizes in bytes; `machine` is null for the server's own, `models` the files it was given last."""
    stats = status.stats
    return {
        "name": status.name,
        "machine": stats.get("machine"),
        "is_ready": status.is_ready,
        "starts": status.starts,
        "pid": status.pid,
        "jobs": list(status.jobs),
        "models": list(status.models),
        **{name: stats[name] for name in KEPT if name in stats},
        "last_error": status.last_error,
    }
