"""A row read on the event loop is the row as it was last committed, by whomever, and is what a reader would give."""

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sigmagraph.engine.errors import StoreFailed, UnknownKey
from sigmagraph.engine.jobs.billing.accounts import BY_ID, Account, Accounts
from sigmagraph.engine.jobs.settings import StoreSettings
from sigmagraph.engine.jobs.store.single_rows import RowReader
from sigmagraph.engine.units import CREDIT
from tests.jobs.conftest import sqlite
from tests.jobs.test_store import opened

Runs = Callable[[Coroutine[Any, Any, Any]], Any]


def no_reader(*_: object) -> Any:
    raise AssertionError("a thread was asked")


def test_a_row_is_the_same_by_either_way(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, _):
            keys = Accounts(store)
            secret, plain = await keys.create("plain")
            _, full = await keys.create(
                "ü \N{SNOWMAN}", ["admin"], endpoints=["b", "a"], credits=CREDIT, spend_limit=7, requests_per_minute=0.5
            )
            await keys.revoke(full.id)
            listed = {account.id: account for account in await keys.list()}  # read by a thread
            assert await keys.get(plain.id) == listed[plain.id] == await keys.authenticate(secret) == plain
            assert await keys.get(full.id) == listed[full.id]
            assert listed[full.id].revoked_at is not None
            assert await store.database.row(BY_ID, "nobody") is None

    run(case())


def test_a_key_withdrawn_beside_the_server_opens_nothing_from_its_commit_on(
    run: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def case() -> None:
        async with opened(sqlite(tmp_path)) as (store, _):
            keys = Accounts(store)
            secret, account = await keys.create("me")
            monkeypatch.setattr(store.database, "read", no_reader)
            with closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as other:
                for credits in range(50):
                    other.execute("UPDATE accounts SET credits = ?", (credits,))
                    other.commit()
                    assert await keys.authenticate(secret) == replace(account, credits=credits)
                other.execute("UPDATE accounts SET revoked_at = 1.0")
                assert (await keys.authenticate(secret)).credits == 49
                other.commit()
            with pytest.raises(UnknownKey, match="revoked"):
                await keys.authenticate(secret)

    run(case())


def test_the_first_key_made_beside_the_server_is_seen_at_once_and_asks_no_thread(
    run: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def case() -> None:
        async with opened(sqlite(tmp_path)) as (store, _):
            keys = Accounts(store)
            monkeypatch.setattr(store.database, "read", no_reader)
            assert not await keys.were_any()
            async with opened(replace(sqlite(tmp_path), is_shared=True)) as (beside, _):
                await Accounts(beside).create("me")
            assert await keys.were_any()

    run(case())


def test_an_account_read_keeps_no_version_of_the_database_alive(run: Runs, tmp_path: Path) -> None:
    """An unfinished reading would let the journal grow for ever."""

    async def case() -> None:
        async with opened(sqlite(tmp_path)) as (store, _):
            keys = Accounts(store)
            secret, _ = await keys.create("me")
            await keys.authenticate(secret)
            with closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as other:
                other.execute("UPDATE accounts SET credits = 5")
                other.commit()
                assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)

    run(case())


def test_where_the_database_is_locked_the_loop_goes_on_and_a_reader_waits(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with opened(replace(sqlite(tmp_path), lock_wait_s=5)) as (store, _):
            keys = Accounts(store)
            secret, account = await keys.create("me")
            assert store.database._rows is not None
            for connected in (
                store.database._let_go,
                store.database._reader.dispose,
                store.database._writer.dispose,
                store.database._rows.close,
            ):
                connected()  # a lock that keeps readers out is to be had only where nobody else is
            with closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as other:
                other.execute("PRAGMA locking_mode = EXCLUSIVE")
                other.execute("BEGIN EXCLUSIVE")
                other.execute("UPDATE accounts SET credits = 5")
                rows = store.database._rows = RowReader(tmp_path / "jobs.sqlite")
                with pytest.raises(sqlite3.OperationalError, match="locked"):
                    rows.row(BY_ID, account.id)
                waiting = asyncio.create_task(keys.authenticate(secret))
                await asyncio.sleep(0.3)
                assert not waiting.done()
                other.execute("COMMIT")
            assert (await waiting).credits == 5

    run(case())


def test_a_bent_account_is_told_with_a_sentence(run: Runs, tmp_path: Path) -> None:
    async def case() -> Account:
        async with opened(sqlite(tmp_path)) as (store, _):
            secret, _ = await Accounts(store).create("me")
            with closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as other, other:
                other.execute("UPDATE accounts SET scopes = '{half'")
            return await Accounts(store).authenticate(secret)

    with pytest.raises(StoreFailed, match=r"jobs\.sqlite: holds a row that cannot be read: JSONDecodeError"):
        run(case())
