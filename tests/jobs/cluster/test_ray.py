"""Workers on a real Ray cluster of several nodes on this machine: run by tests/jobs/cluster/ray.sh."""

import asyncio
import json
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, suppress
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from sigmagraph.engine.compose.serving import compose
from sigmagraph.engine.errors import ClusterUnusable
from sigmagraph.engine.graph.reading.document import load_workflow
from sigmagraph.engine.jobs.job import Job, State, Submission
from sigmagraph.engine.jobs.service import JobService
from sigmagraph.engine.server.settings import Settings
from tests.jobs.cluster.links import submitted, until
from tests.jobs.cluster.nodes import expected
from tests.jobs.cluster.ray_nodes import (
    MACHINES,
    add,
    content,
    fleet,
    free_port,
    front,
    kill,
    node_of,
    on_machines,
    reasons,
    report,
    run,
    started_cluster,
    until_answer,
    until_ready,
    worker_of,
)
from tests.jobs.serving import ends, log, started

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore")]

CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    made = MACHINES.submit(started_cluster, free_port(), 3).result()
    yield made
    MACHINES.submit(made.shutdown).result()


def test_jobs_run_on_every_machine_and_their_files_come_home(cluster: Any, tmp_path: Path) -> None:
    async def case() -> None:
        async with front(tmp_path, fleet(tmp_path, cluster.front_address), 3) as jobs:
            sent = [await submitted(jobs, seed=n, count=5, seconds=0.05, width=300_000) for n in range(9)]
            done = [await jobs.wait(job.id) for job in sent]
            assert {job.worker for job in done} == {status.name for status in jobs.workers()}
            for n, job in enumerate(done):
                assert content(tmp_path, job) == expected(n, 5, 300_000)

    run(case())


def test_a_job_of_a_killed_machine_goes_on_where_it_was(cluster: Any, tmp_path: Path) -> None:
    async def case() -> None:
        tally = tmp_path / "tally"
        async with front(tmp_path, fleet(tmp_path, cluster.front_address), 3) as jobs:
            job = await submitted(jobs, seed=7, count=60, seconds=0.1, record=100_000, tally=str(tally))
            await started(jobs, job)
            await until(lambda: tally.exists() and len(tally.read_text().split()) >= 20)
            worker = worker_of(jobs, job)
            node = node_of(cluster, worker.pid)
            await on_machines(kill, cluster, node)
            done = await asyncio.wait_for(jobs.wait(job.id), 120)
            events = await log(jobs, job)
            await on_machines(add, cluster)
            await until_ready(jobs, 3)  # the new machine is found
        assert (done.state, done.attempt) == (State.SUCCEEDED, 2)
        assert content(tmp_path, done) == expected(7, 60)
        assert ends(events) == 1
        made = [int(step) for step in tally.read_text().split()]
        assert made[-1] == 59
        assert len(made) <= 60 + 15, f"{len(made) - 60} steps were made again"

    run(case())


def test_a_machine_frozen_past_its_lease_and_woken_ends_no_job_twice(cluster: Any, tmp_path: Path) -> None:
    async def case() -> None:
        async with front(tmp_path, fleet(tmp_path, cluster.front_address, lease_s=3.0), 3) as jobs:
            job = await submitted(jobs, seed=3, count=40, seconds=0.1)
            await started(jobs, job)
            worker = worker_of(jobs, job)
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGSTOP)
            try:
                await started(jobs, job, 2)
            finally:
                os.kill(worker.pid, signal.SIGCONT)
            done = await asyncio.wait_for(jobs.wait(job.id), 60)
            events = await log(jobs, job)
            async with asyncio.timeout(30):  # it is greeted again, and works
                await until(lambda: all(status.is_ready for status in jobs.workers()))
            assert {status.pid for status in jobs.workers()} >= {worker.pid}
        assert (done.state, done.attempt, ends(events)) == (State.SUCCEEDED, 2, 1)
        assert reasons(events) == [f"{worker.name} said nothing for 3 s: its machine is frozen or cannot be reached"]
        assert [path.read_bytes() for path in (tmp_path / "output").glob("*.bin")] == [expected(3, 40)]

    run(case())


def test_a_process_that_dies_is_started_again_by_ray(cluster: Any, tmp_path: Path) -> None:
    async def case() -> None:
        async with front(tmp_path, fleet(tmp_path, cluster.front_address), 3) as jobs:
            job = await submitted(jobs, seed=4, count=30, seconds=0.1)
            await started(jobs, job)
            worker = worker_of(jobs, job)
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            done = await asyncio.wait_for(jobs.wait(job.id), 60)
            async with asyncio.timeout(60):
                await until(lambda: {status.starts for status in jobs.workers() if status.is_ready} == {1, 2})
            assert content(tmp_path, done) == expected(4, 30)
            again = next(status for status in jobs.workers() if status.starts == 2)
            assert (again.name, again.pid != worker.pid) == (worker.name, True)

    run(case())


def test_the_head_may_be_restarted(tmp_path: Path) -> None:
    async def case() -> None:
        port = free_port()
        first = await on_machines(started_cluster, port, 1)
        async with front(tmp_path, fleet(tmp_path, first.front_address), 1) as jobs:
            job = await submitted(jobs, seed=5, count=50, seconds=0.1)
            await started(jobs, job)
            await on_machines(first.shutdown)
            waiting = await submitted(jobs, seed=6, count=2)
            second = await on_machines(started_cluster, port, 1)
            try:
                done = [await asyncio.wait_for(jobs.wait(sent.id), 150) for sent in (job, waiting)]
                assert [content(tmp_path, each) for each in done] == [expected(5, 50), expected(6, 2)]
                assert ends(await log(jobs, job)) == 1
            finally:
                await jobs.stop(0.0)
                await on_machines(second.shutdown)

    run(case())


def requested() -> Any:
    """What the cluster's autoscaler was asked for last; runs inside the cluster."""
    constants = import_module("ray._private.ray_constants")
    said = import_module("ray.experimental.internal_kv")._internal_kv_get(constants.AUTOSCALER_RESOURCE_REQUEST_CHANNEL)
    return json.loads(said or "null")


def test_what_a_queue_asks_for_reaches_the_autoscaler(cluster: Any, tmp_path: Path) -> None:
    """Of a front outside the cluster, whose client has no way to it."""
    ray = import_module("ray")

    async def case() -> None:
        async with front(tmp_path, fleet(tmp_path, cluster.front_address, most=5), 3) as jobs:
            asking = ray.remote(requested).options(num_cpus=0)
            wanted = [{"CPU": 1.0}] * 3  # for the machines that there are and work, as long as they are wanted
            await until_answer(lambda: ray.get(asking.remote()), wanted, 30)
            done = await jobs.wait((await submitted(jobs, seed=8, count=2)).id)
            assert content(tmp_path, done) == expected(8, 2)

    run(case())


JOBS = int(os.environ.get("SIGMAGRAPH_CLUSTER_JOBS", "200"))


class Trouble:
    """What goes wrong, over and over: machines are killed and replaced, processes crash and freeze, the head goes."""

    def __init__(self, port: int, seed: int) -> None:
        self.port, self.done, self._chance = port, Counter[str](), random.Random(seed)
        self._cluster: Any = None

    async def begin(self) -> str:
        """Have a cluster; its address."""
        self._cluster = await on_machines(started_cluster, self.port, 3)
        address: str = self._cluster.front_address
        return address

    async def end(self) -> None:
        await on_machines(self._cluster.shutdown)

    async def make(self, jobs: JobService, is_over: asyncio.Event) -> None:
        """Some of each kind, and the head's restart in the middle."""
        while not is_over.is_set():
            await asyncio.sleep(self._chance.uniform(1.0, 3.0))
            ready = [status.pid for status in jobs.workers() if status.is_ready and status.pid]
            if len(ready) < 2:
                continue
            if self.done.total() == 6 and not self.done["restart"]:
                await self._restart()
            else:
                what = self._chance.choice((self._kill, self._freeze, self._crash))
                await what(self._chance.choice(ready))

    async def _restart(self) -> None:
        self.done["restart"] += 1
        await self.end()
        await self.begin()

    async def _kill(self, pid: int) -> None:
        node = node_of(self._cluster, pid)
        if node is not None:  # else it died a moment ago
            self.done["kill"] += 1
            await on_machines(kill, self._cluster, node)
            await on_machines(add, self._cluster)

    async def _crash(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.done["crash"] += 1

    async def _freeze(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            self.done["freeze"] += 1
            await asyncio.sleep(4.0)
            os.kill(pid, signal.SIGCONT)


async def campaign(jobs: JobService, chance: random.Random) -> tuple[list[tuple[Job, bytes]], list[str]]:
    """Mixed jobs of two accounts, and what each has to write."""
    accounts = [(await jobs.accounts.create(name, credits=10 * JOBS))[1].id for name in ("ann", "bob")]
    sent = []
    for seed in range(JOBS):
        inputs = {"seed": seed, "count": chance.randint(1, 20), "seconds": chance.choice((0.02, 0.1))}
        width, record = chance.choice((8, 200_000)), chance.choice((8, 80_000))
        asked = {"owner": accounts[seed % 2], "cost": 1 + seed % 3, "priority": chance.randint(0, 2)}
        job = await submitted(jobs, asked=asked, width=width, record=record, **inputs)
        sent.append((job, expected(seed, int(inputs["count"]), width)))
    return sent, accounts


def test_jobs_end_once_while_machines_come_and_go(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Every job ends once, with its own picture, and each account pays for each of its jobs once."""

    async def case() -> None:
        trouble, is_over = Trouble(free_port(), 18), asyncio.Event()
        async with AsyncExitStack() as stack:
            address = await trouble.begin()
            stack.push_async_callback(trouble.end)
            jobs = await stack.enter_async_context(front(tmp_path, fleet(tmp_path, address, lease_s=3.0), 3))
            sent, accounts = await campaign(jobs, random.Random(18))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(trouble.make(jobs, is_over))
                done = [await jobs.wait(job.id) for job, _ in sent]
                is_over.set()
            told = [ends(await log(jobs, job)) for job, _ in sent]
            for (job, picture), ended in zip(sent, done, strict=True):
                assert ended.state is State.SUCCEEDED, ended.failure
                assert content(tmp_path, ended, f"output/.owners/{job.owner}") == picture
            assert told == [1] * JOBS
            for place, account in enumerate(accounts):
                charged = sum(job.cost for job, _ in sent[place::2])
                found = await jobs.accounts.get(account)
                assert (found.spent, found.held) == (charged, 0)
            attempts = [ended.attempt for ended in done]
            figures = f"{JOBS} jobs, {sum(attempts)} attempts, most for one {max(attempts)}: {dict(trouble.done)}"
            report(record_property, "attempts", figures)
            assert max(attempts) > 1, "nothing was lost, so nothing was tested"
            if JOBS >= 200:
                assert min(trouble.done[what] for what in ("kill", "crash", "freeze", "restart")) > 0, trouble.done

    run(case(), 560.0)


def test_a_picture_by_ray_is_that_of_the_worker_process(tmp_path: Path) -> None:
    """Each in a process of its own: as a driver of Ray's, it ends where Ray is missed."""
    pictures = []
    for number, workers in enumerate(("here", "ray:local")):
        home = tmp_path / str(number)
        home.mkdir()
        (home / "models").symlink_to(CHECKOUT / "models")
        with ProcessPoolExecutor(1, get_context("spawn")) as processes:
            pictures.append(processes.submit(made_picture, home, workers).result())
    assert pictures[0] == pictures[1]


def made_picture(home: Path, workers: str) -> bytes:
    """By a server in this process."""
    return asyncio.run(picture(home, workers))


async def picture(home: Path, workers: str) -> bytes:
    values = {"home": home, "output": home / "output", "database": f"sqlite:///{home}/jobs.sqlite"}
    jobs, _ = compose(Settings.model_validate({**values, "workers": workers, "gpus_per_worker": 0}))
    await jobs.start()
    try:
        assert await jobs.ready(120)
        workflow = load_workflow(CHECKOUT / "workflows/txt2img.json")
        done = await jobs.wait((await jobs.submit(Submission(workflow))).job.id)
        assert done.outcome is not None, done.failure
        (image,) = (image for ui in done.outcome.outputs.values() for image in ui["images"])
        return (home / "output" / image["subfolder"] / image["filename"]).read_bytes()
    finally:
        await jobs.stop(0.0)


def test_an_address_where_nobody_answers_is_named_at_the_start(tmp_path: Path) -> None:
    async def case() -> None:
        address = f"ray://127.0.0.1:{free_port()}"
        with pytest.raises(ClusterUnusable, match=rf"cluster {address}: nobody answers there .*ray start --head"):
            async with front(tmp_path, fleet(tmp_path, address), 0):
                pass

    run(case())
