"""Fifty calls with credit for twenty and a killed server: twenty pictures, thirty refusals, an exact ledger."""

import asyncio
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sigmagraph.engine.jobs.job import JobQuery, State
from tests.server.endpoints.conftest import LARGE, ROOT, SMALL, serving

V2 = LARGE.replace("/v1/", "/v2/")
PRICED = {**SMALL, "width": 1024, "height": 1000, "steps": 40}  # 1024 x 1000 -> 1024 x 1008 pixels
PRICE = round(0.0025 * 1024 * 1008 / 1e6 * 40 * 1e6)


@contextmanager
def process(home: Path) -> Iterator[tuple["subprocess.Popen[bytes]", str, str]]:
    """A server as a process of its own, its address, and its key."""
    (home / "address").unlink(missing_ok=True)
    running = subprocess.Popen([sys.executable, "-m", "tests.server.endpoints.front", str(home)], cwd=ROOT)
    try:
        while not (home / "address").exists():
            assert running.poll() is None
            time.sleep(0.02)
        yield running, (home / "address").read_text(), (home / "key").read_text()
    finally:
        running.kill()
        running.wait()


async def called(url: str, path: str, key: str, number: int) -> tuple[int, str]:
    """The status and the request's id; 0 where the server died. A repeat is the same call, by its key."""
    headers = {"x-api-key": key, "Idempotency-Key": f"call-{number}"}
    async with aiohttp.ClientSession() as session:
        try:
            async with session.post(url + path, json={**PRICED, "seed": number}, headers=headers) as response:
                return response.status, str((await response.json()).get("request_id", ""))
        except aiohttp.ClientError:
            return 0, ""


async def ledger_of(home: Path) -> tuple[Any, list[Any], list[str]]:
    """The account, its charges, and the requests that succeeded, once everything has ended."""
    async with serving(home) as served:
        unfinished = frozenset({State.QUEUED, State.RUNNING})
        while (await served.jobs.find(JobQuery(owner=None, states=unfinished))).total:
            await asyncio.sleep(0.05)
        found = await served.jobs.find(JobQuery(owner=None, limit=100))
        (account,) = await served.jobs.accounts.list()
        ledger = await served.jobs.accounts.ledger(account.id, limit=1000)
        assert account.credits == sum(entry.amount for entry in ledger)
        charges = [entry for entry in ledger if entry.job_id]
        return account, charges, [job.id for job in found.jobs if job.state is State.SUCCEEDED]


@pytest.mark.parametrize(
    ("path", "kill_after"),
    [
        (LARGE, 12),
        pytest.param(LARGE, 1, marks=pytest.mark.slow),
        pytest.param(V2, 1, marks=pytest.mark.slow),
        pytest.param(V2, 30, marks=pytest.mark.slow),
    ],
)
async def test_repeating_the_calls_after_a_kill_makes_exactly_what_the_credit_pays_for(
    path: str, kill_after: int, tmp_path: Path
) -> None:
    with process(tmp_path) as (server, url, key):
        waiting = {asyncio.create_task(called(url, path, key, number)) for number in range(50)}
        answered: set[asyncio.Task[tuple[int, str]]] = set()
        while len(answered) < kill_after:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            answered |= done
        server.kill()
        first = await asyncio.gather(*answered, *waiting)
    with process(tmp_path) as (_, url, key):
        second = await asyncio.gather(*(called(url, path, key, number) for number in range(50)))
    assert Counter(status for status, _ in second) == {200: 20, 406: 30}
    assert {made for status, made in first if status == 200} <= {made for status, made in second if status == 200}
    account, charges, succeeded = await ledger_of(tmp_path)
    assert sorted(charge.job_id for charge in charges) == sorted(succeeded)
    assert sorted(succeeded) == sorted(made for status, made in second if status == 200)
    assert {charge.amount for charge in charges} == {-PRICE}
    assert (account.held, account.spent) == (0, 20 * PRICE)
    pictures = {path.name[:36] for path in (tmp_path / "output").rglob("published/*.png")}
    assert pictures == set(succeeded)


async def test_what_was_accepted_before_a_kill_is_made_and_charged_once(tmp_path: Path) -> None:
    with process(tmp_path) as (server, url, key):
        calls = [asyncio.create_task(called(url, V2, key, number)) for number in range(50)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        server.kill()
        accepted = {made for status, made in await asyncio.gather(*calls) if status == 200}
    account, charges, succeeded = await ledger_of(tmp_path)
    assert accepted <= set(succeeded)
    assert len(succeeded) <= 20
    assert sorted(charge.job_id for charge in charges) == sorted(succeeded)
    assert (account.held, account.spent) == (0, PRICE * len(succeeded))
