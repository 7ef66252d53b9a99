"""A worker process of its own: what it says, and what happens when it dies, hangs, or never starts."""

import asyncio
import itertools
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from sigmagraph.engine.errors import InvalidWorkflow, NotAccepting
from sigmagraph.engine.execution.calling import context
from sigmagraph.engine.jobs.events import Preview, Requeued, Started
from sigmagraph.engine.jobs.job import State, Submission
from sigmagraph.engine.jobs.service import JobService
from sigmagraph.engine.jobs.workers import process
from sigmagraph.engine.jobs.workers.worker import Worker
from tests.jobs import stubs
from tests.jobs.serving import child, ends, here, log, sent, service, started, until

Runs = Callable[[Coroutine[Any, Any, Any]], Any]


def test_what_a_worker_loaded_is_no_business_of_the_garbage_collector(run: Runs, tmp_path: Path) -> None:
    """A full collection takes a quarter of a second else, in the middle of a step or a preview."""

    async def case() -> None:
        async with service(tmp_path, [child("build_counting")]) as jobs:
            await jobs.wait((await sent(jobs, count=1, salt="g")).id)  # at the end of a job counts are told
            assert jobs.workers()[0].stats["passed_by"] > 1000

    run(case())


async def attempts(jobs: JobService, job_id: str) -> list[int]:
    return [event.body.attempt for event in await jobs.events(job_id) if isinstance(event.body, Started)]


def test_a_process_runs_jobs_shows_previews_and_tells_its_nodes(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        pictures: list[Preview] = []
        async with service(tmp_path, [child()]) as jobs:
            await jobs.nodes(fresh=True)
            assert jobs.workers()[0].stats == {"a": 1, "drawn": 0}
            jobs.listen(lambda what: pictures.append(what) if isinstance(what, Preview) else None)
            done = await jobs.wait((await sent(jobs, count=2, salt="p")).id)
            assert done.outcome is not None
            assert done.outcome.outputs == {"end": {"shown": ["2 steps"]}}
            assert [picture.data for picture in pictures] == [b"p0", b"p1"]
            assert (await jobs.wait((await sent(jobs, "Fail")).id)).state is State.FAILED
            declared = {name: node.object_info() for name, node in (await jobs.nodes(fresh=True)).items()}
            assert declared == {name: node.object_info() for name, node in stubs.NODES.items()}
            status = jobs.workers()[0]
            assert (status.is_ready, status.starts, status.stats) == (True, 1, {"a": 1, "drawn": 2})
            await jobs.free(unload_models=True)
            pid = status.pid
        assert pid is not None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    run(case())


def test_nodes_that_check_their_own_inputs_are_asked_in_the_worker(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path, [child()]) as jobs:
            good = await jobs.submit(Submission(stubs.workflow(a=("Picky", {"number": 2}))))
            assert (await jobs.wait(good.job.id)).state is State.SUCCEEDED
            with pytest.raises(InvalidWorkflow, match="3 is odd"):
                await jobs.submit(Submission(stubs.workflow(a=("Picky", {"number": 3}))))

    run(case())


def test_a_check_that_hangs_costs_the_worker_its_life_not_every_later_submission(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        worker = child()
        async with service(tmp_path, [worker], check_deadline_s=0.3, step_deadline_s=0.5) as jobs:
            assert await jobs.ready(60)
            assert worker.status().starts == 1
            while worker.status().starts == 1:
                with pytest.raises(NotAccepting):
                    await sent(jobs, "Picky", number=-600)
                await asyncio.sleep(0.05)
            assert "answered no question for 0.5 s" in worker.status().last_error
            while not worker.status().is_ready:
                await asyncio.sleep(0.05)
            job = await sent(jobs, "Picky", number=2)
            assert (await jobs.wait(job.id)).state is State.SUCCEEDED

    run(case())


def test_a_running_job_can_be_cancelled(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path, [child()]) as jobs:
            job = await sent(jobs, count=10_000, seconds=0.005)
            await started(jobs, job)
            await jobs.cancel(job.id)
            assert (await jobs.wait(job.id)).state is State.CANCELLED
            assert (await jobs.wait((await sent(jobs)).id)).state is State.SUCCEEDED
            assert jobs.workers()[0].starts == 1

    run(case())


def test_a_killed_worker_starts_again_and_its_job_ends_once(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path, [child()]) as jobs:
            job, other = await sent(jobs, count=30, seconds=0.02), await sent(jobs)
            await started(jobs, job)
            pid = jobs.workers()[0].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            assert (await jobs.counts()).remaining == 2  # the front answers meanwhile
            assert (await jobs.wait(job.id)).state is State.SUCCEEDED
            assert (await jobs.wait(other.id)).state is State.SUCCEEDED
            events = await log(jobs, job)
        assert reasons(events) == ["worker died of SIGKILL"]
        assert ends(events) == 1
        assert [event.body.attempt for event in events if isinstance(event.body, Started)] == [1, 2]

    run(case())


def test_a_worker_leaves_interrupts_to_the_front(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path, [child()]) as jobs:
            job = await sent(jobs, count=20, seconds=0.02)
            await started(jobs, job)
            pid = jobs.workers()[0].pid
            assert pid is not None
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
            done = await jobs.wait(job.id)
            assert (done.state, done.attempt) == (State.SUCCEEDED, 1)

    run(case())


def reasons(events: Any) -> list[str]:
    return [event.body.reason for event in events if isinstance(event.body, Requeued)]


def test_a_job_that_kills_every_worker_fails_and_the_next_one_runs(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path, [child()], max_deaths=2) as jobs:
            bad, good = await sent(jobs, "Die"), await sent(jobs)
            ended = await jobs.wait(bad.id)
            assert ended.failure is not None
            assert (ended.failure.code, ended.attempt) == ("worker_lost", 2)
            assert ended.failure.message.startswith("gave up after 2 attempts: worker exited with status 139")
            assert (await jobs.wait(good.id)).state is State.SUCCEEDED
            assert ends(await log(jobs, bad)) == 1

    run(case())


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("exits", "exited with status 7"),
        ("closes", "exited with status 4: something in it closed the socket to the server"),
        ("closes and goes on", "exited with status 4: something in it closed the socket to the server"),
        ("forks", "exited with status 7"),
    ],
)
def test_a_node_that_ends_its_process_is_named_with_its_pack_and_soon(
    run: Runs, tmp_path: Path, how: str, reason: str
) -> None:
    """Also one that closes every descriptor, so that no end is to be read, or leaves a process that holds them."""

    async def case() -> None:
        async with service(tmp_path, [child()], max_deaths=1) as jobs:
            assert await jobs.ready(20)
            async with asyncio.timeout(4):
                ended = await jobs.wait((await sent(jobs, "Ends", how=how)).id)
        assert ended.failure is not None
        assert (ended.failure.node_id, ended.failure.class_type) == ("work", "Ends")
        blamed = "while node work (Ends of the pack rude, stubs.py, class Ends) ran"
        assert ended.failure.message == f"gave up after 1 attempts: worker {reason} {blamed}"

    run(case())


def test_three_kills_from_outside_at_one_place_do_not_fail_the_job(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path, [child()], max_deaths=3) as jobs:
            job = await sent(jobs, count=1, seconds=1.5)
            for attempt in (1, 2, 3):
                await started(jobs, job, attempt)
                await asyncio.sleep(0.2)
                pid = jobs.workers()[0].pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
            assert (await jobs.wait(job.id)).state is State.SUCCEEDED
            causes = [event.body.cause for event in await log(jobs, job) if isinstance(event.body, Requeued)]
            assert causes == ["outside"] * 3

    run(case())


def test_a_kill_by_a_kernel_short_of_memory_counts_against_the_job(
    run: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = itertools.count()  # one more process killed each time somebody looks
    monkeypatch.setattr(process, "kernel_kills", lambda: next(counted))

    async def case() -> None:
        async with service(tmp_path, [child()], max_deaths=1) as jobs:
            job = await sent(jobs, "Hang")
            await started(jobs, job)
            pid = jobs.workers()[0].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            assert (await jobs.wait(job.id)).state is State.FAILED

    run(case())


def test_the_kernels_count_is_read_from_its_counters(tmp_path: Path) -> None:
    (tmp_path / "vmstat").write_text("nr_free_pages 1\noom_kill 12\noom_kill_other 3\n")
    assert process.kernel_kills(tmp_path / "vmstat") == 12
    (tmp_path / "vmstat").write_text("nr_free_pages 1\n")
    assert process.kernel_kills(tmp_path / "vmstat") is None
    assert process.kernel_kills(tmp_path / "nothing") is None


def test_a_job_that_kills_every_worker_takes_its_neighbour_down_once(run: Runs, tmp_path: Path) -> None:
    """After a death under several jobs each of them has a worker to itself until it is over."""

    async def case() -> None:
        async with service(tmp_path, [child(slots=2)], max_deaths=3, takes_every_slot=True) as jobs:
            await jobs.pause()
            good = await sent(jobs, count=300, seconds=0.01)
            bad = await sent(jobs, "Die")
            await jobs.resume()
            assert (await jobs.wait(bad.id)).state is State.FAILED
            assert (await jobs.wait(good.id)).state is State.SUCCEEDED
            assert await attempts(jobs, good.id) == [1, 2]
            assert await attempts(jobs, bad.id) == [1, 2, 3]
            beside = [await sent(jobs, count=500, seconds=0.01) for _ in range(2)]
            for worker in beside:
                await started(jobs, worker)
            assert (await jobs.counts()).running == 2
            await jobs.cancel_all()

    run(case())


@pytest.mark.parametrize("made", [child, here], ids=["process", "here"])
def test_a_job_that_waits_for_its_turn_is_no_reason_to_kill_its_worker(
    run: Runs, tmp_path: Path, made: Callable[..., Worker]
) -> None:
    """The second waits for the first for much longer than a worker may be silent."""

    async def case() -> None:
        async with service(tmp_path, [made(slots=2, beat_s=0.1)], step_deadline_s=0.8, takes_every_slot=True) as jobs:
            assert await jobs.ready(20)
            both = [await sent(jobs, "Turns", count=count, seconds=0.05) for count in (60, 61)]
            for job in both:
                assert (await jobs.wait(job.id)).state is State.SUCCEEDED
                assert await attempts(jobs, job.id) == [1]

    run(case())


def test_a_missed_step_deadline_costs_the_worker_its_life_not_the_job(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path, [child()], step_deadline_s=1.0) as jobs:
            assert await jobs.ready(20)
            job = await sent(jobs, "Hang", unless=str(tmp_path / "hung"))
            assert (await jobs.wait(job.id)).state is State.SUCCEEDED
            assert await attempts(jobs, job.id) == [1, 2]
            assert "missed its step deadline" in reasons(await log(jobs, job))[0]

    run(case())


def test_a_node_that_ignores_a_cancel_is_killed_and_the_job_stays_cancelled(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path, [child()], cancel_deadline_s=0.2) as jobs:
            job = await sent(jobs, "Hang")
            await started(jobs, job)
            await jobs.cancel(job.id)
            assert (await jobs.wait(job.id)).state is State.CANCELLED
            assert ends(await log(jobs, job)) == 1
            assert (await jobs.wait((await sent(jobs)).id)).state is State.SUCCEEDED

    run(case())


def test_a_node_that_ignores_that_its_job_was_taken_does_not_keep_it_waiting(run: Runs, tmp_path: Path) -> None:
    """The job begins again once the worker has stopped the attempt that was taken, which this one never does."""

    async def case() -> None:
        async with service(tmp_path, [child()], cancel_deadline_s=0.2) as jobs:
            job = await sent(jobs, "Hang", unless=str(tmp_path / "hung"))
            await started(jobs, job)
            await until((tmp_path / "hung").exists)
            waiting = await jobs.store.lose(job.id, "another server did not see this one", attempt=1)
            jobs._dispatcher.taken(job.id, 1)  # as `Peers` does
            jobs._dispatcher.add(waiting, (await jobs.get(job.id)).request)
            done = await asyncio.wait_for(jobs.wait(job.id), 20)
            assert (done.state, done.attempt) == (State.SUCCEEDED, 2)

    run(case())


def test_a_long_encoding_that_is_cancelled_costs_nobody_else_an_attempt(run: Runs, tmp_path: Path) -> None:
    """It asks whether it is still wanted, so no deadline has to kill the worker that others use too."""

    async def case() -> None:
        settings = {"cancel_deadline_s": 0.5, "takes_every_slot": True}
        async with service(tmp_path, [child(slots=2)], **settings) as jobs:
            assert await jobs.ready(20)
            beside = await sent(jobs, count=100, seconds=0.02)
            long = await sent(jobs, "Encode", seconds=60.0)
            for job in (beside, long):
                await started(jobs, job)
            await asyncio.sleep(0.2)
            await jobs.cancel(long.id)
            assert (await jobs.wait(long.id)).state is State.CANCELLED
            assert (await jobs.wait(beside.id)).state is State.SUCCEEDED
            assert await attempts(jobs, beside.id) == [1]
            assert [worker.starts for worker in jobs.workers()] == [1]

    run(case())


def test_a_long_encoding_is_heard_of_before_its_worker_counts_as_hung(
    run: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "QUIET_S", 0.1)

    async def case() -> None:
        async with service(tmp_path, [here()], step_deadline_s=0.6) as jobs:
            job = await sent(jobs, "Encode", seconds=2.0)
            assert (await jobs.wait(job.id)).state is State.SUCCEEDED
            assert await attempts(jobs, job.id) == [1]

    run(case())


def test_two_workers_share_the_jobs(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path, [child(name="one"), child(name="two")]) as jobs:
            made = [await sent(jobs, count=1000, seconds=0.01) for _ in range(2)]
            await asyncio.gather(*(started(jobs, job) for job in made))
            assert {(await jobs.get(job.id)).worker for job in made} == {"one", "two"}
            await jobs.cancel_all()

    run(case())


def test_a_worker_that_cannot_start_is_named_with_its_reason(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path, [child("broken")], ready_wait_s=0.05) as jobs:
            while not jobs.workers()[0].last_error:
                await asyncio.sleep(0.02)
            with pytest.raises(NotAccepting, match="cannot start: ValueError: no such device"):
                await sent(jobs)
            assert not await jobs.ready(0.01)

    run(case())


def test_a_worker_that_does_not_start_three_times_gives_up_and_says_why(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path, [child("broken")]) as jobs:
            why = "worker did not start, 3 times in a row: cannot start: ValueError: no such device"
            assert await jobs.until_hopeless() == why

    run(case())


def test_a_worker_killed_while_it_starts_has_not_failed_to(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path, [child("slow")]) as jobs:
            for starts in (1, 2, 3):
                while (status := jobs.workers()[0]).starts < starts or status.pid is None:
                    await asyncio.sleep(0.01)
                os.kill(status.pid, signal.SIGKILL)
            assert await jobs.ready(30)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(jobs.until_hopeless(), 0.01)

    run(case())


def test_a_worker_that_speaks_nonsense_is_replaced(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path, [child()]) as jobs:
            job = await sent(jobs, "Babble", unless=str(tmp_path / "babbled"))
            assert (await jobs.wait(job.id)).state is State.SUCCEEDED
            assert "said something that cannot be read" in reasons(await log(jobs, job))[0]

    run(case())
