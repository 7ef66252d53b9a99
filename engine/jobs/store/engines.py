"""Connections to SQLite and PostgreSQL made alike: who begins when, how long a lock is waited for, one server each."""

import fcntl
import io
import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, create_engine, event, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from sigmagraph.engine.errors import StoreFailed, StoreInUse
from sigmagraph.engine.jobs.settings import StoreSettings
from sigmagraph.engine.jobs.store.fronts import ALONE

__all__ = ["DatabaseLock", "database_file", "engines", "identity", "migrate"]

LOG_PAGES = 4000
"""16 MB of SQLite's log before it goes into the file: a job changes 40 pages, mostly the same as the job before."""
MIGRATIONS = Path(__file__).parent / "migrations"


def engines(settings: StoreSettings) -> tuple[Engine, Engine]:
    """One engine to write with and one to read with."""
    if make_url(settings.url).get_backend_name() != "sqlite":
        both = create_engine(settings.url, pool_size=settings.readers + 1, pool_pre_ping=True)
        return both, both
    return _sqlite(settings, "BEGIN IMMEDIATE"), _sqlite(settings, "BEGIN")


def _sqlite(settings: StoreSettings, begin: str) -> Engine:
    """SQLite in WAL mode. The driver's own idea of when to begin is switched off: it skips reads and savepoints."""
    path = database_file(settings.url)
    if path is not None:
        _keep_private(path)
    engine = create_engine(settings.url, connect_args={"check_same_thread": False}, pool_reset_on_return=None)

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, record: Any) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {int(settings.lock_wait_s * 1000)}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if settings.survives_power_cut else 'NORMAL'}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def migrate(engine: Engine) -> None:
    """Bring the tables up to date."""
    from alembic import command  # here: half of the start-up time of a process that only reads settings
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            shown = engine.url.render_as_string(hide_password=True)
            raise StoreFailed(f"job store {shown}: was written by another version of sigmagraph ({error})") from error


def database_file(url: str) -> Path | None:
    """The file of an SQLite database; None where there is none."""
    made = make_url(url)
    name = made.database or ""
    is_file = made.get_backend_name() == "sqlite" and name not in ("", ":memory:") and not name.startswith("file:")
    return Path(name) if is_file else None


def identity(path: Path) -> tuple[int, int] | None:
    """Which file has this name now."""
    with suppress(OSError):
        found = path.stat()
        return found.st_dev, found.st_ino
    return None


def _keep_private(path: Path) -> None:
    """Secrets of webhooks stand in it: a new file is its owner's, and one that is there is nobody's beyond its group.

    SQLite gives its journal files the same rights.
    """
    with suppress(OSError):  # what is wrong with it, opening it tells
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        for file in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
            mode = file.stat().st_mode if file.exists() else 0
            if mode & 0o007:
                file.chmod(mode & 0o770)


class DatabaseLock:
    """One server per database: recovery would otherwise take running jobs away from a server that lives."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._file: io.IOBase | None = None
        self._connection: Connection | None = None

    def take(self) -> None:
        """Hold the database until `release` or the end of the process; raises `StoreInUse`."""
        is_taken = self._take_file() if self._url.get_backend_name() == "sqlite" else self._take_session()
        if not is_taken:
            self.release()
            raise StoreInUse(f"another server works on {self._url.render_as_string(hide_password=True)}")

    def _take_file(self) -> bool:
        path = Path(self._url.database or "")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.with_name(f"{path.name}.lock").open("ab")
        except OSError as error:
            raise StoreFailed(f"job store {path}: {error.strerror or error}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _take_session(self) -> bool:
        try:
            self._connection = create_engine(self._url, poolclass=NullPool).connect()
            query = text("SELECT pg_try_advisory_lock(:key)")
            is_taken = bool(self._connection.execute(query, {"key": ALONE}).scalar())
            self._connection.commit()
        except SQLAlchemyError as error:
            reason = getattr(error, "orig", None) or error
            raise StoreFailed(f"job store {self._url.render_as_string(hide_password=True)}: {reason}") from error
        return is_taken

    def release(self) -> None:
        """Let others have it."""
        if self._file is not None:
            self._file.close()
        if self._connection is not None:
            self._connection.close()
