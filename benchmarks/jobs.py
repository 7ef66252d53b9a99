"""The job layer alone: latency, submissions per second, recovery, and memory over many jobs. No HTTP, no torch.

    python -m benchmarks.jobs                  every figure, 10,000 jobs for memory
    python -m benchmarks.jobs --jobs 2000      fewer

Budgets: submission to result of a 12-node graph under 10 ms (p50); recovery of 10,000 jobs under 2 s; resident memory
of the front flat over 10,000 jobs. Both kinds of worker, both with and without waiting for the disk at every commit.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.graph.node import Node, Socket, UiResult, node
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.workflow import Workflow
from sigmagraph.engine.jobs.job import JobQuery, Submission
from sigmagraph.engine.jobs.service import JobService
from sigmagraph.engine.jobs.settings import JobSettings, ProcessSettings, StoreSettings
from sigmagraph.engine.jobs.workers.inprocess import InProcessWorker
from sigmagraph.engine.jobs.workers.process import ProcessWorker
from sigmagraph.engine.jobs.workers.worker import Setup, Worker

PAGE = 4096
Anything = Annotated[Any, Socket("*")]


@node("Add", category="benchmark")
def add(*, a: Anything, b: int = 1) -> int:
    """The sum."""
    return int(a) + b


@node("Show", category="benchmark", output_node=True)
def show(*, value: Anything) -> UiResult:
    """Shows what it got."""
    return UiResult(ui={"shown": [value]})


NODES: dict[str, Node] = {"Add": add, "Show": show}


def build(options: Mapping[str, Any]) -> Setup:
    """The factory of the worker."""
    return Setup(NODES, cache=MemoryCache(options["cache_bytes"]))


def chain(length: int = 12) -> Workflow:
    """So many nodes behind each other."""
    nodes: dict[str, Any] = {
        str(i): {"class_type": "Add", "inputs": {"a": [str(i - 1), 0] if i else 1, "b": 1}} for i in range(length - 1)
    }
    end = {"class_type": "Show", "inputs": {"value": [str(length - 2), 0]}}
    return parse_workflow({**nodes, "end": end})


def worker(kind: str, cache_bytes: int) -> Worker:
    """A worker in this process or in its own."""
    options = {"cache_bytes": cache_bytes}
    if kind == "in process":
        return InProcessWorker(build(options))
    return ProcessWorker(ProcessSettings("benchmarks.jobs:build", options))


@asynccontextmanager
async def serving(
    kind: str, *, syncs: bool, cache_bytes: int = 1 << 20, keep: int = 10_000
) -> AsyncIterator[JobService]:
    """A service on a database of its own."""
    with TemporaryDirectory() as folder:
        store = StoreSettings(f"sqlite:///{folder}/jobs.sqlite", survives_power_cut=syncs)
        settings = JobSettings(store, keep_jobs=keep, sweep_every_s=0.5, max_queued=10**6, max_queued_per_owner=10**6)
        jobs = JobService(settings, [worker(kind, cache_bytes)])
        await jobs.start()
        try:
            await jobs.ready(60)
            yield jobs
        finally:
            await jobs.stop()


async def latency(jobs: JobService, runs: int = 200) -> tuple[list[float], float]:
    """Milliseconds from submission to the stored end, one after another; and of processor time, on average."""
    took, worked = [], time.process_time()
    for _ in range(runs):
        began = time.perf_counter()
        accepted = await jobs.submit(Submission(chain()))
        await jobs.wait(accepted.job.id)
        took.append((time.perf_counter() - began) * 1e3)
    return took, (time.process_time() - worked) * 1e3 / runs


async def submissions(jobs: JobService, clients: int, each: int) -> float:
    """Committed submissions per second."""

    async def client() -> None:
        for _ in range(each):
            await jobs.submit(Submission(chain()))

    await jobs.pause()
    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return clients * each / (time.perf_counter() - began)


def resident_mb(pid: int | str = "self") -> float:
    """What a process holds in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1e6


async def memory(count: int) -> None:
    """Resident memory of the front while jobs come and go; ended jobs beyond 1,000 are forgotten."""
    async with serving("own process", syncs=False, keep=1000) as jobs:
        for done in range(0, count + 1, max(1, count // 10)):
            worker_mb = resident_mb(jobs.workers()[0].pid or "self")
            print(f"  {done:>6} jobs  resident: front {resident_mb():6.1f} MB, worker {worker_mb:6.1f} MB", flush=True)
            if done < count:
                await asyncio.gather(*(jobs.submit(Submission(chain())) for _ in range(max(1, count // 10))))
                while (await jobs.counts()).remaining:
                    await asyncio.sleep(0.05)
        kept = (await jobs.find(JobQuery(limit=1))).total
        print(f"  {kept} kept in the store")


async def recovery(count: int) -> float:
    """Seconds to start on a database with so many waiting jobs."""
    with TemporaryDirectory() as folder:
        settings = JobSettings(StoreSettings(f"sqlite:///{folder}/jobs.sqlite", survives_power_cut=False), count + 1)
        jobs = JobService(settings, [worker("in process", 0)])
        await jobs.start()
        await jobs.pause()
        await asyncio.gather(*(jobs.submit(Submission(chain(), owner=f"o{i % 7}")) for i in range(count)))
        await jobs.stop()
        jobs = JobService(settings, [])
        began = time.perf_counter()
        await jobs.start()
        took = time.perf_counter() - began
        await jobs.stop()
        return took


async def main(count: int) -> None:
    """Print every figure; memory first, while this process is fresh."""
    await memory(count)
    for kind in ("in process", "own process"):
        for syncs in (True, False):
            for name, cache_bytes in (("computed", 0), ("cached", 1 << 20)):
                async with serving(kind, syncs=syncs, cache_bytes=cache_bytes) as jobs:
                    took, cpu = await latency(jobs)
                disk = "waits for the disk" if syncs else "does not wait"
                p50, p99 = statistics.median(took), statistics.quantiles(took, n=100)[98]
                figures = f"p50 {p50:6.2f} ms  p99 {p99:6.2f} ms  processor time of the front {cpu:5.2f} ms"
                print(f"12 nodes {name:<8}  {kind:<11}  {disk:<18}  {figures}")
    for clients in (1, 8, 64):
        async with serving("in process", syncs=True) as jobs:
            print(
                f"submissions, {clients:>2} clients  {await submissions(jobs, clients, 512 // clients):8.0f} per second"
            )
    print(f"start on {count} waiting jobs  {await recovery(count):.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    asyncio.run(main(parser.parse_args().jobs))
