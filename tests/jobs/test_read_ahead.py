"""A job whose turn has come runs while its row is written: the device does not wait for the disk."""

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

from sigmagraph.engine.jobs.events import Ended, Preview, Started
from sigmagraph.engine.jobs.job import State
from sigmagraph.engine.jobs.queue import Queue
from tests.jobs.serving import ends, here, log, sent, service, until
from tests.jobs.test_beginning import commits_of
from tests.jobs.test_queue import job as queued

Runs = Callable[[Coroutine[Any, Any, Any]], Any]


def test_the_next_job_runs_while_the_disk_is_busy_and_nobody_hears_of_it_before(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        worker = here()
        async with service(tmp_path, [worker]) as jobs:
            first = await sent(jobs, count=30, seconds=0.01)
            second = await sent(jobs, count=3, salt="b", seconds=0.05)
            third = await sent(jobs, count=1)
            heard: list[Any] = []
            jobs.listen(heard.append)
            commits = commits_of(jobs)
            with closing(sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                await until(lambda: second.id in worker.status().jobs)
                await until(lambda: not worker.status().jobs)
                await asyncio.sleep(0.1)
                told = [what for what in heard if what.job_id == second.id]
                assert (told, worker.status().jobs) == ([], ())  # one at a time: a disk in trouble stops the queue
                other.execute("ROLLBACK")
            for made in (first, second, third):
                done = await jobs.wait(made.id)
                assert (done.state, done.attempt, ends(await log(jobs, made))) == (State.SUCCEEDED, 1, 1)
            kinds = [kind for commit in commits for kind in commit]
            assert (kinds.count("Ended"), kinds.count("Started")) == (3, 2)  # the first began before
            mine = [what for what in heard if what.job_id == second.id]
            pictures = [at for at, what in enumerate(mine) if isinstance(what, Preview)]
            assert isinstance(mine[0].body, Started)
            assert len(pictures) == 3

    run(case())


def test_a_job_cancelled_while_it_began_early_stops_and_is_cancelled_once(run: Runs, tmp_path: Path) -> None:
    """Its cancel is written before its beginning, which the row then refuses."""

    async def case() -> None:
        worker = here()
        async with service(tmp_path, [worker]) as jobs:
            first = await sent(jobs, count=10, seconds=0.01)
            second = await sent(jobs, count=1000, seconds=0.01)
            with closing(sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                cancelling = asyncio.create_task(jobs.store.request_cancel(second.id))
                await until(lambda: second.id in worker.status().jobs)
                other.execute("ROLLBACK")
            await cancelling
            await until(lambda: not worker.status().jobs)
            assert (await jobs.wait(first.id)).state is State.SUCCEEDED
            stopped = await jobs.wait(second.id)
            assert (stopped.state, stopped.attempt) == (State.CANCELLED, 0)
            assert [type(event.body) for event in await log(jobs, second)][-1] is Ended
            assert not any(isinstance(event.body, Started) for event in await log(jobs, second))
            assert (await jobs.wait((await sent(jobs)).id)).state is State.SUCCEEDED

    run(case())


def test_jobs_further_back_are_read_when_they_come_near(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path) as jobs:
            await jobs.pause()
            made = [await sent(jobs, salt=str(n)) for n in range(60)]
            window = jobs._dispatcher._ahead
            assert len(window._kept) == 18  # sixteen, and two for the worker
            misses = 0
            take = window.take

            def taken(job_id: str) -> Any:
                nonlocal misses
                request = take(job_id)
                misses += request is None
                assert request is None or request.prompt["work"]["inputs"]["salt"] == str(numbers[job_id])
                return request

            numbers = {job.id: n for n, job in enumerate(made)}
            window.take = taken  # type: ignore[method-assign]
            await jobs.resume()
            for job in made:
                assert (await jobs.wait(job.id)).state is State.SUCCEEDED
            assert misses < 15
            assert not window._kept

    run(case())


def test_the_queue_says_who_is_near_each_owner_in_turn() -> None:
    queue = Queue()
    for n in range(40):
        queue.put(queued(f"a{n:02}", float(n), owner="ann"))
    for n in range(3):
        queue.put(queued(f"b{n}", 100.0 + n, owner="bob"))
    queue.put(queued("c", 200.0, 1, "bob"))
    near = queue.near(12)
    assert near[0] == "c"
    assert set(near) >= {"b0", "b1", "b2", "a00", "a01", "a02"}
    assert len(near) == 12
    order = []
    while (job := queue.take()) is not None:
        order.append(job.id)
        queue.done(job.id)
    assert len(set(order[:12]) - set(near)) <= 2
