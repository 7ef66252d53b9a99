"""From submission to the first attempt: in one commit where a worker is free, and whatever becomes of who asked."""

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from itertools import count, pairwise
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from sigmagraph.engine.errors import DuplicateJob, StoreFailed, UnknownJob, UnknownKey
from sigmagraph.engine.jobs.events import Preview, Queued, Started
from sigmagraph.engine.jobs.job import Idempotency, JobQuery, State, Submission
from sigmagraph.engine.jobs.protocol import Counts
from sigmagraph.engine.jobs.service import JobService
from sigmagraph.engine.jobs.settings import JobSettings
from tests.jobs.conftest import sqlite
from tests.jobs.serving import ends, here, log, sent, service, started, until
from tests.jobs.stubs import shown

Runs = Callable[[Coroutine[Any, Any, Any]], Any]


def test_a_job_that_need_not_wait_is_accepted_and_begun_in_one_transaction(run: Runs, tmp_path: Path) -> None:
    ticks = count(1)

    async def case() -> None:
        jobs = JobService(JobSettings(sqlite(tmp_path)), [here()], clock=lambda: float(next(ticks)))
        await jobs.start()
        assert await jobs.ready(5)
        first = await sent(jobs, count=50, seconds=0.01)
        assert (first.state, first.attempt) == (State.QUEUED, 0)  # as it was accepted
        stored = await jobs.get(first.id)
        assert (stored.state, stored.attempt, stored.worker) == (State.RUNNING, 1, "here")
        second = await sent(jobs)
        assert (await jobs.get(second.id)).state is State.QUEUED
        for job, is_at_once in ((first, True), (second, False)):
            await jobs.wait(job.id)
            queued, begun, *_ = await log(jobs, job)
            assert (queued.number, begun.number) == (1, 2)
            assert isinstance(queued.body, Queued)
            assert begun.body == Started(1, "here")
            assert (queued.at == begun.at) is is_at_once
        await jobs.stop()

    run(case())


def test_the_commit_that_ends_a_job_begins_the_next(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path) as jobs:
            commits: list[set[tuple[str, str]]] = []
            publish = jobs.store.database._publish

            def heard(events: Any, ended: Any) -> None:
                commits.append({(event.job_id, type(event.body).__name__) for event in events})
                publish(events, ended)

            jobs.store.database._publish = heard
            made = [await sent(jobs, count=2, seconds=0.005) for _ in range(12)]
            await jobs.wait(made[-1].id)
            pairs = [{(one.id, "Ended"), (other.id, "Started")} for one, other in pairwise(made)]
            together = [any(pair <= commit for commit in commits) for pair in pairs]
            assert sum(together) > 8  # of 11; the writer may have been too quick for one or another

    run(case())


def test_a_submission_whose_caller_goes_away_runs_all_the_same(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path) as jobs:
            assert await jobs.ready(5)
            asked = Submission(shown("Steps"), job_id="mine")
            with closing(sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                caller = asyncio.create_task(jobs.submit(asked))
                await asyncio.sleep(0.1)
                caller.cancel()
                await asyncio.gather(caller, return_exceptions=True)
                other.execute("ROLLBACK")
            while not (await jobs.counts()).remaining and not any(job.id == "mine" for job in await ended(jobs)):
                await asyncio.sleep(0.01)
            job = await jobs.wait("mine")
            assert job.state is State.SUCCEEDED
            assert ends(await log(jobs, job)) == 1

    run(case())


async def ended(jobs: JobService) -> Any:
    return (await jobs.find(JobQuery())).jobs


def test_a_refused_submission_gives_its_slot_back(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path) as jobs:
            assert await jobs.ready(5)
            first = await sent(jobs, asked={"job_id": "mine"})
            await jobs.wait(first.id)
            again = await asyncio.gather(
                *(sent(jobs, asked={"job_id": "mine"}) for _ in range(3)), return_exceptions=True
            )
            assert all(isinstance(answer, DuplicateJob) for answer in again)
            assert (await jobs.wait((await sent(jobs)).id)).state is State.SUCCEEDED

    run(case())


@pytest.mark.parametrize("is_early", [True, False])
def test_a_job_whose_worker_is_gone_once_it_is_stored_as_begun_waits_for_the_next_attempt(
    run: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_early: bool
) -> None:
    async def case() -> None:
        worker = here()
        async with service(tmp_path, [worker]) as jobs:
            assert await jobs.ready(5)
            reserve = jobs._dispatcher.reserve

            def reserved_and_gone(*given: Any) -> Any:
                found = reserve(*given)
                worker._is_ready = False
                return found

            with monkeypatch.context() as dying:
                dying.setattr(jobs._dispatcher, "reserve", reserved_and_gone)
                key = None if is_early else Idempotency("mine", "")  # the store may know it
                job = await sent(jobs, asked={"idempotency": key})
            while (await jobs.get(job.id)).state is not State.QUEUED:
                await asyncio.sleep(0.01)
            assert await jobs.counts() == Counts(1, 0)
            worker._is_ready = True
            await jobs.resume()
            done = await jobs.wait(job.id)
            assert (done.state, done.attempt) == (State.SUCCEEDED, 2)
            kinds = [type(event.body).__name__ for event in await log(jobs, job)]
            assert kinds[:4] == ["Queued", "Started", "Requeued", "Started"]
            assert (kinds.count("Ended"), await jobs.counts()) == (1, Counts(0, 0))

    run(case())


def test_a_job_that_only_the_disk_can_refuse_runs_while_it_is_written_and_nobody_hears_of_it_before(
    run: Runs, tmp_path: Path
) -> None:
    async def case() -> None:
        worker = here()
        async with service(tmp_path, [worker]) as jobs:
            assert await jobs.ready(5)
            heard: list[Any] = []
            jobs.listen(heard.append)
            commits = commits_of(jobs)
            with closing(sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                asking = asyncio.create_task(sent(jobs, salt="a", seconds=0.3, asked={"job_id": "mine"}))  # seen to run
                await run_to_its_end(worker)
                await asyncio.sleep(0.05)
                assert (asking.done(), heard) == (False, [])
                with pytest.raises(UnknownJob):
                    await jobs.get("mine")
                other.execute("ROLLBACK")
            assert (await asking).id == "mine"
            assert (await jobs.wait("mine")).state is State.SUCCEEDED
            await until(lambda: type(getattr(heard[-1], "body", None)).__name__ == "Ended")
            first = [name for commit in commits for name in commit]
            assert (first[:2], first[-1], "NodeProgress" in first) == (["Queued", "Started"], "Ended", True)
            pictures = [at for at, what in enumerate(heard) if isinstance(what, Preview)]
            assert pictures
            assert min(pictures) >= 2  # they say that there is a job

    run(case())


def commits_of(jobs: Any) -> list[list[str]]:
    """The kinds of events in each commit from now on."""
    commits: list[list[str]] = []
    publish = jobs.store.database._publish

    def noted(events: Any, ended: Any) -> None:
        commits.append([type(event.body).__name__ for event in events])
        publish(events, ended)

    jobs.store.database._publish = noted
    return commits


async def run_to_its_end(worker: Any) -> None:
    """Until a worker had a job and has it no more."""
    while not worker.status().jobs:
        await asyncio.sleep(0.001)
    while worker.status().jobs:
        await asyncio.sleep(0.001)


def test_a_short_job_is_answered_before_its_end_and_a_long_one_while_it_runs(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path) as jobs:
            assert await jobs.ready(5)
            heard = list[Any]()
            jobs.listen(heard.append)
            for _ in range(10):
                asking = asyncio.create_task(sent(jobs, count=2, salt="a"))
                while not any(not isinstance(what, Preview) and what.number > 2 for what in heard):
                    await asyncio.sleep(0)
                assert asking.done()  # who waits for the answer before listening must not miss what follows
                job = await jobs.wait((await asking).id)
                told = [what.number for what in heard if not isinstance(what, Preview)]
                assert told == list(range(1, job.events + 1))
                assert [type(what).__name__ for what in heard].count("Preview") == 2
                heard.clear()
            long = await sent(jobs, count=1000, seconds=0.005)
            assert (await jobs.get(long.id)).state is State.RUNNING
            await jobs.cancel(long.id)
            assert (await jobs.wait(long.id)).state is State.CANCELLED

    run(case())


def test_the_end_of_a_run_that_is_over_before_its_row_is_written_waits_for_nobody_but_the_disk(
    run: Runs, tmp_path: Path
) -> None:
    async def case() -> None:
        worker = here()
        async with service(tmp_path, [worker]) as jobs:
            assert await jobs.ready(5)
            commits = commits_of(jobs)
            with closing(sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                asking = asyncio.create_task(sent(jobs, seconds=0.2))  # seen to run
                await run_to_its_end(worker)
                await until(lambda: not jobs.store.database._waiting.empty())  # beside the row, which the writer has
                assert (asking.done(), commits) == (False, [])
                other.execute("ROLLBACK")
            await jobs.wait((await asking).id)
            assert len(commits) <= 2
            assert (commits[0][:2], commits[-1][-1]) == (["Queued", "Started"], "Ended")

    run(case())


@pytest.mark.parametrize("is_over", [True, False])
def test_what_the_disk_refuses_is_stopped_where_it_runs_already_and_has_no_end(
    run: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_over: bool
) -> None:
    async def case() -> None:
        worker = here()
        async with service(tmp_path, [worker]) as jobs:
            assert await jobs.ready(5)
            heard: list[Any] = []
            jobs.listen(heard.append)

            database, is_free = jobs.store.database, Event()
            commit = database._commit

            def full(engine: Any, batch: Any) -> None:
                is_free.wait(5)
                if any(not work.is_sure for work in batch):
                    raise OperationalError("", None, OSError("the disk is full"))
                commit(engine, batch)

            with monkeypatch.context() as trouble:
                trouble.setattr(database, "_commit", full)
                how = {"count": 1, "seconds": 0.2} if is_over else {"count": 1000, "seconds": 0.005}  # both seen to run
                asking = asyncio.create_task(sent(jobs, **how))
                if is_over:
                    await run_to_its_end(worker)
                is_free.set()
                with pytest.raises(StoreFailed, match="full"):
                    await asking
            async with asyncio.timeout(2):
                while worker.status().jobs:
                    await asyncio.sleep(0.001)
            await asyncio.sleep(0.05)
            assert (heard, await ended(jobs), caplog.messages) == ([], [], [])
            assert await jobs.drain(2)  # nothing of it is left
            await jobs.resume()
            assert (await jobs.wait((await sent(jobs)).id)).state is State.SUCCEEDED

    run(case())


def test_what_may_be_refused_for_another_reason_does_not_run_before_it_is_accepted(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        worker = here()
        async with service(tmp_path, [worker]) as jobs:
            assert await jobs.ready(5)
            await jobs.wait((await sent(jobs, asked={"job_id": "mine"})).id)
            begun: list[str] = []
            run_it = worker.run
            worker.run = lambda task: (begun.append(task.job_id), run_it(task))[1]  # type: ignore[method-assign]
            with pytest.raises(DuplicateJob):
                await sent(jobs, asked={"job_id": "mine"})
            with pytest.raises(UnknownKey):
                await sent(jobs, asked={"owner": "somebody", "cost": 5})
            assert begun == []
            assert (await jobs.wait((await sent(jobs)).id)).state is State.SUCCEEDED

    run(case())


def test_what_a_run_said_last_is_stored_before_its_attempt_is_lost(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path, stop_s=0.0) as jobs:
            job = await sent(jobs, count=1000, seconds=0.005)
            await started(jobs, job)
            await asyncio.sleep(0.05)
        async with service(tmp_path) as again:
            kinds = [type(event.body).__name__ for event in await log(again, job)]
            assert kinds.index("NodeProgress") < kinds.index("Requeued")
            await again.cancel(job.id)

    run(case())
