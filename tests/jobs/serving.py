"""A service on a temporary database, with whatever worker a test wants."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sigmagraph.engine.jobs.events import Ended, JobEvent, Started
from sigmagraph.engine.jobs.job import Job, Submission
from sigmagraph.engine.jobs.service import JobService
from sigmagraph.engine.jobs.settings import JobSettings, ProcessSettings
from sigmagraph.engine.jobs.workers.inprocess import InProcessWorker
from sigmagraph.engine.jobs.workers.process import ProcessWorker
from sigmagraph.engine.jobs.workers.worker import Worker
from tests.jobs import stubs
from tests.jobs.conftest import sqlite


def here(**options: Any) -> InProcessWorker:
    return InProcessWorker(stubs.build({}), **options)


def child(factory: str = "build", **options: Any) -> ProcessWorker:
    return ProcessWorker(ProcessSettings(f"tests.jobs.stubs:{factory}", max_restart_wait_s=0.3, **options))


@asynccontextmanager
async def service(
    folder: Path, workers: Sequence[Worker] | None = None, *, stop_s: float = 5.0, **settings: Any
) -> AsyncIterator[JobService]:
    """A running service; stopped gracefully at the end."""
    jobs = JobService(JobSettings(sqlite(folder), **settings), [here()] if workers is None else workers)
    await jobs.start()
    try:
        yield jobs
    finally:
        await jobs.stop(stop_s)


async def sent(jobs: JobService, kind: str = "Steps", *, asked: dict[str, Any] | None = None, **inputs: Any) -> Job:
    """Submit one node whose result is shown."""
    return (await jobs.submit(Submission(stubs.shown(kind, **inputs), **(asked or {})))).job


async def until(is_so: Callable[[], bool]) -> None:
    """Go on as soon as that is so; ten seconds are enough for it."""
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0.005)


async def log(jobs: JobService, job: Job) -> list[JobEvent]:
    return list(await jobs.events(job.id))


def ends(events: Sequence[JobEvent]) -> int:
    return sum(isinstance(event.body, Ended) for event in events)


async def started(jobs: JobService, job: Job, attempt: int = 1) -> None:
    """Until an attempt has begun."""
    async for event in jobs.follow(job.id):
        if isinstance(event.body, Started) and event.body.attempt == attempt:
            return
