"""Several servers on one PostgreSQL: each has a number while it lives, and hears what the others commit.

A number is a lock of a database session, so it is free the moment its server dies. A job that runs names its server's
number before the worker's: `3/worker`. What a transaction did is told to the others by NOTIFY, which PostgreSQL sends
once it is committed, in the order of commits.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from sigmagraph.engine.errors import StoreFailed, StoreInUse
from sigmagraph.engine.jobs.events import JobEvent, Preview
from sigmagraph.engine.jobs.store.pictures import PicturesToTell, notes

__all__ = ["ALONE", "News", "ServerPlace", "front_of", "told"]

LOG = logging.getLogger("sigmagraph.jobs")
ALONE = 0x5347_4A4F_4253  # "SGJOBS"
"""Held by one server that works alone, or shared by those that do not."""
NUMBERS = 0x5347_4652  # "SGFR"
CLAIMS = 0x5347_434C  # "SGCL"
CHANNEL = "sigmagraph_jobs"
MOST = 1000
LARGEST_NOTE = 7000
"""Bytes; PostgreSQL refuses 8,000."""
LOOK_S = 0.5
TRY_AGAIN_S = 1.0

News = tuple[str, str]
"""What is no event: `job` and its id, `gone` and nothing (ended jobs were deleted), `fact` and its name."""
Heard = Callable[[dict[str, Any]], None]
"""Gets `{"events": [[job, owner, first, last], ...], "news": [[kind, name], ...]}`, a piece of a picture, or
`{"missed": true}`."""


def front_of(worker: str) -> int:
    """The number of the server whose worker this is; 0 where it worked alone."""
    number, is_shared, _ = worker.partition("/")
    return int(number) if is_shared and number.isdecimal() else 0


def told(
    connection: Connection,
    number: int,
    events: Sequence[JobEvent],
    news: Sequence[News],
    pictures: Sequence[Preview] = (),
) -> None:
    """Have the others know what this transaction did, if it is committed; pictures come before their events."""
    spans: dict[str, list[Any]] = {}
    for event in events:
        span = spans.setdefault(event.job_id, [event.job_id, event.owner, event.number, event.number])
        span[3] = event.number
    parts = [{"events": [span]} for span in spans.values()] + [{"news": [entry]} for entry in dict.fromkeys(news)]
    pieces = (note for picture in pictures for note in notes(number, picture))
    telling = text("SELECT pg_notify(:channel, note) FROM unnest(CAST(:notes AS text[])) AS note")
    connection.execute(telling, {"channel": CHANNEL, "notes": [*pieces, *_packed(number, parts)]})


def _packed(number: int, parts: Sequence[dict[str, Any]]) -> Iterator[str]:
    """As many parts in a note as it holds."""
    note: dict[str, Any] = {}
    for part in parts:
        ((kind, values),) = part.items()
        grown = note | {kind: [*note.get(kind, ()), *values]}
        if note and len(json.dumps(grown)) > LARGEST_NOTE:
            yield json.dumps(note | {"from": number})
            grown = dict(part)
        note = grown
    if note:
        yield json.dumps(note | {"from": number})


class ServerPlace:
    """This server among those of its database. All but `number` and `pictures` blocks: call it on a thread."""

    def __init__(self, url: str) -> None:
        self.number = 0
        self.pictures = PicturesToTell()
        self._url = make_url(url)
        self._engine: Engine | None = None
        self._session: Connection | None = None
        self._claims: set[str] = set()
        self._one_at_a_time = Lock()
        self._over = Event()
        self._thread: Thread | None = None

    def take(self) -> None:
        """Be one of them; raises `StoreInUse` where a server works alone, `StoreFailed` where there is no database."""
        if self._url.get_backend_name() != "postgresql":
            raise StoreFailed(f"job store {self._shown}: several servers can share PostgreSQL alone")
        try:
            self._engine = self._engine or create_engine(self._url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
            session = self._engine.connect()
            for name, value in (("idle", 10), ("interval", 5), ("count", 3)):  # a machine without power is gone in 25 s
                session.execute(text(f"SET tcp_keepalives_{name} = {value}"))
            if not session.execute(text("SELECT pg_try_advisory_lock_shared(:key)"), {"key": ALONE}).scalar():
                session.close()
                raise StoreInUse(f"a server that shares with nobody works on {self._shown}")
            wanted = [self.number] if self.number else []
            self.number = next(number for number in (*wanted, *range(1, MOST)) if _lock(session, number))
            self._session = session
        except SQLAlchemyError as error:
            raise self._failed(error) from error

    def living(self) -> set[int]:
        """The numbers of all that live; raises `StoreFailed` where this session is gone, and then takes a new one."""
        query = text(
            "SELECT objid FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database "
            "WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND classid = :key "
            "AND datname = current_database()"
        )
        with self._one_at_a_time:
            try:
                if self._session is None:
                    self.take()
                assert self._session is not None
                return {int(number) for number in self._session.execute(query, {"key": NUMBERS}).scalars()}
            except SQLAlchemyError as error:
                self._lose()
                raise self._failed(error) from error

    def claim(self, names: Sequence[str], most: int) -> set[str]:
        """Those of all these names that are this server's while it lives: what it had, and free ones up to `most`.

        What is not among them is let go. Raises `StoreFailed` where the session is gone, and all claims with it.
        """
        with self._one_at_a_time:
            if self._session is None:
                raise StoreFailed(f"job store {self._shown}: not connected")
            try:
                for name in self._claims.difference(names):
                    self._unclaim(self._session, name)
                for name in names:
                    if (
                        len(self._claims) < most
                        and name not in self._claims
                        and _lock(self._session, _key(name), CLAIMS)
                    ):
                        self._claims.add(name)
                return set(self._claims)
            except SQLAlchemyError as error:
                self._lose()
                raise self._failed(error) from error

    def unclaim(self, name: str) -> None:
        """Another may have this now. Where the session is gone, so is the claim."""
        with self._one_at_a_time:
            if self._session is not None and name in self._claims:
                with suppress(SQLAlchemyError):
                    self._unclaim(self._session, name)

    def _unclaim(self, session: Connection, name: str) -> None:
        session.execute(text("SELECT pg_advisory_unlock(:kind, :number)"), {"kind": CLAIMS, "number": _key(name)})
        self._claims.discard(name)

    def _lose(self) -> None:
        """The session is gone, and what was locked in it."""
        session, self._session = self._session, None
        self._claims.clear()
        if session is not None:
            session.invalidate()
            session.close()

    def listen(self, heard: Heard) -> None:
        """Have `heard` called with what others say, on a thread, from when this returns until `release`."""
        ready = Event()
        self._thread = Thread(target=self._listen, args=(heard, ready), name="store listener", daemon=True)
        self._thread.start()
        if not ready.wait(10):
            raise StoreFailed(f"job store {self._shown}: LISTEN takes more than 10 s")

    def release(self) -> None:
        """Be none of them any more."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        if self._session is not None:
            self._session.close()
        if self._engine is not None:
            self._engine.dispose()

    def _listen(self, heard: Heard, ready: Event) -> None:
        while not self._over.is_set():
            try:
                with create_engine(self._url, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect() as connection:
                    connection.execute(text(f"LISTEN {CHANNEL}"))
                    if ready.is_set():
                        heard({"missed": True})
                    ready.set()
                    self._pass_on(connection, heard)
            except SQLAlchemyError as error:
                LOG.warning("what other servers do is not heard: %s", self._failed(error))
                self._over.wait(TRY_AGAIN_S)

    def _pass_on(self, connection: Connection, heard: Heard) -> None:
        driver: Any = connection.connection.driver_connection
        while not self._over.is_set():
            for note in driver.notifies(timeout=LOOK_S, stop_after=1):
                said = json.loads(note.payload)
                if said["from"] != self.number:
                    heard(said)
            if driver.closed or driver.broken:
                connection.execute(text("SELECT 1"))  # raises as SQLAlchemy has it

    @property
    def _shown(self) -> str:
        return self._url.render_as_string(hide_password=True)

    def _failed(self, error: SQLAlchemyError) -> StoreFailed:
        return StoreFailed(f"job store {self._shown}: {str(getattr(error, 'orig', None) or error).strip()}")


def _lock(session: Connection, number: int, kind: int = NUMBERS) -> bool:
    query = text("SELECT pg_try_advisory_lock(:kind, :number)")
    return bool(session.execute(query, {"kind": kind, "number": number}).scalar())


def _key(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), signed=True)
