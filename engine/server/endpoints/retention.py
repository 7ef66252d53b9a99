"""Pictures past the life their URLs were promised are deleted from disk. Nothing else in the output folders is touched.

Files are found by name and age, not by the job's record: what a killed attempt left, or a deleted job, goes too.
"""

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path

from aiohttp import web

from sigmagraph.engine.errors import EngineError, UnknownJob
from sigmagraph.engine.jobs.protocol import Jobs
from sigmagraph.engine.server.context import JOBS
from sigmagraph.engine.server.endpoints.context import PUBLISHED, Published
from sigmagraph.engine.server.endpoints.endpoint import FOLDER

__all__ = ["delete_overdue", "sweep_outputs"]

LOG = logging.getLogger("sigmagraph.server")
NAME = re.compile(r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})_.+")
"""What `Endpoint.bind` has pictures called: the request's id, then what the node adds."""
LONGEST_WAIT_S = 3600.0


async def sweep_outputs(app: web.Application) -> AsyncIterator[None]:
    """Delete what is overdue, now and then, for as long as the server runs."""
    task = asyncio.create_task(_sweep(app[JOBS], app[PUBLISHED]))
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def delete_overdue(jobs: Jobs, published: Published) -> int:
    """Delete the pictures whose URLs have ended; says how many."""
    before, deleted = published.clock() - published.file_s, 0
    for request_id, paths in (await asyncio.to_thread(_older, published.output_dirs(), before)).items():
        if not await _is_promised(jobs, request_id, before):
            deleted += await asyncio.to_thread(_delete, paths)
    return deleted


async def _sweep(jobs: Jobs, published: Published) -> None:
    while True:
        try:
            deleted = await delete_overdue(jobs, published)
        except (EngineError, OSError) as error:
            LOG.warning("old pictures are not deleted", extra={"error": str(error)})
        else:
            if deleted:
                LOG.info("old pictures deleted", extra={"files": deleted})
        await asyncio.sleep(min(LONGEST_WAIT_S, published.file_s / 4))


async def _is_promised(jobs: Jobs, request_id: str, before: float) -> bool:
    """Whether a URL of the request still works, or will: it lives from the job's end on, not from the file's date."""
    try:
        job = await jobs.get(request_id)
    except UnknownJob:
        return False
    return job.ended_at is None or job.ended_at >= before


def _older(roots: Iterable[Path], before: float) -> dict[str, list[Path]]:
    """Pictures written before a moment, by request."""
    found: dict[str, list[Path]] = {}
    for root in roots:
        folder = root / FOLDER
        for path in folder.iterdir() if folder.is_dir() else ():
            match = NAME.fullmatch(path.name)
            if match is not None and path.stat(follow_symlinks=False).st_mtime < before:
                found.setdefault(match[1], []).append(path)
    return found


def _delete(paths: Sequence[Path]) -> int:
    for path in paths:
        path.unlink(missing_ok=True)
    return len(paths)
