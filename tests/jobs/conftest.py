"""Stores to test with: SQLite in a temporary folder, PostgreSQL where a URL is given."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import create_engine, text

from sigmagraph.engine.jobs.settings import StoreSettings

T = TypeVar("T")
POSTGRES = "SIGMAGRAPH_TEST_POSTGRES"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store_settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreSettings]:
    if request.param == "sqlite":
        yield sqlite(tmp_path)
        return
    with _emptied() as url:
        yield StoreSettings(url, lock_wait_s=2)


@pytest.fixture
def shared() -> Iterator[StoreSettings]:
    """An empty database that servers share."""
    with _emptied() as url:
        yield StoreSettings(url, lock_wait_s=2, has_peers=True)


@contextmanager
def _emptied() -> Iterator[str]:
    """The URL of a PostgreSQL that is empty afterwards."""
    url = os.environ.get(POSTGRES)
    if not url:
        pytest.fail(f"{POSTGRES} names no database; run tests/jobs/postgres.sh")
    yield url
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()


def sqlite(folder: Path) -> StoreSettings:
    return StoreSettings(f"sqlite:///{folder}/jobs.sqlite", lock_wait_s=2, survives_power_cut=False)


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, T]], T]:
    """Runs one coroutine to its end, within a time no test needs."""

    def until_done(coroutine: Coroutine[Any, Any, T]) -> T:
        async def bounded() -> T:
            return await asyncio.wait_for(coroutine, 50)

        return asyncio.run(bounded())

    return until_done
