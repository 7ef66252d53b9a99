"""A cluster without Ray: actors are objects here, and links to them break, freeze and fill up on request."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sigmagraph.engine.jobs.cluster.actor_worker import ActorWorker
from sigmagraph.engine.jobs.cluster.depot import Depot
from sigmagraph.engine.jobs.cluster.device import DeviceActor
from sigmagraph.engine.jobs.cluster.fleet import RayFleet
from sigmagraph.engine.jobs.cluster.link import LinkLost, StoreFull
from sigmagraph.engine.jobs.cluster.settings import ActorSettings
from sigmagraph.engine.jobs.job import Job, Submission
from sigmagraph.engine.jobs.service import JobService
from sigmagraph.engine.jobs.settings import JobSettings, StoreSettings
from sigmagraph.engine.jobs.workers.worker import Worker
from tests.jobs.cluster.nodes import folders, saved
from tests.jobs.conftest import sqlite


class Place:
    """One machine: its actor, and what is wrong with it."""

    def __init__(self, name: str, **options: Any) -> None:
        self.name, self.options = name, options
        self.values: dict[int, bytes] = {}
        self.calls: list[str] = []
        self.offered = self.fetched = 0
        self.is_full = False
        self.frozen = asyncio.Event()
        self.frozen.set()
        self.is_cut = self.is_deaf = False
        self.actor = self.made()

    def made(self) -> DeviceActor:
        return DeviceActor(self._put, lambda key: self.values[key])

    def _put(self, data: bytes) -> Any:
        if self.is_full:
            return None
        self.offered += len(data)
        self.values[len(self.values)] = data
        return len(self.values) - 1

    # -- as a link

    async def call(self, method: str, *arguments: Any) -> Any:
        if self.is_cut:
            raise LinkLost("is gone", is_from_outside=True)
        self.calls.append(method)
        await self.frozen.wait()
        if self.is_deaf and method == "say":
            await asyncio.Event().wait()
        answer = await asyncio.to_thread(getattr(self.actor, method), *arguments)
        await self.frozen.wait()
        if self.is_cut:
            raise LinkLost("is gone", is_from_outside=True)
        return answer

    async def fetch(self, reference: Any) -> bytes:
        self.fetched += len(self.values[reference])
        return self.values[reference]

    async def offer(self, data: bytes) -> Any:
        if self.is_full:
            raise StoreFull("full")
        self.values[len(self.values)] = data
        return [len(self.values) - 1]

    def kill(self) -> None:
        """The cluster starts another process."""
        self.actor = self.made()

    def end(self) -> None:
        self.is_cut = True


def worker(home: Path, place: Place, **settings: Any) -> ActorWorker:
    async def connect() -> Place:
        return place

    options = {"models": str(home / "models"), **place.options}
    how = {"beat_s": 0.05, "lease_s": 20.0, "max_restart_wait_s": 0.2, "front": str(home), **settings}
    actor = ActorSettings("tests.jobs.cluster.nodes:build", options, place.name, **how)
    return ActorWorker(actor, connect, Depot(folders(home), home / "carried"))


@asynccontextmanager
async def served(
    home: Path, workers: Sequence[Worker], *, store: StoreSettings | None = None, fleet: RayFleet | None = None
) -> AsyncIterator[JobService]:
    """A job service on a home with its folders."""
    for name in ("models", "input", "output", "temp"):
        (home / name).mkdir(parents=True, exist_ok=True)
    jobs = JobService(JobSettings(store or sqlite(home)), workers, folders(home), fleet=fleet)
    await jobs.start()
    try:
        yield jobs
    finally:
        await jobs.stop(0.0)


@asynccontextmanager
async def front(
    home: Path, places: Sequence[Place], *, waits: bool = True, **settings: Any
) -> AsyncIterator[JobService]:
    async with served(home, [worker(home, place, **settings) for place in places]) as jobs:
        try:
            if waits:
                await jobs.ready(20)
            yield jobs
        finally:
            for place in places:
                place.frozen.set()


async def submitted(jobs: JobService, *, asked: dict[str, Any] | None = None, **inputs: Any) -> Job:
    """A job that iterates and saves."""
    return (await jobs.submit(Submission(saved(**inputs), **(asked or {})))).job


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        await asyncio.sleep(0.01)
