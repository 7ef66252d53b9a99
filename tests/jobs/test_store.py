"""The store: the same laws on SQLite and PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from sigmagraph.engine.errors import (
    BadValue,
    DuplicateJob,
    IdempotencyConflict,
    IllegalMove,
    StoreFailed,
    StoreInUse,
    UnknownJob,
    UnknownKey,
)
from sigmagraph.engine.execution.events import NodeFinished, NodeProgress, NodeStarted, RunSucceeded
from sigmagraph.engine.graph.workflow import Workflow
from sigmagraph.engine.jobs.billing.accounts import Accounts
from sigmagraph.engine.jobs.events import Body, Cause, Ended, JobEvent, Queued, Requeued, Started
from sigmagraph.engine.jobs.job import (
    ENDED,
    Failure,
    Idempotency,
    JobQuery,
    Outcome,
    Request,
    State,
    Submission,
    Webhook,
)
from sigmagraph.engine.jobs.queue import Queue
from sigmagraph.engine.jobs.settings import StoreSettings
from sigmagraph.engine.jobs.store import log, searching, transitions
from sigmagraph.engine.jobs.store.engines import engines, migrate
from sigmagraph.engine.jobs.store.job_store import JobStore
from sigmagraph.engine.jobs.store.rows import inserted
from sigmagraph.engine.jobs.store.tables import METADATA

Runs = Callable[[Coroutine[Any, Any, Any]], Any]
OPEN = frozenset({State.QUEUED, State.RUNNING})
WORK = Request({"1": {"class_type": "Show", "inputs": {"value": "\0 ü \ud800", "x": float("inf")}}}, ["1"], {"a": [1]})


def submission(**changes: Any) -> Submission:
    return Submission(Workflow({}), **changes)


class Time:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def opened(settings: StoreSettings, **options: Any) -> AsyncIterator[tuple[JobStore, list[JobEvent]]]:
    heard: list[JobEvent] = []

    def publish(events: Sequence[JobEvent]) -> None:
        heard.extend(events)

    store = JobStore(settings, publish, **options)
    await store.open()
    try:
        yield store, heard
    finally:
        await store.close()


def test_a_job_reads_back_as_it_was_given(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, _):
            asked = submission(owner="a", meta={"client_id": "c"}, priority=2, expires_s=60.0, cost=0, source="comfy")
            job, is_repeat = await store.submit(asked, WORK)
            found = await store.get(asked.job_id, "a")
        assert not is_repeat
        assert found.request == WORK
        assert (found.meta, found.priority, found.source) == ({"client_id": "c"}, 2, "comfy")
        assert found.expires_at is not None
        assert found.expires_at - found.created_at == pytest.approx(60)
        assert job.state is found.state is State.QUEUED

    run(case())


def test_what_the_database_refuses_is_told_as_sqlalchemy_does(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, _):
            job, _ = await store.submit(submission(), WORK)
            event = {"job_id": job.id, "number": 1, "at": 0.0, "type": "queued", "body": {"number": 1.0}}
            row = inserted(submission(job_id=job.id), WORK, 1.0, 0.0)
            for refused in (
                lambda tx: log.INSERT_EVENTS.run(tx.connection, [event]),
                lambda tx: transitions.INSERT_JOB.rows(tx.connection, row),
                lambda tx: log.INSERT_EVENTS.rows(tx.connection, {**event, "number": None}),
            ):
                with pytest.raises(StoreFailed) as caught:
                    await store.database.write(refused)
                assert isinstance(caught.value.__cause__, IntegrityError)
            assert [found.body for found in await store.events(job)] == [Queued(job.number)]

    run(case())


def test_a_job_outlives_its_store(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, _):
            await store.submit(submission(job_id="x"), WORK)
        async with opened(store_settings) as (store, _):
            assert (await store.get("x")).request == WORK

    run(case())


def test_the_log_is_numbered_without_gaps_and_equals_what_was_published(
    run: Runs, store_settings: StoreSettings
) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, heard):
            job, _ = await store.submit(submission(job_id="x"), WORK)
            await store.begin("x", "w")
            await store.append("x", [NodeProgress("1", 1, 2, object()), NodeProgress("1", 2, 2)])
            await store.append("x", [NodeFinished("1", "Show", "1", "executed", 3.0, {"shown": [1]})])
            outcome = Outcome({"1": {"shown": [1]}}, {"1": {"outcome": "executed"}})
            await store.end("x", State.SUCCEEDED, outcome=outcome, tail=[RunSucceeded()])
            stored = await store.events(job)
            later = await store.events(job, after=4)
            found = await store.get("x")
        assert [event.number for event in stored] == list(range(1, 8))
        kinds = [Queued, Started, NodeProgress, NodeProgress, NodeFinished, RunSucceeded, Ended]
        assert [type(event.body) for event in stored] == kinds
        assert stored[3:] == heard[3:]
        assert later == stored[4:]
        assert stored[-1].body == Ended(State.SUCCEEDED)
        assert (found.events, found.outcome) == (7, outcome)

    run(case())


def test_every_move_that_is_not_legal_is_refused_and_changes_nothing(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, _):
            await store.submit(submission(job_id="x"), WORK)
            with pytest.raises(IllegalMove, match="'x' is queued; it cannot become succeeded"):
                await store.end("x", State.SUCCEEDED)
            await store.begin("x", "w")
            with pytest.raises(IllegalMove):
                await store.begin("x", "w")
            await store.end("x", State.FAILED, failure=Failure("node_failed", "no", "1", "Show"))
            before = await store.get("x")
            for state in State:
                with pytest.raises(IllegalMove):
                    await store.end("x", state)
            with pytest.raises(IllegalMove):
                await store.lose("x", "gone")
            assert await store.get("x") == before
            assert before.failure == Failure("node_failed", "no", "1", "Show")

    run(case())


def test_an_id_is_taken_once(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, _):
            results = await asyncio.gather(
                *(store.submit(submission(job_id="x"), WORK) for _ in range(8)), return_exceptions=True
            )
            assert sum(isinstance(result, DuplicateJob) for result in results) == 7
            assert len(await store.by_state(State.QUEUED)) == 1

    run(case())


def test_many_submitters_lose_nothing_and_number_everything_once(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, heard):
            made = await asyncio.gather(*(store.submit(submission(owner=f"o{i % 5}"), WORK) for i in range(100)))
            page = await store.find(JobQuery(limit=1000))
            front, _ = await store.submit(submission(front=True), WORK)
        assert {job.id for job in page.jobs} == {job.id for job, _ in made} == {event.job_id for event in heard[:100]}
        assert sorted(job.number for job, _ in made) == [float(number) for number in range(1, 101)]
        assert front.number == -101

    run(case())


def test_the_front_is_before_everything_of_its_owner_and_of_nobody_else(
    run: Runs, store_settings: StoreSettings
) -> None:
    """Also where one less is the same number: at -9e299 two moves to the front were equal once."""

    async def case() -> None:
        async with opened(store_settings) as (store, _):
            for name in ("a1", "a2", "a3", "b1", "b2"):
                await store.submit(submission(owner=name[0], job_id=name), WORK)
            await store.place("a1", "a", -9e299, False, None)
            numbers = [-9e299] + [
                (await store.place(name, "a", None, True, None)).number for name in ("a2", "a3", "a1")
            ]
            assert all(later < earlier for earlier, later in pairwise(numbers)), numbers
            assert (await store.place("b2", "b", None, True, None)).number == -6.0
            last, _ = await store.submit(submission(owner="c", number=-1e300), WORK)
            assert (await store.place(last.id, "c", None, True, None)).number < -1e300

    run(case())


def test_an_owners_own_priority_orders_its_own_jobs(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, _):
            queue = Queue()
            for owner, rank in (("a", 0), ("b", 0), ("b", 1000), ("b", -1000), ("b", 1), ("b", 0)):
                made, _ = await store.submit(
                    submission(owner=owner, job_id=f"{owner}{rank}{len(queue)}", own_priority=rank), WORK
                )
                assert made.priority == 0
                queue.put(made)
            order = []
            while (taken := queue.take()) is not None:
                order.append(taken.id)
                queue.done(taken.id)
            assert order == ["a00", "b10002", "b14", "b01", "b05", "b-10003"]

    run(case())


def test_another_owners_job_is_not_there(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, _):
            await store.submit(submission(job_id="x", owner="a"), WORK)
            for attempt in (
                store.get("x", "b"),
                store.request_cancel("x", "b"),
                store.place("x", "b", 1.0, False, None),
                store.forget("x", "b"),
            ):
                with pytest.raises(UnknownJob, match="there is no job 'x'"):
                    await attempt
            assert (await store.find(JobQuery(owner="b"))).total == 0
            assert (await store.find(JobQuery("b", OPEN))).total == 0
            assert (await store.find(JobQuery("a", OPEN))).total == 1

    run(case())


def test_the_same_key_and_body_gives_the_same_job_for_a_day(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        clock = Time()
        key = Idempotency.of("k", b"body")
        async with opened(store_settings, clock=clock) as (store, _):
            first, _ = await store.submit(submission(idempotency=key), WORK)
        async with opened(store_settings, clock=clock) as (store, _):
            clock.now += 86_399
            again, is_repeat = await store.submit(submission(idempotency=key), WORK)
            assert (again.id, is_repeat) == (first.id, True)
            with pytest.raises(IdempotencyConflict, match="another request"):
                await store.submit(submission(idempotency=Idempotency.of("k", b"other")), WORK)
            _, is_repeat = await store.submit(submission(idempotency=key, owner="someone else"), WORK)
            assert not is_repeat
            clock.now += 2
            late, is_repeat = await store.submit(submission(idempotency=key), WORK)
            assert (late.id != first.id, is_repeat) == (True, False)

    run(case())


def test_concurrent_equal_requests_make_one_job(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        key = Idempotency.of("k", b"body")
        async with opened(store_settings) as (store, _):
            made = await asyncio.gather(*(store.submit(submission(idempotency=key), WORK) for _ in range(20)))
            assert len({job.id for job, _ in made}) == 1
            assert sum(not is_repeat for _, is_repeat in made) == 1

    run(case())


def test_a_lost_attempt_is_queued_again_until_it_has_cost_too_much(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, _):
            job, _ = await store.submit(submission(job_id="x"), WORK)
            for attempt in (1, 2):
                assert (await store.begin("x", "w")).attempt == attempt
                assert (await store.lose("x", "killed", Cause.JOB, 3)).state is State.QUEUED
            await store.begin("x", "w")
            ended = await store.lose("x", "killed", Cause.JOB, 3)
            assert ended.state is State.FAILED
            assert ended.failure == Failure("worker_lost", "gave up after 3 attempts: killed")
            log = await store.events(job)
        assert [event.body for event in log if isinstance(event.body, Requeued)] == [
            Requeued(1, "killed", "job"),
            Requeued(2, "killed", "job"),
        ]
        assert sum(isinstance(event.body, Ended) for event in log) == 1

    run(case())


def test_only_deaths_at_the_furthest_place_count(run: Runs, store_settings: StoreSettings) -> None:
    a5, a9, a = at("a", 5), at("a", 9), [*at("a", 0), finished("a")]
    lives = [
        (a5, 1),  # further than nothing
        (a9, 1),  # further
        (a9, 2),  # no further
        (a5, 2),  # an earlier life came past this place
        ([], 2),  # and past the beginning
        ([*a, *at("b", 2)], 1),
        ([*a, *at("b", 2)], 2),
        ([*a, *at("b", 1)], 2),
        ([*a, *at("b", 2)], 3),
    ]

    async def case() -> None:
        async with opened(store_settings) as (store, _):
            await store.submit(submission(job_id="x"), WORK)
            for bodies, strikes in lives:
                await store.begin("x", "w")
                await store.append("x", bodies)
                state = (await store.lose("x", "killed", Cause.JOB, 3)).state
                assert state is (State.FAILED if strikes == 3 else State.QUEUED)

    run(case())


def test_a_death_where_an_earlier_attempt_stood_for_much_longer_does_not_count(
    run: Runs, store_settings: StoreSettings
) -> None:
    lives = [(10.0, 1), (4.0, 1), (6.0, 2), (30.0, 3)]  # seconds in one node, and how many deaths count then

    async def case() -> None:
        clock = Time()
        async with opened(store_settings, clock=clock) as (store, _):
            await store.submit(submission(job_id="x"), WORK)
            for seconds, strikes in lives:
                await store.begin("x", "w")
                await store.append("x", at("a", 0))
                clock.now += seconds
                state = (await store.lose("x", "killed", Cause.JOB, 3)).state
                assert state is (State.FAILED if strikes == 3 else State.QUEUED)

    run(case())


def test_an_attempt_that_lost_its_lease_neither_ends_the_job_nor_loses_it(
    run: Runs, store_settings: StoreSettings
) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, _):
            _, account = await Accounts(store).create("o", credits=10)
            await store.submit(submission(job_id="x", owner=account.id, cost=4), WORK)
            await store.begin("x", "frozen")
            assert (await store.lose("x", "silent")).state is State.QUEUED
            late = partial(transitions.end, job_id="x", to=State.SUCCEEDED, at=9.0, attempt=1)
            for move in (late, partial(late, attempt=2)):  # while it waits nobody has it
                with pytest.raises(IllegalMove, match="attempt 1 is the latest"):
                    await store.database.write(move)
            await store.begin("x", "other")
            again = partial(
                transitions.lose, job_id="x", reason="", at=9.0, cause=Cause.SERVER, max_deaths=3, attempt=1
            )
            for move in (late, again):
                with pytest.raises(IllegalMove, match="moved by attempt 1: attempt 2 is the latest"):
                    await store.database.write(move)
            assert (await store.database.write(partial(late, attempt=2))).state is State.SUCCEEDED
            ended = [event for event in await store.events(await store.get("x"), 0) if isinstance(event.body, Ended)]
            assert len(ended) == 1
            assert (await Accounts(store).get(account.id)).spent == 4

    run(case())


async def loses(store: JobStore, cause: Cause, times: int) -> State:
    """So many attempts, each lost at the same place."""
    for _ in range(times):
        await store.begin("x", "w")
        await store.append("x", at("a", 0))
        state = (await store.lose("x", "killed", cause, 3)).state
    return state


def test_what_a_server_lost_before_does_not_make_one_death_of_a_worker_final(
    run: Runs, store_settings: StoreSettings
) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, _):
            await store.submit(submission(job_id="x"), WORK)
            assert await loses(store, Cause.SERVER, 60) is State.QUEUED
            assert await loses(store, Cause.JOB, 2) is State.QUEUED
            assert await loses(store, Cause.JOB, 1) is State.FAILED

    run(case())


def test_a_worker_killed_by_somebody_is_no_strike_but_fifty_of_them_are_enough(
    run: Runs, store_settings: StoreSettings
) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, _):
            await store.submit(submission(job_id="x"), WORK)
            assert await loses(store, Cause.OUTSIDE, 49) is State.QUEUED
            assert await loses(store, Cause.SERVER, 1) is State.QUEUED
            assert await loses(store, Cause.OUTSIDE, 1) is State.FAILED

    run(case())


def at(node_id: str, value: float) -> list[Body]:
    """A node begun and taken to a step."""
    begun: list[Body] = [NodeStarted(node_id, "Steps", node_id)]
    return [*begun, NodeProgress(node_id, value, 10)] if value else begun


def finished(node_id: str) -> NodeFinished:
    return NodeFinished(node_id, "Steps", node_id, "executed", 1.0)


def test_a_server_that_stops_is_no_strike_against_its_jobs(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, _):
            await store.submit(submission(job_id="x"), WORK)
            for _ in range(10):
                await store.begin("x", "w")
                job = await store.lose("x", "server stopped")
            assert (job.state, job.attempt) == (State.QUEUED, 10)

    run(case())


def test_a_job_that_was_to_stop_does_not_run_again(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, _):
            await store.submit(submission(job_id="x"), WORK)
            await store.begin("x", "w")
            marked = await store.request_cancel("x")
            assert (marked.state, marked.cancel_requested) == (State.RUNNING, True)
            assert (await store.lose("x", "killed")).state is State.CANCELLED
            assert (await store.request_cancel("x")).state is State.CANCELLED

    run(case())


def test_lists_page_and_sort(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        clock = Time()
        async with opened(store_settings, clock=clock) as (store, _):
            for name, number in (("a", 3.0), ("b", 1.0), ("c", 2.0), ("d", 1.0)):
                await store.submit(submission(job_id=name, number=number), WORK)
                clock.now += 1
            for name in ("d", "a"):
                await store.begin(name, "w")
                clock.now += 1
                await store.end(name, State.SUCCEEDED)

            async def listed(**query: Any) -> str:
                return "".join(job.id for job in (await store.find(JobQuery(**query))).jobs)

            assert await listed() == "dcba"
            assert await listed(newest_first=False, offset=1, limit=2) == "bc"
            assert await listed(by="number", newest_first=False) == "bdca"
            assert await listed(states=frozenset({State.QUEUED}), by="number", newest_first=False) == "bc"
            assert await listed(states=ENDED, by="ended_at") == "ad"
            assert await listed(sooner_than=(0, 2.0)) == "db"
            assert await listed(sooner_than=(-1, 0.0)) == "dcba"
            assert await listed(sooner_than=(1, 9.0)) == ""
            assert (await store.find(JobQuery(sooner_than=(0, 3.0), limit=0))).total == 3
            created = {job.id: job.created_at for job in (await store.find(JobQuery())).jobs}
            assert await listed(older_than=(created["c"], "c"), limit=1) == "b"
            assert await listed(older_than=(created["c"], "gone")) == "ba"
            clock.now = created["a"]  # a clock that was set back: one moment twice
            await store.submit(submission(job_id="e"), WORK)
            assert await listed() == "dcbea"
            assert await listed(older_than=(created["a"], "e")) == "a"
            assert await listed(older_than=(created["a"], "a")) == ""
            assert (await store.find(JobQuery(limit=1))).total == 5
            assert (await store.find(JobQuery())).jobs[0].request is None
            assert (await store.find(JobQuery(with_request=True))).jobs[0].request == WORK
            await store.submit(submission(job_id="theirs", owner="other"), WORK)  # the same moment again
            assert await listed(older_than=(created["a"], "theirs")) == "ea"
            assert await listed(owner="local", older_than=(created["a"], "theirs")) == ""  # as of a job that is not

    run(case())


def test_a_request_that_waits_too_long_expires(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        clock = Time()
        async with opened(store_settings, clock=clock) as (store, _):
            await store.submit(submission(job_id="short", expires_s=10.0), WORK)
            await store.submit(submission(job_id="long"), WORK)
            clock.now += 9
            assert await store.expire() == []
            clock.now += 1
            assert await store.expire() == ["short"]
            assert (await store.get("short")).state is State.EXPIRED
            assert (await store.get("long")).state is State.QUEUED

    run(case())


def test_ended_jobs_are_forgotten_by_age_and_by_number_with_all_they_left(
    run: Runs, store_settings: StoreSettings
) -> None:
    async def case() -> None:
        clock = Time()
        async with opened(store_settings, clock=clock) as (store, _):
            for name in "abcd":
                keep = {"keep_s": 9.0} if name == "d" else {}
                job, _ = await store.submit(submission(job_id=name, webhook=Webhook("http://x"), **keep), WORK)
                await store.begin(name, "w")
                await store.end(name, State.SUCCEEDED)
                clock.now += 1
            await store.submit(submission(job_id="waits"), WORK)
            assert await store.forget_old(keep_s=100.0, keep_jobs=2) == 1
            with pytest.raises(UnknownJob):
                await store.get("a")
            assert await store.forget_old(keep_s=100.0, keep_jobs=2) == 0
            clock.now += 10
            assert await store.forget_old(keep_s=100.0, keep_jobs=3) == 1
            assert await store.events(job) == []
            clock.now += 100
            assert await store.forget_old(keep_s=100.0, keep_jobs=3) == 2
            assert [found.id for found in (await store.find(JobQuery())).jobs] == ["waits"]

    run(case())


def test_only_ended_jobs_can_be_deleted(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, _):
            await store.submit(submission(job_id="x"), WORK)
            with pytest.raises(IllegalMove, match="cannot become deleted"):
                await store.forget("x")
            await store.request_cancel("x")
            await store.forget("x")
            assert (await store.find(JobQuery())).total == 0

    run(case())


def test_files_belong_to_who_made_them(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        picture = {"filename": "x_00001_.png", "subfolder": "s", "type": "output"}
        async with opened(store_settings) as (store, _):
            await store.submit(submission(job_id="x", owner="a"), WORK)
            await store.begin("x", "w")
            await store.append("x", [NodeFinished("9", "SaveImage", "9", "executed", 1.0, {"images": [picture]})])
            assert await store.owner_of_file("output", "s", "x_00001_.png") == "a"
            assert await store.owner_of_file("temp", "s", "x_00001_.png") is None

    run(case())


@pytest.mark.parametrize("odd", ["", "\0", "\ud800", "x" * 10_000, "'; --", "ü"])
def test_ids_that_cannot_be_are_not_there(run: Runs, store_settings: StoreSettings, odd: str) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, _):
            for attempt in (store.get(odd), store.request_cancel(odd), store.forget(odd), store.begin(odd, "w")):
                with pytest.raises(UnknownJob):
                    await attempt
            with pytest.raises(UnknownKey):
                await Accounts(store).authenticate(odd)
            with pytest.raises(UnknownKey):
                await Accounts(store).get(odd)

    run(case())


def test_file_names_that_are_no_text_are_kept_and_found(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        names = ["a\0b", "\udcff", "ü ☃", "x" * 5000]
        files = [{"filename": name, "type": "a kind that is too long for its column"} for name in names]
        async with opened(store_settings) as (store, _):
            job, _ = await store.submit(submission(job_id="x", owner="a"), WORK)
            await store.begin("x", "w")
            ui = {"images": files, "text": ["\0\ud800"]}
            await store.append("x", [NodeFinished("9", "S", "9", "executed", 1.0, ui)])
            for file in files:
                assert await store.owner_of_file(file["type"][:16], "", file["filename"]) == "a"
            stored = (await store.events(job, after=-5))[-1].body
            assert isinstance(stored, NodeFinished)
            assert stored.ui == ui
            assert await store.events(job, after=10**30) == []

    run(case())


def test_a_second_server_on_the_same_database_is_refused(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        async with opened(store_settings):
            with pytest.raises(StoreInUse, match="another server works on"):
                await JobStore(store_settings).open()
        async with opened(store_settings) as (store, _):
            assert (await store.find(JobQuery(states=OPEN))).total == 0

    run(case())


def test_facts_are_kept(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, _):
            assert await store.fact("paused") is None
            await store.remember("paused", True)
            await store.remember("paused", False)
        async with opened(store_settings) as (store, _):
            assert await store.fact("paused") is False

    run(case())


def test_migrations_make_exactly_the_tables_that_are_declared(store_settings: StoreSettings) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    writer, reader = engines(store_settings)
    migrate(writer)
    migrate(writer)
    with reader.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    for reached in (writer, reader):
        reached.dispose()


def test_jobs_are_found_by_what_their_nodes_were_given_and_by_when(run: Runs, store_settings: StoreSettings) -> None:
    def asked(sampler: str, seed: int, model: str, text: str = "") -> Request:
        sampled = {"sampler_name": sampler, "scheduler": "karras", "seed": seed, "steps": 42, "note": text}
        nodes = {"1": {"class_type": "L", "inputs": {"ckpt_name": model}}, "2": {"class_type": "K", "inputs": sampled}}
        return Request(nodes, ["2"])

    async def case() -> None:
        clock = Time()
        began = clock.now
        async with opened(store_settings, clock=clock) as (store, _):
            for name, request in {
                "a": asked("euler", 42, "SD3/Large.safetensors"),
                "b": asked("euler_ancestral", 421, "demo.safetensors", '"seed":42, "sampler_name":"euler"'),
                "c": asked("Euler@2", 7, "demo.safetensors", "Large.safetensors"),
                "d": asked("heun", 2**64 - 3, 'odd "[(100%_\\ e\u0301.safetensors'),
            }.items():
                await store.submit(submission(job_id=name), request)
                clock.now += 10

            async def found(since: float | None = None, until: float | None = None, **fields: str) -> str:
                query = JobQuery(fields=fields, since=since, until=until, newest_first=False)
                page = await store.find(query)
                assert page.total == len(page.jobs)
                return "".join(job.id for job in page.jobs)

            assert await found(sampler="euler") == "ac"
            assert await found(sampler="euler@2") == "c"
            assert await found(sampler="EULER_ancestral") == "b"
            assert await found(seed="42") == "a"
            assert await found(seed=str(2**64 - 3)) == "d"
            assert await found(model="large") == "a"
            assert await found(model="demo", sampler="euler") == "c"
            assert await found(model='"[(100%_\\ e\u0301') == "d"
            assert await found(schedule="karras") == "abcd"
            assert await found(schedule="karra") == ""
            assert await found(model="euler") == ""
            assert await found(since=began + 10, until=began + 30) == "bc"
            assert await found(until=began + 10, schedule="karras") == "a"
            for fields in ({"sampler": ""}, {"seed": "1" * 256}, {"colour": "red"}):
                with pytest.raises(BadValue, match="sampler, schedule, model, seed"):
                    JobQuery(fields=fields)

    run(case())


def test_a_search_leaves_out_what_is_very_large_and_ends_in_time(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, _):
            for name, size in (("small", 1000), ("large", searching.LONGEST)):
                inputs = {"ckpt_name": "demo", "note": "x" * size}
                await store.submit(submission(job_id=name), Request({"1": {"class_type": "L", "inputs": inputs}}, []))
            for query in (JobQuery(text="xxx"), JobQuery(fields={"model": "demo"}), JobQuery(longest_request=2000)):
                assert [job.id for job in (await store.find(query)).jobs] == ["small"], query
            assert (await store.find(JobQuery())).total == 2
            with pytest.raises(BadValue, match="text"):
                JobQuery(text="x" * 256)

    run(case())
    writer, reader = engines(store_settings)
    for_ever = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with reader.connect() as connection:
        with pytest.raises(BadValue, match="created_after"), searching.within(connection, 0.1):
            connection.exec_driver_sql(for_ever)
        connection.rollback()
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    for reached in (writer, reader):
        reached.dispose()


def test_what_comes_after_a_refused_row_is_refused_though_another_job_has_its_id(
    run: Runs, store_settings: StoreSettings
) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, _):
            mine = submission(job_id="mine")
            await store.submit(mine, WORK, "worker")
            row = store.post(mine, WORK, "worker")
            end = partial(transitions.end, job_id="mine", to=State.SUCCEEDED, at=store.clock(), attempt=1)
            after = store.database.post(end, after=row)
            for posted in (row, after):
                with pytest.raises(DuplicateJob):
                    await posted.future
            assert (await store.get("mine")).state is State.RUNNING
            assert (await store.database.post(end).future).state is State.SUCCEEDED

    run(case())
