"""Full disks, locked, damaged and absent databases: refusals that say why, and nothing accepted is lost."""

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sigmagraph.engine.errors import StoreFailed
from sigmagraph.engine.jobs.events import JobEvent
from sigmagraph.engine.jobs.job import State
from sigmagraph.engine.jobs.service import JobService
from sigmagraph.engine.jobs.settings import JobSettings, StoreSettings
from sigmagraph.engine.jobs.store.job_store import JobStore
from tests.jobs.serving import ends, here, log, sent, service, started, until

Runs = Callable[[Coroutine[Any, Any, Any]], Any]


def database(folder: Path) -> Path:
    return folder / "jobs.sqlite"


async def limit_pages(jobs: JobService, more: int | None) -> None:
    """Make the disk full, as far as this database can tell: it may grow by so many pages, or again without limit."""

    def limit(tx: Any) -> None:
        pages = tx.connection.exec_driver_sql("PRAGMA page_count").scalar()
        tx.connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + more if more is not None else 2**30}")

    await jobs.store.database.write(limit)


def test_a_full_disk_refuses_submissions_and_keeps_what_was_accepted(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path) as jobs:
            await jobs.pause()
            first = await sent(jobs)
            await limit_pages(jobs, 1)
            with pytest.raises(StoreFailed, match=r"jobs\.sqlite: database or disk is full"):
                await sent(jobs, salt="x" * 100_000)
            assert (await jobs.counts()).queued == 1
            await limit_pages(jobs, None)
            second = await sent(jobs)
            await jobs.resume()
            assert [(await jobs.wait(job.id)).state for job in (first, second)] == [State.SUCCEEDED] * 2

    run(case())


def test_what_a_run_says_is_kept_until_the_disk_has_room_again(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path) as jobs:
            job = await sent(jobs, count=300, seconds=0.002)
            await started(jobs, job)
            await limit_pages(jobs, 1)
            await asyncio.sleep(1)
            assert (await jobs.get(job.id)).state is State.RUNNING
            await limit_pages(jobs, None)
            done = await jobs.wait(job.id)
            events = list(await jobs.events(job.id, limit=5000))
            assert done.state is State.SUCCEEDED
            assert [event.number for event in events] == list(range(1, done.events + 1))
            assert (done.events > 300, ends(events)) == (True, 1)

    run(case())


def test_a_database_locked_for_a_while_delays_and_loses_nothing(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path) as jobs:
            running = await sent(jobs, count=20, seconds=0.01)
            await started(jobs, running)
            with closing(sqlite3.connect(database(tmp_path), isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                waiting = asyncio.create_task(sent(jobs))
                await asyncio.sleep(0.5)
                assert (await jobs.get(running.id)).state is State.RUNNING  # reading goes on
                assert not waiting.done()
                other.execute("ROLLBACK")
            second = await waiting
            assert [(await jobs.wait(job.id)).state for job in (running, second)] == [State.SUCCEEDED] * 2
            assert ends(await log(jobs, running)) == 1

    run(case())


def test_a_database_locked_too_long_refuses_submissions_and_still_ends_what_ran(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        store = StoreSettings(f"sqlite:///{database(tmp_path)}", lock_wait_s=0.1)
        jobs = JobService(JobSettings(store), [here()])
        await jobs.start()
        running = await sent(jobs, count=20, seconds=0.01)
        await started(jobs, running)
        with closing(sqlite3.connect(database(tmp_path), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreFailed, match="database is locked"):
                await sent(jobs)
            await asyncio.sleep(0.5)
            other.execute("ROLLBACK")
        assert (await jobs.wait(running.id)).state is State.SUCCEEDED
        await jobs.stop()

    run(case())


def test_events_are_published_in_the_order_and_number_of_the_log_even_after_retries(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        heard: list[int] = []
        store = StoreSettings(f"sqlite:///{database(tmp_path)}", lock_wait_s=0.05)
        jobs = JobService(JobSettings(store), [here()])
        await jobs.start()
        jobs.listen(lambda what: heard.append(what.number) if isinstance(what, JobEvent) else None)
        job = await sent(jobs, count=200, seconds=0.002)
        await started(jobs, job)
        with closing(sqlite3.connect(database(tmp_path), isolation_level=None)) as other:
            for _ in range(2):
                other.execute("BEGIN IMMEDIATE")
                await asyncio.sleep(0.15)
                other.execute("ROLLBACK")
                await asyncio.sleep(0.05)
        done = await jobs.wait(job.id)
        assert heard == list(range(1, done.events + 1))
        await jobs.stop()

    run(case())


def test_a_listener_that_raises_keeps_nobody_else_waiting(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path) as jobs:
            heard: list[object] = []

            def broken(what: object) -> None:
                raise RuntimeError("a listener of somebody's")

            jobs.listen(broken)
            jobs.listen(heard.append)
            job = await asyncio.wait_for(sent(jobs), 10)
            done = await jobs.wait(job.id, timeout_s=10)
            assert done.state is State.SUCCEEDED
            await until(lambda: len(heard) >= done.events)  # told a millisecond after it was written
            assert [event.number for event in heard if isinstance(event, JobEvent)] == list(range(1, done.events + 1))

    run(case())


@pytest.mark.parametrize("contents", [b"this is no database at all, whatever its name says\n" * 100])
def test_a_damaged_database_is_named_and_left_alone(run: Runs, tmp_path: Path, contents: bytes) -> None:
    database(tmp_path).write_bytes(contents)

    async def case() -> None:
        with pytest.raises(StoreFailed, match=r"jobs\.sqlite: file is not a database"):
            await JobStore(StoreSettings(f"sqlite:///{database(tmp_path)}")).open()

    run(case())
    assert database(tmp_path).read_bytes() == contents


def test_a_database_in_a_place_that_cannot_be_is_named(run: Runs, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def case() -> None:
        with pytest.raises(StoreFailed, match="file/jobs.sqlite: File exists"):
            await JobStore(StoreSettings(f"sqlite:///{tmp_path}/file/jobs.sqlite")).open()

    run(case())


def test_a_password_is_not_part_of_any_message(run: Runs) -> None:
    async def case() -> str:
        with pytest.raises(StoreFailed) as caught:
            await JobStore(StoreSettings("postgresql+psycopg://me:secret@127.0.0.1:1/none")).open()
        return str(caught.value)

    assert "secret" not in run(case())


def test_a_closed_store_says_so(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        store = JobStore(StoreSettings(f"sqlite:///{database(tmp_path)}"))
        with pytest.raises(StoreFailed, match="closed"):
            await store.owing()
        await store.open()
        await store.close()
        with pytest.raises(StoreFailed, match="closed"):
            await store.expire()
        await store.close()

    run(case())


@pytest.mark.parametrize("lost", ["jobs.sqlite", "jobs.sqlite.lock"])
def test_a_database_that_is_deleted_is_noticed_and_may_come_back(run: Runs, tmp_path: Path, lost: str) -> None:
    async def case() -> None:
        async with service(tmp_path) as jobs:
            done = await sent(jobs)
            assert (await jobs.wait(done.id)).state is State.SUCCEEDED
            (tmp_path / lost).rename(tmp_path / "elsewhere")
            with pytest.raises(StoreFailed, match=f"{lost} was deleted or replaced while the server works on it"):
                await sent(jobs)
            (tmp_path / lost).write_bytes(b"another's")
            with pytest.raises(StoreFailed, match="deleted or replaced"):
                await sent(jobs)
            (tmp_path / "elsewhere").replace(tmp_path / lost)
            assert (await jobs.wait((await sent(jobs)).id)).state is State.SUCCEEDED

    run(case())


def test_a_job_that_waits_for_a_refused_one_to_stop_begins_then(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path) as jobs:
            await jobs.wait((await sent(jobs)).id)
            database(tmp_path).rename(tmp_path / "elsewhere")
            with pytest.raises(StoreFailed):
                await sent(jobs, count=2, seconds=0.2)  # runs already while it is refused
            (tmp_path / "elsewhere").rename(database(tmp_path))
            waiting = await sent(jobs)
            assert waiting.state is State.QUEUED
            assert (await jobs.wait(waiting.id, timeout_s=10)).state is State.SUCCEEDED

    run(case())


def test_a_database_is_its_owners_alone(run: Runs, tmp_path: Path) -> None:
    def rights() -> dict[str, int]:
        return {
            path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("jobs.sqlite*") if "lock" not in path.name
        }

    async def case() -> None:
        async with service(tmp_path) as jobs:
            await sent(jobs)
            assert rights() == dict.fromkeys(("jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite-shm"), 0o600)
        database(tmp_path).chmod(0o644)
        async with service(tmp_path) as jobs:
            await sent(jobs)
            assert set(rights().values()) == {0o640}

    run(case())


def test_a_database_of_a_newer_version_is_refused_with_a_sentence(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path):
            pass
        with closing(sqlite3.connect(database(tmp_path))) as connection, connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(StoreFailed, match=r"jobs\.sqlite: was written by another version of sigmagraph .*'9999'"):
            async with service(tmp_path):
                pass

    run(case())


def test_a_row_that_was_bent_is_refused_with_a_sentence(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path) as jobs:
            await jobs.pause()
            await sent(jobs)
        with closing(sqlite3.connect(database(tmp_path))) as connection, connection:
            connection.execute("UPDATE jobs SET meta = '{half'")
        with pytest.raises(StoreFailed, match=r"jobs\.sqlite: holds a row that cannot be read: JSONDecodeError"):
            async with service(tmp_path):
                pass

    run(case())
