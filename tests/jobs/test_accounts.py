"""Keys and credits: shown once, charged on success only, exact to the last millionth."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sigmagraph.engine.errors import BadValue, InsufficientCredits, SpendLimitReached, UnknownKey
from sigmagraph.engine.jobs.billing.accounts import Accounts
from sigmagraph.engine.jobs.events import Cause
from sigmagraph.engine.jobs.job import State
from sigmagraph.engine.jobs.settings import StoreSettings
from sigmagraph.engine.jobs.store.job_store import JobStore
from sigmagraph.engine.units import CREDIT
from tests.jobs.serving import here, sent, service, started
from tests.jobs.test_store import WORK, opened, submission

Runs = Callable[[Coroutine[Any, Any, Any]], Any]


def test_a_key_is_told_once_and_kept_as_a_hash(run: Runs, tmp_path: Path) -> None:
    async def case() -> str:
        async with service(tmp_path, []) as jobs:
            secret, account = await jobs.accounts.create("me", ["submit"], endpoints=["a"])
            assert (await jobs.accounts.authenticate(secret)) == account
            assert secret not in repr(await jobs.accounts.list())
            assert (account.may("submit"), account.may("admin"), account.may_call("a"), account.may_call("b")) == (
                True,
                False,
                True,
                False,
            )
            return secret

    secret = run(case())
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert secret.encode() not in stored
    assert secret[-8:].encode() not in stored


def test_wrong_and_revoked_keys_open_nothing_and_say_which_they_are(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, _):
            keys = Accounts(store)
            assert (await keys.are_any(), await keys.were_any()) == (False, False)
            secret, account = await keys.create("me")
            assert await keys.are_any()
            with pytest.raises(UnknownKey, match="not known"):
                await keys.authenticate(secret + "x")
            revoked = await keys.revoke(account.id)
            assert revoked.revoked_at is not None
            assert (await keys.are_any(), await keys.were_any()) == (False, True)
            with pytest.raises(UnknownKey, match="revoked"):
                await keys.authenticate(secret)
            with pytest.raises(UnknownKey):
                await keys.credit("nobody", 1)
            with pytest.raises(BadValue, match="scopes"):
                await keys.create("me", ["everything"])

    run(case())


def test_fifty_calls_at_once_on_credit_for_twenty_make_twenty_jobs(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, _):
            keys = Accounts(store)
            _, account = await keys.create("me", credits=20 * CREDIT)
            asked = [store.submit(submission(owner=account.id, cost=CREDIT), WORK) for _ in range(50)]
            results = await asyncio.gather(*asked, return_exceptions=True)
            made = [result[0] for result in results if isinstance(result, tuple)]
            refused = [result for result in results if isinstance(result, InsufficientCredits)]
            assert (len(made), len(refused)) == (20, 30)
            assert str(refused[0]) == "Insufficient credits: 0 available, this costs 1"
            ends = [State.SUCCEEDED] * 12 + [State.FAILED] * 8
            for job, state in zip(made, ends, strict=True):
                await store.begin(job.id, "w")
                await store.end(job.id, state)
            after = await keys.get(account.id)
            assert (after.credits, after.held, after.spent, after.available) == (8 * CREDIT, 0, 12 * CREDIT, 8 * CREDIT)
            entries = await keys.ledger(account.id)
            assert sum(entry.amount for entry in entries) == after.credits
            charged = sorted(entry.job_id for entry in entries if entry.job_id is not None)
            assert charged == sorted(job.id for job in made[:12])

    run(case())


@pytest.mark.parametrize("way", ["cancelled", "expired", "worker lost", "refused"])
def test_whatever_does_not_succeed_costs_nothing(run: Runs, store_settings: StoreSettings, way: str) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, _):
            keys = Accounts(store)
            _, account = await keys.create("me", credits=CREDIT)
            asked = submission(job_id="x", owner=account.id, cost=CREDIT, expires_s=0.0)
            await store.submit(asked, WORK)
            assert (await keys.get(account.id)).available == 0
            match way:
                case "cancelled":
                    await store.request_cancel("x")
                case "expired":
                    await store.expire()
                case "worker lost":
                    await store.begin("x", "w")
                    await store.lose("x", "died", Cause.JOB)
                case "refused":
                    with pytest.raises(InsufficientCredits):
                        await store.submit(submission(owner=account.id, cost=1), WORK)
                    await store.request_cancel("x")
            after = await keys.get(account.id)
            assert (after.credits, after.held, after.spent) == (CREDIT, 0, 0)
            assert len(await keys.ledger(account.id)) == 1

    run(case())


def test_keys_are_made_and_credited_beside_a_running_server(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        async with opened(store_settings) as (server, _):
            operator = JobStore(replace(store_settings, is_shared=True))
            await operator.open()
            secret, account = await Accounts(operator).create("me")
            await Accounts(operator).credit(account.id, CREDIT)
            await operator.close()
            assert (await Accounts(server).authenticate(secret)).credits == CREDIT

    run(case())


def test_a_lost_attempt_keeps_its_hold_and_is_charged_once(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, _):
            _, account = await Accounts(store).create("me", credits=CREDIT)
            await store.submit(submission(job_id="x", owner=account.id, cost=CREDIT), WORK)
            for _ in range(3):
                await store.begin("x", "w")
                await store.lose("x", "server stopped")
        async with opened(store_settings) as (store, _):
            assert (await Accounts(store).get(account.id)).held == CREDIT
            await store.begin("x", "w")
            await store.end("x", State.SUCCEEDED)
            after = await Accounts(store).get(account.id)
            assert (after.credits, after.held, after.spent) == (0, 0, CREDIT)

    run(case())


def test_a_spend_limit_and_taking_credits_away_respect_what_is_held(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, _):
            keys = Accounts(store)
            _, account = await keys.create("me", credits=10 * CREDIT, spend_limit=3 * CREDIT)
            await store.submit(submission(job_id="x", owner=account.id, cost=2 * CREDIT), WORK)
            with pytest.raises(SpendLimitReached, match="2 of 3 spent, this costs 2"):
                await store.submit(submission(owner=account.id, cost=2 * CREDIT), WORK)
            with pytest.raises(BadValue, match="running jobs hold the rest"):
                await keys.credit(account.id, -9 * CREDIT)
            assert (await keys.credit(account.id, -8 * CREDIT, "correction")).credits == 2 * CREDIT

    run(case())


@pytest.mark.parametrize(
    "wish",
    [{"requests_per_minute": 0.0}, {"requests_per_minute": float("nan")}, {"spend_limit": -1}, {"credits": -1}],
)
def test_limits_that_mean_nothing_are_refused(run: Runs, store_settings: StoreSettings, wish: Any) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, _):
            with pytest.raises(BadValue, match=next(iter(wish))):
                await Accounts(store).create("me", **wish)

    run(case())


def test_an_account_that_is_not_there_cannot_pay(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, _):
            with pytest.raises(UnknownKey):
                await store.submit(submission(owner="nobody", cost=1), WORK)

    run(case())


FILE = {"filename": "a.png", "subfolder": "", "type": "output"}


@pytest.mark.parametrize(
    ("entry", "node", "state"),
    [
        (FILE, "work", State.SUCCEEDED),
        (FILE, "end", State.FAILED),  # which shows a text
        (FILE, "nobody", State.FAILED),
        ("a.png", "work", State.FAILED),
        ({**FILE, "type": "input"}, "work", State.FAILED),
        ({"filename": "a.png", "type": "output"}, "work", State.FAILED),
    ],
)
def test_a_run_that_does_not_show_the_pictures_it_owes_fails_and_costs_nothing(
    run: Runs, tmp_path: Path, entry: Any, node: str, state: State
) -> None:
    async def case() -> None:
        async with service(tmp_path, [here()]) as jobs:
            _, account = await jobs.accounts.create("me", credits=5 * CREDIT)
            owed = {"owner": account.id, "cost": CREDIT, "shows": node}
            job = await jobs.wait((await sent(jobs, "Wrote", asked=owed, entry=entry)).id)
            assert job.state is state
            assert (job.failure.code if job.failure is not None else None) in (None, "no_output")
            charges = [line.job_id for line in await jobs.accounts.ledger(account.id) if line.job_id]
            left = await jobs.accounts.get(account.id)
            assert charges == ([job.id] if state is State.SUCCEEDED else [])
            assert (left.credits, left.held) == ((5 - len(charges)) * CREDIT, 0)

    run(case())


def test_what_a_run_owes_outlives_the_server(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path, [here()]) as jobs:
            await jobs.pause()
            _, account = await jobs.accounts.create("me", credits=5 * CREDIT)
            waiting = await sent(jobs, asked={"owner": account.id, "cost": CREDIT, "shows": "end"})
        async with service(tmp_path, [here()]) as jobs:
            await jobs.resume()
            assert (await jobs.wait(waiting.id)).state is State.FAILED
            assert (await jobs.accounts.get(account.id)).available == 5 * CREDIT

    run(case())


def test_a_served_job_is_charged_when_it_succeeds_and_not_when_stopped(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path, [here()]) as jobs:
            _, account = await jobs.accounts.create("me", credits=5 * CREDIT)
            paid = {"owner": account.id, "cost": CREDIT}
            await jobs.wait((await sent(jobs, asked=paid)).id)
            await jobs.wait((await sent(jobs, "Fail", asked=paid)).id)
            stopped = await sent(jobs, count=1000, seconds=0.01, asked=paid)
            await started(jobs, stopped)
            await jobs.cancel(stopped.id)
            await jobs.wait(stopped.id)
            assert (await jobs.accounts.get(account.id)).available == 4 * CREDIT

    run(case())
