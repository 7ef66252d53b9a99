"""What is remembered of a job is what the database says, whatever happened to it and whenever it was read."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sigmagraph.engine.errors import UnknownJob
from sigmagraph.engine.jobs.job import Job, Outcome, State
from sigmagraph.engine.jobs.store.recent import LARGEST, RecentJobs
from tests.jobs.serving import until
from tests.jobs.test_service import Runs, sent, service

JOB = Job("1", "ann", State.RUNNING, 1.0, 0, 1, 0.0)


class Rows:
    """A table of jobs that counts its readers and can be slow."""

    def __init__(self) -> None:
        self.jobs, self.reads = {"1": JOB}, 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self, job_id: str) -> Job:
        self.reads += 1
        found = self.jobs[job_id]
        await self.gate.wait()
        return found


async def asked_again_and_again(rows: Rows, recent: RecentJobs) -> None:
    assert [await recent.get("1") for _ in range(5)] == [JOB] * 5
    assert rows.reads == 1
    rows.jobs["1"] = replace(JOB, state=State.SUCCEEDED)
    recent.changed(["1"])
    assert (await recent.get("1")).state is State.SUCCEEDED
    recent.clear()
    await recent.get("1")
    assert rows.reads == 3


async def overtaken_while_it_was_read(rows: Rows, recent: RecentJobs) -> None:
    for forget in (lambda: recent.changed(["1"]), recent.clear):
        rows.jobs["1"] = JOB
        rows.gate.clear()
        early = asyncio.create_task(recent.get("1"))
        await asyncio.sleep(0)
        rows.jobs["1"] = replace(JOB, state=State.FAILED)
        forget()
        rows.gate.set()
        assert (await early).state is State.RUNNING  # as it was when it was asked
        assert (await recent.get("1")).state is State.FAILED
        recent.clear()


async def more_than_there_is_room_for(rows: Rows, recent: RecentJobs) -> None:
    rows.jobs = {str(i): replace(JOB, id=str(i)) for i in range(10)}
    for i in range(10):
        await recent.get(str(i))
    await recent.get("9")
    assert rows.reads == 10
    await recent.get("0")
    assert rows.reads == 11
    nodes: dict[str, Any] = {str(i): {} for i in range(LARGEST + 1)}
    rows.jobs["9"] = replace(JOB, id="9", outcome=Outcome({}, nodes))
    recent.changed(["9"])
    await recent.get("9")
    await recent.get("9")
    assert rows.reads == 13


@pytest.mark.parametrize("case", [asked_again_and_again, overtaken_while_it_was_read, more_than_there_is_room_for])
def test_recent_jobs(case: Callable[[Rows, RecentJobs], Any]) -> None:
    async def run() -> None:
        rows = Rows()
        await case(rows, RecentJobs(rows.read, most=4))

    asyncio.run(run())


async def unread(job_id: str) -> Job:
    raise AssertionError(f"{job_id} was read, though its end had just been written")


def test_a_look_is_the_row_after_everything_that_changes_one(
    run: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def case() -> None:
        async with service(tmp_path) as jobs:
            seen = []

            async def same(job_id: str) -> None:
                looked, row = await jobs.look(job_id), await jobs.get(job_id)
                assert looked == replace(row, request=None)
                seen.append(looked.state)

            await jobs.pause()
            first, second = (await sent(jobs)).id, (await sent(jobs)).id
            await same(first)
            await jobs.reorder(first, priority=5)
            await same(first)
            await jobs.cancel(second)
            await same(second)
            await jobs.resume()
            await jobs.wait(first)
            await same(first)
            third = (await sent(jobs, "Fail", message="x")).id
            await until(lambda: third in jobs.store._recent._kept)  # its end is written
            monkeypatch.setattr(jobs.store._recent, "_read", unread)
            assert (await jobs.wait(third)).failure is not None
            await same(third)
            monkeypatch.undo()
            with pytest.raises(UnknownJob):
                await jobs.look(first, "somebody else")
            await jobs.delete(first)
            with pytest.raises(UnknownJob):
                await jobs.look(first)
            await jobs.delete_ended()
            with pytest.raises(UnknownJob):
                await jobs.look(second)
            assert seen == [State.QUEUED, State.QUEUED, State.CANCELLED, State.SUCCEEDED, State.FAILED]

    run(case())
