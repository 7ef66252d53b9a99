"""When a key is needed: from the first one on, whatever becomes of it, until the operator says otherwise."""

import logging
from pathlib import Path
from typing import Any

import pytest

from sigmagraph.engine.compose.serving import BadBind, check_keys
from sigmagraph.engine.jobs.service import JobService
from sigmagraph.engine.jobs.settings import JobSettings, StoreSettings
from sigmagraph.engine.server.access.keys import StoredKeys
from sigmagraph.engine.server.settings import Settings
from tests.server.conftest import Serving


async def test_a_server_whose_only_key_was_revoked_stays_closed_after_a_restart(serving: Serving) -> None:
    async with serving(keys="stored") as api:
        secret, account = await api.jobs.accounts.create("ann")
        key = {"Authorization": f"Bearer {secret}"}
        assert (await api.get("/queue")).status == 401
        assert (await api.get("/queue", headers=key)).status == 200
        await api.jobs.accounts.revoke(account.id)
        assert (await api.get("/queue", headers=key)).status == 401
    async with serving(keys="stored") as again:
        for path in ("/queue", "/history", "/object_info", "/view?filename=x"):
            assert (await again.get(path)).status == 401
            assert (await again.get(path, headers=key)).status == 401
        assert (await again.get("/health")).status == 200


async def test_an_open_server_is_what_the_operator_asked_for_by_name(serving: Serving) -> None:
    async with serving(keys="stored", no_keys=True) as api:
        _, account = await api.jobs.accounts.create("ann")
        assert (await api.get("/queue")).status == 200
        await api.jobs.accounts.revoke(account.id)
    async with serving(keys="stored", no_keys=True) as again:
        assert (await again.get("/queue")).status == 200


async def test_a_key_made_beside_a_running_server_counts_without_a_restart(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sigmagraph.engine.jobs.billing.accounts import Accounts
    from sigmagraph.engine.jobs.store.job_store import JobStore

    monkeypatch.setattr("sigmagraph.engine.server.access.keys.REMEMBERED_S", 0.0)
    async with serving(keys="stored") as api:
        assert (await api.get("/queue")).status == 200
        beside = JobStore(StoreSettings(api.jobs.settings.store.url, is_shared=True))
        await beside.open()
        secret, _ = await Accounts(beside).create("ann")
        await beside.close()
        assert (await api.get("/queue")).status == 401
        assert (await api.get("/queue", headers={"X-API-Key": secret})).status == 200


async def test_the_first_key_closes_the_server_before_somebody_can_open_a_page(tmp_path: Path) -> None:
    """A tenth of a second later the page asks for the key; it was open for two seconds, at some moments."""
    jobs = JobService(JobSettings(StoreSettings(f"sqlite:///{tmp_path}/jobs.sqlite", survives_power_cut=False)), [])
    await jobs.start()
    try:
        now = 100.0
        keys = StoredKeys(jobs.accounts, clock=lambda: now)
        assert not await keys.required()
        await jobs.accounts.create("ann")
        assert not await keys.required()  # asked twice in one moment, the store answers once
        now += 0.1
        assert await keys.required()
    finally:
        await jobs.stop(0.0)


async def checked(jobs: JobService, **settings: Any) -> None:
    known = Settings(**settings)
    await check_keys(known, jobs, StoredKeys(jobs.accounts, is_open=known.no_keys))


async def test_a_bind_that_others_reach_needs_a_key_that_works(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = JobService(JobSettings(StoreSettings(f"sqlite:///{tmp_path}/jobs.sqlite", survives_power_cut=False)), [])
    await jobs.start()
    try:
        await checked(jobs)
        with pytest.raises(BadBind, match="0.0.0.0 can be reached .* there is no key: `sigmagraph keys create NAME`"):
            await checked(jobs, host="0.0.0.0")
        _, account = await jobs.accounts.create("ann")
        await checked(jobs, host="0.0.0.0")
        with pytest.raises(BadBind, match="no_keys is set"):
            await checked(jobs, host="0.0.0.0", no_keys=True)
        await jobs.accounts.revoke(account.id)
        with pytest.raises(BadBind, match="there is no key"):
            await checked(jobs, host="0.0.0.0")
        with caplog.at_level(logging.WARNING):
            await checked(jobs)
        assert "every key is revoked" in caplog.text
    finally:
        await jobs.stop(0.0)
