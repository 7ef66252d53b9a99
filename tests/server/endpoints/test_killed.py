"""A server killed with calls under way: started again, it charges what it makes, once, and the ledger adds up."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from engine.jobs.job import JobQuery, State
from tests.server.endpoints.conftest import LARGE, ROOT, SMALL, serving

V2 = LARGE.replace("/v1/", "/v2/")
PRICED = {**SMALL, "width": 1024, "height": 1000, "steps": 40}  # 1024 x 1000 -> 1024 x 1008 pixels


@contextmanager
def process(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.server.endpoints.front", str(home)]
    running = subprocess.Popen(command, cwd=ROOT)
    try:
        yield running
    finally:
        running.kill()
        running.wait()


async def submitted(url: str, key: str, seed: int) -> int:
    async with aiohttp.ClientSession() as session:
        try:
            async with session.post(url + V2, json={**PRICED, "seed": seed}, headers={"x-api-key": key}) as response:
                return response.status
        except aiohttp.ClientError:
            return 0


async def test_the_ledger_adds_up_after_a_kill(tmp_path: Path) -> None:
    with process(tmp_path) as server:
        while not (tmp_path / "address").exists():
            assert server.poll() is None
            await asyncio.sleep(0.05)
        url, key = (tmp_path / "address").read_text(), (tmp_path / "key").read_text()
        calls = [asyncio.create_task(submitted(url, key, seed)) for seed in range(50)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0.1)
        server.kill()
        answers = [await call for call in calls]
    async with serving(tmp_path) as served:
        unfinished = frozenset({State.QUEUED, State.RUNNING})
        while (await served.jobs.find(JobQuery(owner=None, states=unfinished))).total:
            await asyncio.sleep(0.05)
        found = await served.jobs.find(JobQuery(owner=None, limit=100))
        accepted: Any = [job for job in found.jobs if job.state is State.SUCCEEDED]
        (account,) = await served.jobs.accounts.list()
        ledger = await served.jobs.accounts.ledger(account.id, limit=1000)
        charges = [each for each in ledger if each.job_id]
        assert answers.count(200) <= len(accepted) <= 20
        assert sorted(each.job_id or "" for each in charges) == sorted(job.id for job in accepted)
        assert account.held == 0
        assert account.credits == sum(each.amount for each in ledger)
        assert account.spent == sum(job.cost for job in accepted)
