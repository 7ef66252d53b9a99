"""A worker that was given up and comes back late: what it says of a job that another has now counts for nothing."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from sigmagraph.engine.errors import WorkerLost
from sigmagraph.engine.execution.events import NodeStarted, RunSucceeded
from sigmagraph.engine.jobs.events import Requeued
from sigmagraph.engine.jobs.job import Failure, Outcome, State
from sigmagraph.engine.jobs.protocol import WorkerStatus
from sigmagraph.engine.jobs.workers.child import Child
from sigmagraph.engine.jobs.workers.declare import declarations
from sigmagraph.engine.jobs.workers.runner import Runner
from sigmagraph.engine.jobs.workers.worker import Finished, JobAttempt, Listener
from tests.jobs import stubs
from tests.jobs.serving import ends, here, log, sent, service, started, until

Runs = Callable[[Coroutine[Any, Any, Any]], Any]


class Puppet:
    """A worker that does what the test says."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tasks: list[JobAttempt] = []
        self.is_here = True
        self.model_files: frozenset[str] | None = None

    @property
    def free_slots(self) -> int:
        return int(self.is_here) - len(self.tasks)

    def start(self, listener: Listener) -> None:
        self.listener = listener
        asyncio.get_running_loop().call_soon(listener.is_ready, self, declarations(stubs.NODES.values(), None))

    def run(self, task: JobAttempt) -> None:
        self.tasks.append(task)

    def stop_job(self, job_id: str) -> None: ...

    async def ask(self, question: str, values: Mapping[str, Any], timeout_s: float) -> Any:
        raise WorkerLost(question)

    def kill(self, reason: str) -> None: ...

    async def stop(self) -> None: ...

    def status(self) -> WorkerStatus:
        return WorkerStatus(self.name, self.is_here, 1, tuple(task.job_id for task in self.tasks), None, {})


def success(text: str) -> Finished:
    return Finished(State.SUCCEEDED, None, Outcome({"end": {"shown": [text]}}, {}), (RunSucceeded(),))


def test_a_late_worker_neither_ends_a_job_nor_speaks_for_it_nor_loses_it(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        frozen, other = Puppet("frozen"), Puppet("other")
        async with service(tmp_path, [frozen, other], stop_s=0.0) as jobs:
            await jobs.ready(5)
            job = await sent(jobs)
            await until(lambda: bool(frozen.tasks or other.tasks))
            first, second = (frozen, other) if frozen.tasks else (other, frozen)
            first.tasks.clear()
            first.is_here = False
            first.listener.is_lost(first, [job.id], "said nothing", is_from_outside=True)
            await until(lambda: bool(second.tasks))
            assert second.tasks[0].attempt == 2
            first.listener.happened(first, job.id, NodeStarted("late", "Steps", "late"), None)
            first.listener.has_finished(first, job.id, success("late"))
            first.listener.has_finished(first, job.id, Finished(State.FAILED, Failure("late", "late")))
            first.listener.is_lost(first, [job.id], "again", is_from_outside=False)
            second.listener.has_finished(second, second.tasks.pop().job_id, success("in time"))
            done = await jobs.wait(job.id)
            events = await log(jobs, job)
        assert (done.state, done.attempt) == (State.SUCCEEDED, 2)
        assert done.outcome is not None
        assert done.outcome.outputs == {"end": {"shown": ["in time"]}}
        assert ends(events) == 1
        assert sum(isinstance(event.body, Requeued) for event in events) == 1
        assert "late" not in str(events)

    run(case())


def test_a_job_that_was_taken_waits_until_its_worker_has_stopped_it(run: Runs, tmp_path: Path) -> None:
    """The end of the attempt that is being stopped was taken for that of the next one, on the same worker."""

    async def case() -> None:
        async with service(tmp_path, [here(slots=2)]) as jobs:
            job = await sent(jobs, count=6, seconds=0.05)
            await started(jobs, job)
            waiting = await jobs.store.lose(job.id, "another server did not see this one", attempt=1)
            jobs._dispatcher.taken(job.id, 1)  # as `Peers` does
            jobs._dispatcher.add(waiting, (await jobs.get(job.id)).request)
            done = await asyncio.wait_for(jobs.wait(job.id), 10)
            assert (done.state, done.attempt) == (State.SUCCEEDED, 2)
            assert ends(await log(jobs, job)) == 1

    run(case())


def test_a_stop_that_comes_too_late_stops_no_later_attempt() -> None:
    said: SimpleQueue[dict[str, Any]] = SimpleQueue()
    ends_of = []

    class Words:
        """What the front says, each once the one before was done."""

        def __init__(self) -> None:
            task = {"job_id": "j", "owner": "local", "attempt": 1, "targets": ["end"], "extra_data": {}}
            task["prompt"] = stubs.shown("Steps", count=1).prompt()
            run: dict[str, Any] = {"do": "run", "task": task}
            self.turns = iter([run, {"do": "stop_job", "job_id": "j"}, run, None])

        def receive(self) -> tuple[dict[str, Any], bytes] | None:
            message = next(self.turns)
            if message is None or message["do"] == "stop_job":
                ends_of.append(said.get(timeout=10)["state"])
                time.sleep(0.02)  # the thread that told it has ended by now
            return (message, b"") if message is not None else None

        def hold(self, header: dict[str, Any], data: bytes = b"") -> None:
            if header["say"] == "finished":
                said.put(header)

        send = hold

    runner = Runner(stubs.build({}))
    worker = Child(Words(), runner, 1)
    worker.serve()
    worker.close()
    runner.close()
    assert ends_of == ["succeeded", "succeeded"]
