"""The service with a worker in this process: what adapters rely on."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import pytest

from sigmagraph.engine.errors import (
    IdempotencyConflict,
    IllegalMove,
    InvalidWorkflow,
    MissingFile,
    NotAccepting,
    UnknownJob,
)
from sigmagraph.engine.execution.events import NodeProgress, RunFailed, RunSucceeded
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.jobs.artifacts import Artifact, Artifacts
from sigmagraph.engine.jobs.events import Ended, JobEvent, Preview, Requeued, Started
from sigmagraph.engine.jobs.job import Idempotency, JobQuery, State, Submission, Webhook
from sigmagraph.engine.jobs.service import JobService
from sigmagraph.engine.jobs.settings import JobSettings
from tests.jobs import stubs
from tests.jobs.conftest import sqlite
from tests.jobs.serving import ends, here, log, sent, service, started
from tests.jobs.test_store import Time

Runs = Callable[[Coroutine[Any, Any, Any]], Any]


def test_a_job_runs_and_leaves_what_it_showed(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path) as jobs:
            job = await jobs.wait((await sent(jobs, "Steps", count=2)).id)
            assert job.state is State.SUCCEEDED
            assert job.outcome is not None
            assert job.outcome.outputs == {"end": {"shown": ["2 steps"]}}
            assert job.outcome.nodes["work"]["outcome"] == "executed"
            assert [event.number for event in await log(jobs, job)] == list(range(1, job.events + 1))
            assert ends(await log(jobs, job)) == 1

    run(case())


def test_the_end_is_stored_before_anyone_hears_of_it(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        seen: list[asyncio.Task[Any]] = []
        async with service(tmp_path) as jobs:

            def listener(what: JobEvent | Preview) -> None:
                if isinstance(what, JobEvent) and isinstance(what.body, RunSucceeded | Ended):
                    seen.append(asyncio.ensure_future(jobs.get(what.job_id)))

            jobs.listen(listener)
            await jobs.wait((await sent(jobs)).id)
            assert [(await waiter).state for waiter in seen] == [State.SUCCEEDED] * 2

    run(case())


def test_a_failing_node_fails_its_job_and_names_itself(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path) as jobs:
            job = await jobs.wait((await sent(jobs, "Fail", message="x" * 10_000)).id)
            assert job.state is State.FAILED
            assert job.failure is not None
            assert (job.failure.code, job.failure.node_id, job.failure.class_type) == ("node_failed", "work", "Fail")
            assert job.failure.exception_type == "ValueError"
            told = next(event.body for event in await log(jobs, job) if isinstance(event.body, RunFailed))
            assert len(told.inputs["message"][0]) < 5000
            assert (await jobs.wait((await sent(jobs)).id)).state is State.SUCCEEDED

    run(case())


def test_nothing_that_cannot_run_is_accepted(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path) as jobs:
            with pytest.raises(InvalidWorkflow, match="did you mean 'Steps'"):
                await sent(jobs, "Stebs")
            assert (await jobs.find(JobQuery())).total == 0

    run(case())


def test_outputs_that_can_run_do_and_the_others_are_named(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        graph = stubs.workflow(a=("Steps", {}), good=("Show", {"value": ["a", 0]}), bad=("Show", {}))
        async with service(tmp_path) as jobs:
            accepted = await jobs.submit(Submission(graph))
            assert [problem.node_id for problem in accepted.problems] == ["bad"]
            await jobs.wait(accepted.job.id)
            job = await jobs.get(accepted.job.id)
            assert job.request is not None
            assert job.request.targets == ["good"]
            assert job.outcome is not None
            assert set(job.outcome.outputs) == {"good"}

    run(case())


def test_a_queued_job_ends_when_cancelled_and_a_running_one_at_its_next_step(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path) as jobs:
            first, second = await sent(jobs, count=1000, seconds=0.01), await sent(jobs)
            await started(jobs, first)
            assert (await jobs.cancel(second.id)).state is State.CANCELLED
            assert (await jobs.cancel(first.id)).cancel_requested
            assert (await jobs.wait(first.id)).state is State.CANCELLED
            assert [ends(await log(jobs, job)) for job in (first, second)] == [1, 1]
            assert (await jobs.cancel(first.id)).state is State.CANCELLED
            assert (await jobs.counts()).remaining == 0

    run(case())


def test_cancelling_all_takes_what_was_chosen(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path) as jobs:
            first = await sent(jobs, count=1000, seconds=0.01, asked={"owner": "a"})
            await started(jobs, first)
            others = [await sent(jobs, asked={"owner": owner}) for owner in "aab"]
            assert await jobs.cancel_all("a", running=False) == 2
            assert (await jobs.counts("a")).running == 1
            assert await jobs.cancel_all(queued=False) == 1
            assert (await jobs.wait(first.id)).state is State.CANCELLED
            assert (await jobs.wait(others[2].id)).state is State.SUCCEEDED

    run(case())


def test_pause_holds_waiting_jobs_across_a_restart(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path) as jobs:
            await jobs.pause()
            job = await sent(jobs)
        async with service(tmp_path) as jobs:
            assert jobs.is_paused
            assert (await jobs.wait(job.id, timeout_s=0.05)).state is State.QUEUED
            await jobs.resume()
            assert (await jobs.wait(job.id)).state is State.SUCCEEDED

    run(case())


def test_jobs_run_in_the_order_asked_for(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        order: list[str] = []
        async with service(tmp_path) as jobs:
            await jobs.pause()
            for name in "abcd":
                await sent(jobs, asked={"job_id": name})
            await sent(jobs, asked={"job_id": "front", "front": True})
            await sent(jobs, asked={"job_id": "important", "priority": 1})
            await jobs.reorder("d", number=1.5)
            await jobs.reorder("c", priority=2)

            def listener(what: JobEvent | Preview) -> None:
                if isinstance(what, JobEvent) and isinstance(what.body, Started):
                    order.append(what.job_id)

            jobs.listen(listener)
            await jobs.resume()
            assert await jobs.drain()
            assert order == ["c", "important", "front", "a", "d", "b"]
            with pytest.raises(IllegalMove):
                await jobs.reorder("a", front=True)

    run(case())


def test_draining_takes_nothing_new_and_ends_what_waits(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path) as jobs:
            made = [await sent(jobs) for _ in range(3)]
            assert await jobs.drain()
            assert [(await jobs.get(job.id)).state for job in made] == [State.SUCCEEDED] * 3
            with pytest.raises(NotAccepting, match="draining"):
                await sent(jobs)
            await jobs.resume()
            assert (await jobs.wait((await sent(jobs)).id)).state is State.SUCCEEDED

    run(case())


def test_a_full_queue_refuses(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path, max_queued=3, max_queued_per_owner=2) as jobs:
            await jobs.pause()
            for owner in "aab":
                await sent(jobs, asked={"owner": owner})
            for owner, message in (("a", "the queue is full"), ("b", "the queue is full")):
                with pytest.raises(NotAccepting, match=message):
                    await sent(jobs, asked={"owner": owner})
            await jobs.cancel_all("b")
            with pytest.raises(NotAccepting, match="your share of the queue is used up: 2 of your jobs wait"):
                await sent(jobs, asked={"owner": "a"})

    run(case())


def test_a_repeated_request_is_answered_with_its_job(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        key = Idempotency.of("k", b"1")
        async with service(tmp_path) as jobs:
            first = await jobs.submit(Submission(stubs.shown("Steps"), idempotency=key))
            await jobs.drain()
            again = await jobs.submit(Submission(stubs.shown("Steps"), idempotency=key))
            assert (again.is_repeat, again.job.id) == (True, first.job.id)
            with pytest.raises(IdempotencyConflict):
                await jobs.submit(Submission(stubs.shown("Steps"), idempotency=Idempotency.of("k", b"2")))

    run(case())


def test_followers_see_every_event_once_wherever_they_start(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path) as jobs:
            job = await sent(jobs, count=400)

            async def followed(after: int, pause_s: float) -> list[int]:
                numbers = []
                async for event in jobs.follow(job.id, after=after):
                    numbers.append(event.number)
                    if pause_s and event.number % 50 == 0:
                        await asyncio.sleep(pause_s)
                return numbers

            early = await asyncio.gather(followed(0, 0), followed(0, 0.02), followed(100, 0))
            total = (await jobs.wait(job.id)).events
            assert total > 400
            late = await asyncio.gather(followed(0, 0), followed(total - 1, 0), followed(total, 0), followed(9999, 0))
            full = list(range(1, total + 1))
            assert early == [full, full, full[100:]]
            assert late == [full, [total], [], []]

    run(case())


def test_who_claims_to_have_heard_more_than_there_is_waits_for_the_end_alone(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path) as jobs:
            job = await sent(jobs, count=20, seconds=0.005)
            await started(jobs, job)
            async with asyncio.timeout(5):
                assert [event async for event in jobs.follow(job.id, after=9999)] == []
            assert (await jobs.get(job.id)).state.is_end

    run(case())


def test_previews_reach_listeners_and_never_the_log(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        seen: list[Preview] = []
        async with service(tmp_path) as jobs:
            end = jobs.listen(lambda what: seen.append(what) if isinstance(what, Preview) else None)
            job = await sent(jobs, count=2, salt="p", asked={"owner": "a"})
            await jobs.wait(job.id)
            end()
            await jobs.wait((await sent(jobs, count=2, salt="p")).id)
            progress = [event.body for event in await log(jobs, job) if isinstance(event.body, NodeProgress)]
        assert [event.data for event in seen] == [b"p0", b"p1"]
        assert (seen[0].owner, seen[0].node_id, seen[0].content_type, seen[0].meta) == (
            "a",
            "work",
            "text/plain",
            {"of": "test"},
        )
        assert [event.preview for event in progress] == [None, None]

    run(case())


def test_another_owners_job_is_not_there_on_any_path(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path) as jobs:
            job = await sent(jobs, asked={"owner": "a"})
            await jobs.wait(job.id)

            async def followed() -> None:
                async for _ in jobs.follow(job.id, "b"):
                    pass

            for attempt in (
                jobs.get(job.id, "b"),
                jobs.cancel(job.id, "b"),
                jobs.events(job.id, "b"),
                jobs.wait(job.id, "b"),
                jobs.retry(job.id, "b"),
                jobs.delete(job.id, "b"),
                jobs.reorder(job.id, "b", front=True),
                followed(),
            ):
                with pytest.raises(UnknownJob):
                    await attempt

    run(case())


def test_retrying_makes_a_new_job_of_an_ended_one(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path) as jobs:
            old = await sent(jobs, "Fail", asked={"owner": "a", "meta": {"client_id": "c"}})
            await jobs.wait(old.id)
            again = (await jobs.retry(old.id, "a")).job
            assert (again.retry_of, again.owner, again.meta) == (old.id, "a", {"client_id": "c"})
            assert (await jobs.wait(again.id)).state is State.FAILED
            await jobs.pause()
            with pytest.raises(IllegalMove, match="cannot become retried"):
                await jobs.retry((await sent(jobs)).id)

    run(case())


def test_a_graceful_stop_gives_back_what_does_not_finish_in_time(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path, stop_s=0.05) as jobs:
            job = await sent(jobs, count=20, seconds=0.05)
            await started(jobs, job)
        async with service(tmp_path) as jobs:
            assert (await jobs.wait(job.id)).state is State.SUCCEEDED
            events = await log(jobs, job)
        assert [event.body.attempt for event in events if isinstance(event.body, Started)] == [1, 2]
        assert sum(isinstance(event.body, Requeued) for event in events) == 1
        assert ends(events) == 1

    run(case())


def test_a_graceful_stop_lets_what_runs_finish(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path) as jobs:
            job, waits = await sent(jobs, count=4, seconds=0.05), await sent(jobs)
            await started(jobs, job)
        async with service(tmp_path, []) as jobs:
            assert (await jobs.get(job.id)).state is State.SUCCEEDED
            assert (await jobs.get(waits.id)).state is State.QUEUED

    run(case())


def test_several_slots_run_several_jobs_at_once(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path, [here(slots=3)], takes_every_slot=True) as jobs:
            made = [await sent(jobs, count=1000, seconds=0.01) for _ in range(4)]
            for job in made[:3]:
                await started(jobs, job)
            assert (await jobs.counts()).running == 3
            await jobs.cancel_all()
            assert await jobs.drain()

    run(case())


def test_without_a_worker_submissions_say_so(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path, [], ready_wait_s=0.05) as jobs:
            assert not await jobs.ready(0.01)
            with pytest.raises(NotAccepting, match="no worker has told its nodes"):
                await sent(jobs)

    run(case())


def test_outputs_are_kept_before_their_job_ends_and_for_as_long_as_asked(run: Runs, tmp_path: Path) -> None:
    picture = {"filename": "x.png", "subfolder": "s", "type": "output"}

    async def case() -> None:
        clock = Time()
        output = tmp_path / "output"
        (output / "s").mkdir(parents=True)
        (output / "s" / "x.png").write_bytes(b"picture")
        folders = Folders(tmp_path, tmp_path, output, tmp_path)
        settings = JobSettings(
            sqlite(tmp_path), artifacts_url=str(tmp_path / "kept"), keep_files_s=100.0, keep_s=10.0, sweep_every_s=0.01
        )
        jobs = JobService(settings, [here()], lambda owner: folders, clock=clock)
        await jobs.start()
        assert jobs.artifacts is not None
        job = await jobs.wait((await sent(jobs, "Wrote", entry=picture, asked={"owner": "me"})).id)
        assert job.state is State.SUCCEEDED
        kept = Artifact("me", "output", "s", "x.png")
        assert jobs.artifacts.read(kept) == b"picture"
        assert await jobs.owner_of_file("output", "s", "x.png") == "me"
        lost = await jobs.wait((await sent(jobs, "Wrote", entry=picture | {"filename": "y.png"})).id)
        assert lost.failure is not None
        assert (lost.state, lost.failure.code) == (State.FAILED, "missing_file")
        clock.now += 50
        while (await jobs.find(JobQuery())).total:
            await asyncio.sleep(0.01)
        assert await jobs.owner_of_file("output", "s", "x.png") == "me"
        clock.now += 60
        while await jobs.owner_of_file("output", "s", "x.png"):
            await asyncio.sleep(0.01)
        with pytest.raises(MissingFile):
            jobs.artifacts.read(kept)
        assert (output / "s" / "x.png").exists()
        await jobs.stop()

    run(case())


def test_what_fails_in_a_sweep_is_tried_again(run: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that another server moved, a store of files that is away for a while, a name that none can hold."""

    async def case() -> None:
        clock = Time()
        files = {"artifacts_url": str(tmp_path / "kept"), "keep_files_s": 100.0}
        jobs = JobService(JobSettings(sqlite(tmp_path), sweep_every_s=0.01, **files), [here()], clock=clock)
        assert jobs.artifacts is not None
        refused: list[Exception] = [IllegalMove("j", State.CANCELLED, State.EXPIRED)]
        away: list[Exception] = [RuntimeError("no such endpoint")]
        expire, delete = jobs.store.expire, jobs.artifacts.delete

        async def refuses_once() -> list[str]:
            while refused:
                raise refused.pop()
            return await expire()

        def is_away_once(artifact: Artifact) -> None:
            while away:
                raise away.pop()
            delete(artifact)

        monkeypatch.setattr(jobs.store, "expire", refuses_once)
        monkeypatch.setattr(jobs.artifacts, "delete", is_away_once)
        await jobs.start()
        names = ("a/b.png", "c.png")
        for name in names:
            entry = {"filename": name, "subfolder": "", "type": "temp"}
            assert (await jobs.wait((await sent(jobs, "Wrote", entry=entry)).id)).state is State.SUCCEEDED
        clock.now += 200
        async with asyncio.timeout(5):
            while any([await jobs.owner_of_file("temp", "", name) for name in names]):
                await asyncio.sleep(0.01)
        await jobs.stop()
        assert not refused
        assert not away

    run(case())


def test_a_job_whose_files_no_store_takes_fails(run: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def keep(*given: Any) -> None:
        raise RuntimeError("no such endpoint")

    async def case() -> None:
        monkeypatch.setattr(Artifacts, "keep", keep)
        folders = Folders(*[tmp_path] * 4)
        settings = JobSettings(sqlite(tmp_path), artifacts_url=str(tmp_path / "kept"))
        jobs = JobService(settings, [here()], lambda owner: folders)
        await jobs.start()
        entry = {"filename": "x.png", "subfolder": "", "type": "output"}
        job = await jobs.wait((await sent(jobs, "Wrote", entry=entry)).id, timeout_s=5)
        await jobs.stop(0.1)
        assert job.failure is not None
        assert (job.state, job.failure.code, job.failure.message) == (State.FAILED, "write_failed", "no such endpoint")

    run(case())


def test_a_webhook_is_told_when_its_job_ends(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        told: asyncio.Queue[bytes] = asyncio.Queue()

        async def post(url: str, body: bytes, headers: Mapping[str, str]) -> int:
            told.put_nowait(body)
            return 204

        async with service(tmp_path) as jobs:
            jobs.deliver(post, lambda job: {"job": job.id, "state": job.state})
            job = await sent(jobs, asked={"webhook": Webhook("https://a.example")})
            assert json.loads(await told.get())["data"]["state"] == "succeeded"
            assert (await jobs.get(job.id)).state is State.SUCCEEDED

    run(case())


def test_a_graph_is_shown_without_a_job_or_says_why_not(
    run: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sigmagraph.engine.jobs.check.SHOW_S", 0.3)

    async def case() -> None:
        async with service(tmp_path) as jobs:
            [shown] = (await jobs.show(stubs.shown("Steps", count=2))).values()
            assert shown == {"shown": ["2 steps"]}
            for kind, inputs, said in (
                ("Fail", {"message": "not today"}, "not today"),
                ("Steps", {"count": 100, "seconds": 0.05}, "longer than 0.3 s"),
                ("Nothing", {}, "Nothing"),
            ):
                with pytest.raises(InvalidWorkflow, match=said):
                    await jobs.show(stubs.shown(kind, **inputs))
            assert (await jobs.find(JobQuery(owner=None))).total == 0

    run(case())
