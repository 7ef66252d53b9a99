"""Two servers on one PostgreSQL: one queue, one truth, whichever of them is asked, and whichever of them is killed."""

import asyncio
import json
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import create_engine, text

from sigmagraph.engine.errors import IdempotencyConflict, InsufficientCredits, StoreFailed, StoreInUse
from sigmagraph.engine.graph.workflow import Workflow
from sigmagraph.engine.jobs.events import Ended, JobEvent, Preview, Started
from sigmagraph.engine.jobs.job import Idempotency, JobQuery, State, Submission
from sigmagraph.engine.jobs.service import JobService
from sigmagraph.engine.jobs.settings import JobSettings, StoreSettings
from sigmagraph.engine.jobs.store.pictures import PicturesHeard, PicturesToTell, notes
from sigmagraph.engine.jobs.workers.inprocess import InProcessWorker
from sigmagraph.engine.jobs.workers.worker import Picture, Worker
from sigmagraph.engine.server.access.rates import Buckets
from sigmagraph.engine.units import CREDIT
from tests.jobs import stubs
from tests.jobs.conftest import sqlite
from tests.jobs.fronts import Client, Fronts
from tests.jobs.serving import ends, here, log, sent, started, until

Runs = Callable[[Coroutine[Any, Any, Any]], Any]
OWNERS, JOBS, KILLS = 20, 200, 16


@asynccontextmanager
async def server(store: StoreSettings, worker: Worker | None = None, **settings: Any) -> AsyncIterator[JobService]:
    """One of them, with a worker of its own."""
    jobs = JobService(JobSettings(store, **settings), [worker or here()])
    await jobs.start()
    try:
        yield jobs
    finally:
        await jobs.stop(0.5)


def cut_off(url: str, which: str) -> int:
    """End such sessions of the database; how many there were."""
    engine = create_engine(url)
    with engine.begin() as connection:
        ended = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND "
        )
        count = len(connection.execute(text(ended + which)).all())
    engine.dispose()
    return count


def test_sqlite_is_not_shared(tmp_path: Path, run: Runs) -> None:
    async def case() -> None:
        with pytest.raises(StoreFailed, match="several servers can share PostgreSQL alone"):
            async with server(replace(sqlite(tmp_path), has_peers=True)):
                pass

    run(case())


def test_servers_share_a_rate() -> None:
    now = 0.0
    fronts = [Buckets(lambda: now, lambda: 2) for _ in range(2)]
    taken = [front.take("ann", 10).is_allowed for front in fronts for _ in range(10)]
    assert sum(taken) == 10


@pytest.mark.postgres
def test_a_server_that_shares_and_one_that_does_not_exclude_each_other(shared: StoreSettings, run: Runs) -> None:
    async def case() -> None:
        alone = replace(shared, has_peers=False)
        async with server(shared), server(shared):
            with pytest.raises(StoreInUse):
                async with server(alone):
                    pass
        async with server(alone):
            with pytest.raises(StoreInUse, match="shares with nobody"):
                async with server(shared):
                    pass

    run(case())


@pytest.mark.postgres
def test_a_job_of_one_server_is_seen_followed_and_cancelled_by_another(shared: StoreSettings, run: Runs) -> None:
    async def case() -> None:
        async with server(shared) as one, server(shared) as other:
            job = await sent(one, count=1000, seconds=0.01)
            await started(other, job)
            await until(lambda: other._counts.counts(None).running == 1)  # it is told a moment after it can be read
            assert (await other.cancel(job.id)).cancel_requested
            for front in (other, one):
                assert (await asyncio.wait_for(front.wait(job.id), 5)).state is State.CANCELLED
            await until(lambda: other._counts.counts(None).remaining == 0)
            assert ends(await log(one, job)) == 1
            assert await log(one, job) == await log(other, job)

    run(case())


@pytest.mark.postgres
def test_a_server_that_heard_nothing_for_a_while_tells_what_it_missed(shared: StoreSettings, run: Runs) -> None:
    """The database cuts who listens off; a job of the other server ends before they listen again."""

    async def case() -> None:
        async with server(shared) as one, server(shared) as other:
            await until(lambda: one.servers == 2)
            job = await sent(one, count=30, seconds=0.02)
            await started(one, job)
            ends_here = one._dispatcher.runs(job.id)
            deaf = other if ends_here else one
            await started(deaf, job)
            told: list[JobEvent] = []
            deaf.listen(lambda what: told.append(what) if isinstance(what, JobEvent) else None)
            first = (deaf._counts.last_event(job.id) or 0) + 1
            waiting = asyncio.create_task(deaf.wait(job.id))
            assert await asyncio.to_thread(cut_off, shared.url, "query LIKE 'LISTEN%'") == 2
            done = await asyncio.wait_for(waiting, 10)
            assert done.state is State.SUCCEEDED
            assert [event.number for event in told] == list(range(first, done.events + 1))
            assert deaf._counts.counts(None).remaining == 0

    run(case())


@pytest.mark.postgres
def test_a_server_that_heard_nothing_learns_of_a_cancelled_job_and_of_a_pause(shared: StoreSettings, run: Runs) -> None:
    """Both are told by a note alone: there is no event of them to read afterwards."""

    async def case() -> None:
        async with server(shared) as one, server(shared) as other:
            await until(lambda: one.servers == 2)
            job = await sent(one, count=150, seconds=0.04)
            await started(one, job)
            deaf, asked = (one, other) if one._dispatcher.runs(job.id) else (other, one)
            await started(deaf, job)
            assert await asyncio.to_thread(cut_off, shared.url, "query LIKE 'LISTEN%'") == 2
            await asked.cancel(job.id)
            await asked.pause()
            done = await asyncio.wait_for(asked.wait(job.id), 5)
            assert done.state is State.CANCELLED
            await until(lambda: deaf.is_paused)

    run(case())


@pytest.mark.postgres
def test_running_jobs_survive_a_restart_of_the_database(shared: StoreSettings, run: Runs) -> None:
    """Who is back first sees nobody else, and once had the other's jobs begin again."""

    async def case() -> None:
        async with server(shared) as one, server(shared) as other:
            await until(lambda: one.servers == 2 == other.servers)
            jobs = [await sent(one, count=80, seconds=0.05) for _ in range(2)]
            for job in jobs:
                await started(one, job)
            await asyncio.to_thread(cut_off, shared.url, "true")
            for job in jobs:
                done = await asyncio.wait_for(one.wait(job.id), 30)
                assert (done.state, done.attempt) == (State.SUCCEEDED, 1)
                assert ends(await log(other, job)) == 1

    run(case())


@pytest.mark.postgres
@pytest.mark.parametrize(("is_result", "seconds"), [(False, 0.25), (True, 0.0)])
def test_pictures_of_a_job_are_seen_at_every_server(
    shared: StoreSettings, run: Runs, is_result: bool, seconds: float
) -> None:
    """Progress as it goes on; every result, also of a job that is over at once, between its start and its end."""

    def drawn(value: Any) -> Picture:
        return Picture("image/png", str(value).encode() * 40_000, {"is_result": is_result})

    async def case() -> None:
        drawing = InProcessWorker(replace(stubs.build({}), encode_preview=drawn))
        async with server(shared, drawing) as one, server(shared) as other:
            await until(lambda: one.servers == 2)
            await other.drain()
            heard: dict[JobService, list[JobEvent | Preview]] = {one: [], other: []}
            for front, seen in heard.items():
                front.listen(seen.append)
            await one.submit(Submission(stubs.shown("Steps", count=6, seconds=seconds, salt="step"), "ann"))
            await until(lambda: all(ended(seen) for seen in heard.values()))
        (shown, told) = ([what for what in seen if isinstance(what, Preview)] for seen in heard.values())
        assert len(shown) == 6
        assert told == (shown if is_result else [picture for picture in shown if picture in told])
        assert len(told) >= 3
        events = [what.body for what in heard[other] if isinstance(what, JobEvent)]
        places = [heard[other].index(picture) for picture in told]
        begun = next(at for at, what in enumerate(heard[other]) if isinstance(getattr(what, "body", None), Started))
        assert begun < places[0]
        assert places[-1] < len(heard[other]) - 1
        assert isinstance(events[-1], Ended)

    def ended(seen: list[JobEvent | Preview]) -> bool:
        return bool(seen) and isinstance(getattr(seen[-1], "body", None), Ended)

    run(case())


def test_of_progress_a_few_pictures_a_second_go_to_other_servers_and_every_result() -> None:
    now = 0.0
    waiting = PicturesToTell(lambda: now)
    for at in range(20):
        now = at / 20
        for job, meta in (("a", {}), ("b", {}), ("c", {"is_result": True})):
            waiting.put(Preview(job, "ann", "1", "image/png", bytes([at]), meta))
    sent = Counter(preview.job_id for preview in waiting.waiting())
    assert sent == {"a": 5, "b": 5, "c": 20}
    waiting.told(29)
    assert [preview.data for preview in waiting.waiting()] == [bytes([19])]
    waiting.put(Preview("d", "ann", "1", "image/png", bytes(17 << 20), {"is_result": True}))
    assert len(waiting.waiting()) == 1


def test_a_picture_in_pieces_is_whole_again_whatever_comes_between() -> None:
    chance = random.Random(5)
    pictures = [Preview(f"job{n}", "ann", "7", "image/png", chance.randbytes(9000 * n), {"at": n}) for n in range(4)]
    heard = PicturesHeard()
    whole = [list(notes(server, picture)) for server, picture in enumerate(pictures)]
    assert max(len(note.encode()) for pieces in whole for note in pieces) < 8000
    heard.hear(json.loads(whole[3][0]))  # its server died; the number is another's now
    for at in range(max(map(len, whole))):
        for pieces in whole:
            for note in pieces[at : at + 1]:
                heard.hear(json.loads(note))
    assert [heard.take(picture.job_id) for picture in pictures] == [[picture] for picture in pictures]
    assert heard.take("job3") == []


def test_pieces_of_two_pictures_are_never_one() -> None:
    """A server that was cut off for a moment did not hear the end of one and the beginning of the next."""
    one, other = (list(notes(1, Preview("j", "ann", "7", "image/png", bytes([n]) * 9000, {}))) for n in range(2))
    heard = PicturesHeard()
    for note in (*one[:-1], other[-1]):
        heard.hear(json.loads(note))
    assert heard.take("j") == []


def test_no_two_notes_are_equal_though_pictures_are() -> None:
    """PostgreSQL delivers equal notes of one transaction once."""
    picture = Preview("a", "ann", "7", "image/png", bytes(20_000), {"is_result": True})
    sent = [note for _ in range(2) for note in notes(1, picture)]
    assert len(set(sent)) == len(sent) > 8
    heard = PicturesHeard()
    for note in dict.fromkeys(sent):
        heard.hear(json.loads(note))
    assert heard.take("a") == [picture, picture]


def test_pictures_of_jobs_that_nothing_more_is_told_of_are_dropped() -> None:
    heard = PicturesHeard()
    for at in range(1001):
        for note in notes(1, Preview(f"job{at}", "ann", "7", "image/png", b"x", {})):
            heard.hear(json.loads(note))
    assert [len(heard.take(f"job{at}")) for at in (0, 1, 1000)] == [0, 1, 1]


@pytest.mark.postgres
def test_servers_take_from_one_queue_and_no_job_twice(shared: StoreSettings, run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        notes = tmp_path / "notes"
        async with server(shared) as one, server(shared) as other:
            jobs = [await sent(one, count=4, seconds=0.02, salt=str(n)) for n in range(10)]
            jobs += [await sent(other, "Note", file=str(notes), text=str(n)) for n in range(20)]
            done = [await asyncio.wait_for(other.wait(job.id), 20) for job in jobs]
            assert {job.state for job in done} == {State.SUCCEEDED}
            assert {job.attempt for job in done} == {1}
            assert {job.worker for job in done} == {"1/here", "2/here"}
            assert sorted(notes.read_text().split(), key=int) == [str(n) for n in range(20)]
            await until(lambda: len(one._dispatcher.queue) == len(other._dispatcher.queue) == 0)

    run(case())


@pytest.mark.postgres
def test_places_and_pauses_hold_for_all(shared: StoreSettings, run: Runs) -> None:
    async def case() -> None:
        async with server(shared) as one, server(shared) as other:
            await one.pause()
            await until(lambda: other.is_paused)
            jobs = [await sent(front) for front in (one, other, one)]
            await until(lambda: len(one._dispatcher.queue) == len(other._dispatcher.queue) == 3)
            await other.reorder(jobs[2].id, front=True)
            await until(lambda: one._dispatcher.queue.next_id() == jobs[2].id)
            await other.resume()
            await until(lambda: not one.is_paused)
            for job in jobs:
                assert (await asyncio.wait_for(one.wait(job.id), 5)).state is State.SUCCEEDED

    run(case())


@pytest.mark.postgres
def test_credit_and_idempotency_hold_across_servers(shared: StoreSettings, run: Runs) -> None:
    async def case() -> None:
        async with server(shared) as one, server(shared) as other:
            await one.pause()
            await until(lambda: other.is_paused)
            _, ann = await one.accounts.create("ann", credits=3 * CREDIT)

            def ask(front: JobService, **more: Any) -> Any:
                return front.submit(Submission(stubs.shown("Steps"), ann.id, cost=CREDIT, **more))

            twice = await asyncio.gather(*(ask(front, idempotency=Idempotency("k", "d")) for front in (one, other) * 4))
            assert len({accepted.job.id for accepted in twice}) == 1
            assert sum(not accepted.is_repeat for accepted in twice) == 1
            with pytest.raises(IdempotencyConflict):
                await ask(other, idempotency=Idempotency("k", "another"))
            asked = await asyncio.gather(*(ask(front) for front in (one, other) * 4), return_exceptions=True)
            assert Counter(type(answer) for answer in asked)[InsufficientCredits] == 6
            assert (await other.accounts.get(ann.id)).held == 3 * CREDIT

    run(case())


def steps(chance: random.Random) -> Workflow:
    """Some work, no two alike."""
    inputs = {"count": chance.randint(1, 20), "seconds": 0.02, "salt": str(chance.random())}
    return stubs.workflow(work=("Steps", inputs), end=("Show", {"value": ["work", 0]}))


@pytest.mark.slow
@pytest.mark.postgres
def test_two_servers_of_which_one_is_killed_now_and_then_lose_double_and_show_nothing(
    shared: StoreSettings, tmp_path: Path
) -> None:
    """200 jobs of 20 owners over HTTP, 16 kills: each job ends once, is paid once, and only its owner has seen it."""
    chance = random.Random(3)

    async def case() -> None:
        async with server(shared) as first:
            made = [await first.accounts.create(f"owner{n}", credits=(JOBS + 1) * CREDIT) for n in range(OWNERS)]
        per_owner = JOBS // OWNERS
        wanted = {
            account.id: [str(uuid.UUID(int=chance.getrandbits(128))) for _ in range(per_owner)] for _, account in made
        }
        fronts = Fronts(shared.url, tmp_path)
        async with AsyncExitStack() as stack:
            stack.callback(fronts.end)
            fronts.begin()
            session = await stack.enter_async_context(aiohttp.ClientSession())
            clients = [Client(secret, fronts, session, random.Random(n)) for n, (secret, _) in enumerate(made)]
            async with asyncio.TaskGroup() as tasks:
                killer = tasks.create_task(fronts.kill_at_random(chance, KILLS))
                sending = [
                    tasks.create_task(client.work({job_id: steps(client.chance) for job_id in wanted[account.id]}))
                    for client, (_, account) in zip(clients, made, strict=True)
                ]
                await asyncio.gather(*sending)
                killer.cancel()
            for client, (_, account), (_, other) in zip(clients, made, [*made[1:], made[0]], strict=True):
                assert client.shown == set(wanted[account.id])
                for path in (f"/jobs/{wanted[other.id][0]}", f"/jobs/{wanted[other.id][0]}/events"):
                    assert (await client.ask("GET", path))[0] == 404
        print(f"{fronts.kills.total()} kills: {dict(fronts.kills)}")  # noqa: T201  # for who reads the run's log
        assert min(fronts.kills[0], fronts.kills[1]) >= 2
        async with server(shared) as last:
            page = await last.find(JobQuery(limit=1000))
            assert {job.id: job.owner for job in page.jobs} == {
                job_id: owner for owner, job_ids in wanted.items() for job_id in job_ids
            }
            assert Counter(job.state for job in page.jobs) == {State.SUCCEEDED: JOBS}
            assert max(job.attempt for job in page.jobs) > 1, "nothing was lost, so nothing was tested"
            for job in page.jobs:
                events = await log(last, job)
                assert [event.number for event in events] == list(range(1, job.events + 1))
                assert ends(events) == 1
                assert isinstance(events[-1].body, Ended)
                starts = [event.body.attempt for event in events if isinstance(event.body, Started)]
                assert starts == list(range(1, job.attempt + 1))
            for _, account in made:
                found = await last.accounts.get(account.id)
                assert (found.spent, found.held) == (per_owner * CREDIT, 0)
                entries = await last.accounts.ledger(account.id, limit=1000)
                assert len({entry.job_id for entry in entries}) == len(entries) == per_owner + 1

    asyncio.run(asyncio.wait_for(case(), 540))
