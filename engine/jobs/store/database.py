"""One database: a thread that writes, commits what is waiting in one go, and tells what happened; readers beside it.

Every write is one function of a `Tx`, atomic by itself. Events it adds are handed on after the commit, in the order
of commits, so nobody hears of what is not on disk. Knows nothing about what the tables mean.
"""

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine, Table, exists, select
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)

from sigmagraph.engine.errors import EngineError, StoreFailed
from sigmagraph.engine.jobs.events import JobEvent
from sigmagraph.engine.jobs.job import Job
from sigmagraph.engine.jobs.settings import StoreSettings
from sigmagraph.engine.jobs.store.engines import DatabaseLock, database_file, engines, identity, migrate
from sigmagraph.engine.jobs.store.fronts import News, ServerPlace, told
from sigmagraph.engine.jobs.store.single_rows import RowQuery, RowReader

__all__ = ["Database", "Posted", "Tx"]

T = TypeVar("T")
LOG = logging.getLogger("sigmagraph.jobs")
RETRY_S = 0.05
LONGEST_RETRY_S = 1.0
BATCH = 256

Publish = Callable[[Sequence[JobEvent], Sequence[Job]], None]


@dataclass(frozen=True, slots=True)
class Tx:
    """One write transaction: the connection, and what is to be published once it is committed.

    `ended` are jobs that nothing happens to any more, as a reader finds them from then on; `news` is what other
    servers on this database have to know beside the events.
    """

    connection: Connection
    events: list[JobEvent] = field(default_factory=list)
    ended: list[Job] = field(default_factory=list)
    news: list[News] = field(default_factory=list)


class _Refused(Exception):
    """A work without a savepoint refused; rolls its transaction back."""


@dataclass(slots=True, eq=False)
class Posted(Generic[T]):
    """One function to run; `is_sure` work is tried again until it succeeds or the database is closed.

    What comes `after` another is refused where that was: its turn comes once it is known what became of the other.
    """

    function: Callable[[Tx], T]
    is_sure: bool
    future: "asyncio.Future[T]"
    after: "Posted[Any] | None" = None
    result: T | None = None
    problem: Exception | None = None

    def run_bare(self, tx: Tx) -> None:
        """Run without a savepoint: a refusal takes back the whole transaction."""
        try:
            self._run(tx)
        except SQLAlchemyError:
            raise
        except Exception as refusal:  # as below
            self.problem = refusal
            raise _Refused from refusal

    def run(self, tx: Tx) -> None:
        """Run inside a savepoint: a refusal takes back this work alone."""
        before, savepoint = (len(tx.events), len(tx.ended), len(tx.news)), tx.connection.begin_nested()
        try:
            self._run(tx)
        except SQLAlchemyError:  # the connection's trouble, not this work's; a full disk leaves no savepoint either
            raise
        except Exception as refusal:  # noqa: BLE001  # whatever it is, it is the caller's to see; the writer lives on
            savepoint.rollback()
            del tx.events[before[0] :], tx.ended[before[1] :], tx.news[before[2] :]
            self.problem = refusal
        else:
            savepoint.commit()

    def _run(self, tx: Tx) -> None:
        if self.after is not None and self.after.problem is not None:
            raise self.after.problem
        self.result, self.problem = self.function(tx), None

    def answer(self) -> None:
        """Tell who waits, on the event loop."""
        if self.future.done():  # nobody waits any more
            return
        if self.problem is not None:
            self.future.set_exception(self.problem)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]  # there is one where there is no problem


class Database:
    """The store's connections. `publish` is called on the event loop with each commit's events, and what has ended."""

    def __init__(self, settings: StoreSettings, publish: Publish) -> None:
        self.settings, self._publish = settings, publish
        self._waiting: SimpleQueue[Posted[Any] | None] = SimpleQueue()
        self._again: deque[Posted[Any]] = deque()
        self._kept: Connection | None = None
        self._is_open = self._is_last = False
        self._give_up_at: float | None = None
        self._thread: Thread | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._rows: RowReader | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._files: dict[Path, tuple[int, int] | None] = {}
        self.place = ServerPlace(settings.url) if settings.has_peers else None

    async def open(self) -> None:
        """Take the lock, bring the tables up to date, start the writer."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._open)
        self._thread = Thread(target=self._write_all, name="store writer", daemon=True)
        self._thread.start()

    def _open(self) -> None:
        self._lock = DatabaseLock(self.settings.url)
        if self.place is not None:
            self.place.take()
        elif not self.settings.is_shared:
            self._lock.take()
        try:
            self._writer, self._reader = engines(self.settings)
            migrate(self._writer)
        except SQLAlchemyError as error:
            self._lock.release()
            raise _failed(self.settings.url, error) from error
        except StoreFailed:
            self._lock.release()
            raise
        path = database_file(self.settings.url)
        self._rows = RowReader(path) if path is not None else None
        names = [path, path.with_name(f"{path.name}.lock")] if path is not None and not self.settings.is_shared else []
        self._files = {name: identity(name) for name in names}
        self._readers = ThreadPoolExecutor(self.settings.readers, "store reader")
        self._is_open = True

    async def close(self, deadline_s: float = 10.0) -> None:
        """Write what is waiting, as far as that works within the deadline, and let go."""
        if not self._is_open:
            return
        self._is_open, self._give_up_at = False, time.monotonic() + deadline_s
        self._waiting.put(None)
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        if self._thread is not None:
            self._thread.join()
        if self._readers is not None:
            self._readers.shutdown()
        if self._rows is not None:
            self._rows.close()
        self._let_go()
        for connection in (self._writer, self._reader):
            connection.dispose()
        self._lock.release()
        if self.place is not None:
            self.place.release()

    def post(self, function: Callable[[Tx], T], *, is_sure: bool = True, after: Posted[Any] | None = None) -> Posted[T]:
        """Have a function run in a transaction; what is posted first is committed first. Call it on the event loop."""
        if not self._is_open or self._loop is None:
            raise StoreFailed("the job store is closed")
        work = Posted(function, is_sure, self._loop.create_future(), after)
        self._waiting.put(work)
        return work

    async def write(self, function: Callable[[Tx], T], *, is_sure: bool = False) -> T:
        """Run a function in a transaction and commit; raises what it raised, or `StoreFailed`."""
        return await self.post(function, is_sure=is_sure).future

    async def read(self, function: Callable[[Connection], T]) -> T:
        """Run a function on a reading connection."""
        if not self._is_open or self._readers is None or self._loop is None:
            raise StoreFailed("the job store is closed")
        return await self._loop.run_in_executor(self._readers, self._read, function)

    async def row(self, query: RowQuery, value: str) -> dict[str, Any] | None:
        """One row, read at once where the database is a file that is not in trouble, else by a reading connection."""
        if self._rows is not None and self._is_open:
            with suppress(sqlite3.Error, ValueError, TypeError):  # whatever it is, a reader waits, or says what it is
                return self._rows.row(query, value)

        def read(connection: Connection) -> dict[str, Any] | None:
            found = connection.execute(query.statement, {"value": value}).mappings().one_or_none()
            return None if found is None else dict(found)

        return await self.read(read)

    async def has_any(self, table: Table) -> bool:
        """Whether a table has rows, read as `row` is."""
        if self._rows is not None and self._is_open:
            with suppress(sqlite3.Error):
                return self._rows.has_any(table)
        return await self.read(lambda connection: bool(connection.execute(select(exists(table.select()))).scalar_one()))

    def lacks(self, query: RowQuery, value: str) -> bool:
        """Whether it is sure, without waiting, that there is no such row."""
        with suppress(sqlite3.Error, ValueError, TypeError):
            return self._rows is not None and self._is_open and self._rows.row(query, value) is None
        return False

    def _read(self, function: Callable[[Connection], T]) -> T:
        try:
            with self._reader.connect() as connection:
                return function(connection)
        except SQLAlchemyError as error:
            raise _failed(self.settings.url, error) from error
        except EngineError:
            raise
        except (ValueError, TypeError, LookupError) as error:
            reason = f"holds a row that cannot be read: {type(error).__name__}: {error}"
            raise StoreFailed(f"job store {_shown(self.settings.url)}: {reason}") from error

    def _write_all(self) -> None:
        """The writer thread."""
        wait_s = RETRY_S
        while batch := self._take():
            again = self._try(batch)
            if not again:
                wait_s = RETRY_S
                continue
            LOG.warning("the job store is in trouble; %d changes wait", len(again), extra={"waiting": len(again)})
            self._again.extendleft(reversed(again))
            time.sleep(wait_s)
            wait_s = min(LONGEST_RETRY_S, wait_s * 2)

    def _try(self, batch: Sequence[Posted[Any]]) -> Sequence[Posted[Any]]:
        """Commit all, or else each by itself; what is left has to be tried again."""
        try:
            self._commit(self._writer, batch)
        except SQLAlchemyError as error:
            if len(batch) == 1 or "locked" in str(error):
                return self._sort_out(batch, error)
        else:
            return []
        again: list[Posted[Any]] = []
        for work in batch:  # sure work keeps its order: what one job said comes before its end
            again += [work] if work.is_sure and again else self._try([work])
        return again

    def _take(self) -> list[Posted[Any]]:
        """What is waiting, at most a batch, first what is tried again; nothing once it is closed and all is written."""
        batch = [self._again.popleft() for _ in range(min(BATCH, len(self._again)))]
        with suppress(Empty):
            while len(batch) < BATCH and not self._is_last:
                work = self._waiting.get(block=not batch)
                self._is_last = work is None
                batch += [work] if work is not None else []
        return batch

    def _commit(self, engine: Engine, batch: Sequence[Posted[Any]]) -> None:
        self._see_that_it_is_there()
        try:
            with self._transaction(engine) as connection:
                tx = Tx(connection)
                for work in batch:
                    work.run_bare(tx)
                pictures = self._share(tx)
            self._have_shared(pictures)
            self._tell(tx, batch)
        except _Refused:
            self._tell(self._commit_others(engine, batch), batch)

    def _commit_others(self, engine: Engine, batch: Sequence[Posted[Any]]) -> Tx | None:
        """Once more, as one has refused, which is rare: each in its savepoint; nothing where it was alone."""
        if len(batch) == 1:
            return None
        with self._transaction(engine) as connection:
            tx = Tx(connection)
            for work in batch:
                work.run(tx)
            pictures = self._share(tx)
        self._have_shared(pictures)
        return tx

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        """A transaction. SQLite's connection is kept until something fails: taking it from the pool costs as much."""
        if engine.dialect.name != "sqlite":
            with engine.begin() as connection:
                yield connection
            return
        if self._kept is None:
            self._kept = engine.connect()
        try:
            with self._kept.begin():
                yield self._kept
        except SQLAlchemyError:
            self._let_go()
            raise

    def _let_go(self) -> None:
        if self._kept is not None:
            with suppress(SQLAlchemyError):
                self._kept.close()
            self._kept = None

    def _share(self, tx: Tx) -> int:
        """Other servers hear of it with the commit; how many pictures go along."""
        if self.place is None or not (tx.events or tx.news):
            return 0
        pictures = self.place.pictures.waiting()
        told(tx.connection, self.place.number, tx.events, tx.news, pictures)
        return len(pictures)

    def _have_shared(self, pictures: int) -> None:
        """That commit is made."""
        if self.place is not None:
            self.place.pictures.told(pictures)

    def _see_that_it_is_there(self) -> None:
        """SQLite writes on into a file that was deleted, and a second server would not find the lock."""
        for path, found in self._files.items():
            if identity(path) != found:
                problem = OSError(f"{path.name} was deleted or replaced while the server works on it; put it back")
                raise OperationalError("", None, problem)

    def _tell(self, tx: Tx | None, batch: Sequence[Posted[Any]]) -> None:
        """Have the loop know, in one go."""
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, tx, batch)

    def _deliver(self, tx: Tx | None, batch: Sequence[Posted[Any]]) -> None:
        """Publish first, answer second: who gets the answer may rely on the event having been seen."""
        if tx is not None and tx.events:
            self._publish(tx.events, tx.ended)
        for work in batch:
            work.answer()

    def _sort_out(self, batch: Sequence[Posted[Any]], error: SQLAlchemyError) -> Sequence[Posted[Any]]:
        """Nothing of the batch happened. Sure work waits for another try, the rest is refused."""
        is_over = _is_final(error) or (self._give_up_at is not None and time.monotonic() > self._give_up_at)
        problem = _failed(self.settings.url, error)
        problem.__cause__ = error
        refused = [work for work in batch if is_over or not work.is_sure]
        for work in refused:
            work.problem = problem
        self._tell(None, refused)
        return [work for work in batch if work.is_sure and not is_over]


def _is_final(error: SQLAlchemyError) -> bool:
    """Whether another try would fail the same way: the database refuses what it was given, not to be there."""
    is_refused = isinstance(error, DataError | IntegrityError | ProgrammingError | NotSupportedError)
    return is_refused or not isinstance(error, DBAPIError)


def _failed(url: str, error: SQLAlchemyError) -> StoreFailed:
    reason = str(getattr(error, "orig", None) or error).strip()
    return StoreFailed(f"job store {_shown(url)}: {reason}")


def _shown(url: str) -> str:
    """The URL without its password."""
    return url.split("@")[-1] if "@" in url else url
