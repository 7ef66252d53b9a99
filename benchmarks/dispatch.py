"""What the front costs: many workers that do nothing but wait, many jobs. No HTTP, no torch, no Ray.

    python -m benchmarks.dispatch                    100 workers, 10,000 jobs; throughput over 1, 2 and 4; placement
    python -m benchmarks.dispatch --workers 1000     the same front for more

Dispatch is the time from a worker's word that it is done to its next task: end and beginning are written in between.
Budgets: p50 under 5 ms; throughput over 1, 2 and 4 workers at least 0.95 of linear, each job 100 ms of its device;
of jobs over three checkpoints and three workers, how many found their weights.
"""

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Mapping
from tempfile import TemporaryDirectory
from typing import Any

from sigmagraph.engine.errors import WorkerLost
from sigmagraph.engine.execution.events import RunSucceeded
from sigmagraph.engine.graph.node import node
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.jobs.job import Outcome, State, Submission
from sigmagraph.engine.jobs.placement.affinity import model_files
from sigmagraph.engine.jobs.protocol import WorkerStatus
from sigmagraph.engine.jobs.service import JobService
from sigmagraph.engine.jobs.settings import JobSettings, StoreSettings
from sigmagraph.engine.jobs.workers.declare import declarations
from sigmagraph.engine.jobs.workers.worker import Finished, JobAttempt, Listener


@node("Work", category="benchmark", output_node=True, lane="device", outputs=())
def work(*, checkpoint: str = "", number: int = 0) -> None:
    """Nothing: stubs never call it."""


class Stub:
    """A device that is busy for so long with each job."""

    model_files: frozenset[str] | None = None

    def __init__(self, name: str, busy_s: float, jitter: float = 0.0) -> None:
        self.name, self._busy_s, self._jitter = name, busy_s, jitter
        self._chance = random.Random(name)
        self._job = ""
        self._done_at: float | None = None
        self.waits_s: list[float] = []
        self._resident = ""
        self.hits = self.jobs = 0

    @property
    def free_slots(self) -> int:
        return 0 if self._job else 1

    def start(self, listener: Listener) -> None:
        self._listener = listener
        asyncio.get_running_loop().call_soon(listener.is_ready, self, declarations([work], None))

    def run(self, task: JobAttempt) -> None:
        now = time.perf_counter()
        if self._done_at is not None:
            self.waits_s.append(now - self._done_at)
        self._job = task.job_id
        (wanted,) = model_files(task.prompt) or {""}
        self.hits, self.jobs = self.hits + (wanted == self._resident), self.jobs + 1
        self._resident = wanted
        asyncio.get_running_loop().call_later(
            self._busy_s * self._chance.uniform(1 - self._jitter, 1 + self._jitter), self._end
        )

    def _end(self) -> None:
        job, self._job, self._done_at = self._job, "", time.perf_counter()
        self._listener.has_finished(self, job, Finished(State.SUCCEEDED, None, Outcome({}, {}), (RunSucceeded(),)))

    def stop_job(self, job_id: str) -> None: ...

    async def ask(self, question: str, values: Mapping[str, Any], timeout_s: float) -> Any:
        raise WorkerLost(question)

    def kill(self, reason: str) -> None: ...

    async def stop(self) -> None: ...

    def status(self) -> WorkerStatus:
        return WorkerStatus(self.name, True, 1, (self._job,) if self._job else (), None, {})


async def timed(workers: list[Stub], checkpoints: list[str], *, syncs: bool = True) -> float:
    """Seconds from the first job's beginning to the last one's end; all of them wait before it begins."""
    with TemporaryDirectory() as folder:
        store = StoreSettings(f"sqlite:///{folder}/jobs.sqlite", survives_power_cut=syncs)
        settings = JobSettings(store, max_queued=10**6, max_queued_per_owner=10**6, keep_jobs=10**6)
        jobs = JobService(settings, workers)
        await jobs.start()
        await jobs.pause()
        for start in range(0, len(checkpoints), 500):
            await asyncio.gather(
                *(
                    jobs.submit(Submission(_graph(name, start + at)))
                    for at, name in enumerate(checkpoints[start : start + 500])
                )
            )
        began = time.perf_counter()
        await jobs.resume()
        while (await jobs.counts()).remaining:
            await asyncio.sleep(0.002)
        took = time.perf_counter() - began
        await jobs.stop()
        return took


def _graph(checkpoint: str, number: int) -> Any:
    return parse_workflow({"1": {"class_type": "Work", "inputs": {"checkpoint": checkpoint, "number": number}}})


async def dispatch(count: int, jobs: int, busy_s: float, jitter: float) -> None:
    """How long a device waits for its next job, with a long queue behind it."""
    workers = [Stub(f"w{n}", busy_s, jitter) for n in range(count)]
    worked = time.process_time()
    took = await timed(workers, ["a.safetensors"] * jobs)
    worked = time.process_time() - worked
    waits = sorted(wait for worker in workers for wait in worker.waits_s)
    p50, p95 = statistics.median(waits) * 1e3, waits[int(0.95 * len(waits))] * 1e3
    print(f"{count} workers, {jobs:,} jobs of {busy_s:g} s, {jitter:.0%} apart:")
    print(f"  {jobs / took:.1f} jobs/s of {count / busy_s:g} possible")
    print(f"  from one job's end to the next one's beginning: p50 {p50:.2f} ms, p95 {p95:.2f} ms")
    print(f"  processor time of the front per job, acceptance included: {worked / jobs * 1e3:.2f} ms")


async def scaling(busy_s: float, each: int) -> None:
    """Jobs per second over one, two and four devices."""
    rates: dict[int, float] = {}
    for count in (1, 2, 4):
        took = await timed([Stub(f"w{n}", busy_s) for n in range(count)], ["a.safetensors"] * (each * count))
        rates[count] = each * count / took
        linear = rates[count] / (rates[1] * count)
        print(f"{count} workers: {rates[count]:6.2f} jobs/s of {count / busy_s:g}, {linear:.3f} of linear")


async def placement(count: int) -> None:
    """How many jobs found the weights they need in the worker that got them."""
    chance = random.Random(18)
    names = [f"{chance.choice('abc')}.safetensors" for _ in range(count)]
    workers = [Stub(f"w{n}", 0.02) for n in range(3)]
    await timed(workers, names, syncs=False)
    hits, jobs = sum(worker.hits for worker in workers), sum(worker.jobs for worker in workers)
    print(f"3 workers, 3 checkpoints, {jobs} jobs in random order: {hits / jobs:.1%} found their weights resident")


async def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--busy", type=float, default=1.0, help="seconds of each job, for the first figure")
    chosen = parser.parse_args()
    await placement(600)
    await scaling(0.1, 100)
    for jitter in (0.2, 0.0):  # ends spread out, and all at once
        await dispatch(chosen.workers, chosen.jobs, chosen.busy, jitter)


if __name__ == "__main__":
    asyncio.run(main())
