"""Two servers on one PostgreSQL and one Ray cluster: one of them is killed, and a machine. Run by ray.sh."""

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sigmagraph.engine.jobs.events import Ended, Started
from sigmagraph.engine.jobs.job import Job, JobQuery, State
from sigmagraph.engine.jobs.service import JobService
from sigmagraph.engine.jobs.settings import JobSettings, StoreSettings
from sigmagraph.engine.units import CREDIT
from tests.jobs.cluster.nodes import expected, saved
from tests.jobs.cluster.ray_nodes import add, content, free_port, kill, on_machines, report, started_cluster
from tests.jobs.fronts import Client, Fronts
from tests.jobs.serving import ends, here, log

OWNERS, JOBS = 5, 100
EACH = JOBS // OWNERS
pytestmark = [pytest.mark.cluster, pytest.mark.postgres, pytest.mark.filterwarnings("ignore")]


def test_a_server_and_a_machine_are_killed_and_every_job_ends_once(
    tmp_path: Path, shared: StoreSettings, record_property: Callable[[str, object], None]
) -> None:
    """100 jobs of five owners over HTTP: each ends once with its own picture, and is paid once by its owner."""
    chance = random.Random(9)
    steps = {str(uuid.UUID(int=chance.getrandbits(128))): (seed, chance.randint(5, 30)) for seed in range(JOBS)}
    graphs = {job_id: saved(seed=seed, count=count, seconds=0.05) for job_id, (seed, count) in steps.items()}

    async def case() -> None:
        (tmp_path / "models").mkdir()
        jobs = JobService(JobSettings(shared), [here()])
        await jobs.start()
        made = [await jobs.accounts.create(f"owner{n}", credits=(JOBS + 1) * CREDIT) for n in range(OWNERS)]
        await jobs.stop(0.0)
        cluster = await on_machines(started_cluster, free_port(), 4)
        fronts = Fronts(shared.url, tmp_path, (cluster.front_address,))
        async with AsyncExitStack() as stack:
            stack.push_async_callback(on_machines, cluster.shutdown)
            stack.callback(fronts.end)
            fronts.begin()
            session = await stack.enter_async_context(aiohttp.ClientSession())
            clients = [Client(secret, fronts, session, random.Random(n)) for n, (secret, _) in enumerate(made)]
            async with asyncio.TaskGroup() as tasks:
                for place, client in enumerate(clients):
                    tasks.create_task(client.work(dict(list(graphs.items())[place::OWNERS])))
                await trouble(fronts, cluster, clients[0])
        jobs = JobService(JobSettings(shared), [here()])
        await jobs.start()
        try:
            figures = await checked(jobs, tmp_path, steps)
            for _, account in made:
                found = await jobs.accounts.get(account.id)
                assert (found.spent, found.held) == (EACH * CREDIT, 0)
                entries = await jobs.accounts.ledger(account.id, limit=1000)
                assert len({entry.job_id for entry in entries}) == len(entries) == EACH + 1
        finally:
            await jobs.stop(0.0)
        report(record_property, "attempts", figures)

    asyncio.run(asyncio.wait_for(case(), 400))


async def trouble(fronts: Fronts, cluster: Any, client: Client) -> None:
    """A server goes when a quarter is done, and comes back; a machine at half."""
    await done_of(client, EACH // 4)
    await fronts.kill(0, 1.0)
    await done_of(client, EACH // 2)
    await on_machines(kill, cluster, next(iter(cluster.worker_nodes)))
    await on_machines(add, cluster)


async def done_of(client: Client, count: int) -> None:
    """Until so many of a client's jobs are done."""
    while True:
        _, found = await client.ask("GET", "/jobs?limit=100")
        if sum(job["status"] == "completed" for job in found["jobs"]) >= count:
            return
        await asyncio.sleep(0.2)


async def checked(jobs: JobService, home: Path, steps: Mapping[str, tuple[int, int]]) -> str:
    """Every job ended once, with what it has to have written; what the run was like."""
    page = await jobs.find(JobQuery(limit=1000))
    assert Counter(job.state for job in page.jobs) == {State.SUCCEEDED: JOBS}
    assert {job.id for job in page.jobs} == set(steps)
    for job in page.jobs:
        full = await jobs.get(job.id)
        assert content(home, full, f"output/.owners/{job.owner}") == expected(*steps[job.id])
        await is_whole(jobs, job)
    attempts = sum(job.attempt for job in page.jobs)
    servers = Counter((job.worker or "").partition("/")[0] for job in page.jobs)
    assert attempts > JOBS, "nothing was lost, so nothing was tested"
    assert {"1", "2"} <= set(servers), "both worked"
    return f"{JOBS} jobs, {attempts} attempts, by server {dict(servers)}"


async def is_whole(jobs: JobService, job: Job) -> None:
    """Its log has no gap, one end, and a start for each attempt."""
    events = await log(jobs, job)
    assert [event.number for event in events] == list(range(1, job.events + 1))
    assert ends(events) == 1
    assert isinstance(events[-1].body, Ended)
    starts = [event.body.attempt for event in events if isinstance(event.body, Started)]
    assert starts == list(range(1, job.attempt + 1))
