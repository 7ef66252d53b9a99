"""`InProcessWorker`: tasks on threads of this process. For the command line and tests; it cannot be killed."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from sigmagraph.engine.errors import WorkerLost
from sigmagraph.engine.jobs.events import Body
from sigmagraph.engine.jobs.job import LOCAL, Failure, State
from sigmagraph.engine.jobs.protocol import WorkerStatus
from sigmagraph.engine.jobs.workers.runner import Runner
from sigmagraph.engine.jobs.workers.worker import Finished, JobAttempt, Listener, Picture, Setup

__all__ = ["InProcessWorker"]


class InProcessWorker:
    """Runs tasks where it is. A node that takes the process down takes this down with it."""

    def __init__(self, setup: Setup, name: str = "here", slots: int = 1, beat_s: float = 5.0) -> None:
        self._runner, self._name, self._slots, self._beat_s = Runner(setup, self._flush), name, slots, beat_s
        self._said: deque[Callable[[], None]] = deque()
        self._jobs: dict[str, None] = {}
        self._threads = ThreadPoolExecutor(slots + 1, f"worker {name}")
        self._is_ready = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def free_slots(self) -> int:
        return self._slots - len(self._jobs) if self._is_ready else 0

    @property
    def model_files(self) -> frozenset[str] | None:
        return None

    def start(self, listener: Listener) -> None:
        self._listener, self._loop = listener, asyncio.get_running_loop()
        nodes = self._runner.answer("nodes", {"owner": LOCAL})
        self._is_ready = True
        self._loop.call_soon(listener.is_ready, self, nodes)
        self._beat = self._loop.call_later(self._beat_s, self._tell_who_waits)

    def run(self, task: JobAttempt) -> None:
        self._jobs[task.job_id] = None
        self._threads.submit(self._run, task)

    def stop_job(self, job_id: str) -> None:
        if job_id in self._jobs:
            self._runner.stop_job(job_id)

    async def ask(self, question: str, values: Mapping[str, Any], timeout_s: float) -> Any:
        answer = self._loop.run_in_executor(self._threads, self._runner.answer, question, values)
        try:
            return await asyncio.wait_for(answer, timeout_s)
        except TimeoutError as error:
            raise WorkerLost(f"{self.name} did not answer {question!r} within {timeout_s:g} s") from error

    def kill(self, reason: str) -> None:
        """There is nothing to kill: stop every task at its next step instead."""
        for job_id in self._jobs:
            self._runner.stop_job(job_id)

    async def stop(self) -> None:
        self._is_ready = False
        self._beat.cancel()
        self.kill("stopped")
        await asyncio.to_thread(self._threads.shutdown)
        await asyncio.to_thread(self._runner.close)

    def status(self) -> WorkerStatus:
        counts = self._runner.answer("counts", {})
        return WorkerStatus(self.name, self._is_ready, 1, tuple(self._jobs), None, counts)

    def _tell_who_waits(self) -> None:
        self._listener.are_waiting(self, self._runner.waiting())
        self._beat = self._loop.call_later(self._beat_s, self._tell_who_waits)

    def _run(self, task: JobAttempt) -> None:
        def tell(body: Body, picture: Picture | None) -> None:
            self._said.append(partial(self._listener.happened, self, task.job_id, body, picture))

        try:
            finished = self._runner.run(task, tell)
        except Exception as error:  # noqa: BLE001  # a fault of ours fails this job, not the thread
            kind = type(error).__name__
            finished = Finished(State.FAILED, Failure("internal_error", f"{kind}: {error}", exception_type=kind))
        self._runner.say(lambda: self._said.append(partial(self._end, task.job_id, finished)))

    def _end(self, job_id: str, finished: Finished) -> None:
        del self._jobs[job_id]
        self._runner.forget(job_id)
        self._listener.has_finished(self, job_id, finished)

    def _flush(self) -> None:
        """What was said goes to the event loop in one turn of it."""
        if self._said and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._pass_on)

    def _pass_on(self) -> None:
        try:
            while self._said:
                self._said.popleft()()
        finally:  # one that fails keeps none of the others
            if self._said:
                self._loop.call_soon(self._pass_on)
