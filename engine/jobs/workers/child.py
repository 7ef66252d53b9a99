"""`Child`: the worker's side of the conversation: reads tasks and questions from a channel, sends what happens."""

import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from threading import Event, Lock
from typing import Any, Protocol

from sigmagraph.engine.jobs.event_json import encode, plain
from sigmagraph.engine.jobs.events import Body
from sigmagraph.engine.jobs.job import LOCAL, Failure, State
from sigmagraph.engine.jobs.workers.runner import Runner
from sigmagraph.engine.jobs.workers.worker import Finished, JobAttempt, Picture, Setup

__all__ = ["Child", "Frames", "opened"]


class Frames(Protocol):
    """A way to the front: frames of a JSON header and bytes. Written to by several threads, read by one."""

    def receive(self) -> tuple[dict[str, Any], bytes] | None:
        """The next frame, or None once the other side is gone."""

    def hold(self, header: dict[str, Any], data: bytes = b"") -> None:
        """Send a frame with the next one, or at the next `flush`."""

    def send(self, header: dict[str, Any], data: bytes = b"") -> None:
        """Send one frame, and what is held before it."""


def opened(setup: Setup, flush: Callable[[], None]) -> tuple[Runner, dict[str, Any]]:
    """What runs the tasks of a setup, and the words that say it is ready."""
    runner = Runner(setup, flush)
    nodes, stats = runner.answer("nodes", {"owner": LOCAL}), runner.answer("stats", {})
    return runner, {"say": "ready", "nodes": nodes, "stats": stats}


class Child:
    """Tasks run on `slots` threads, questions are answered on another, so that a running job delays no check.

    Graphs that are shown without a job have a thread of their own: they may have to read a model first.
    """

    def __init__(self, channel: Frames, runner: Runner, slots: int) -> None:
        self._channel, self._runner = channel, runner
        self._tasks = ThreadPoolExecutor(slots, "job")
        self._questions = ThreadPoolExecutor(1, "question")
        self._shows = ThreadPoolExecutor(1, "show")
        self._never = Event()
        self._jobs: dict[str, None] = {}
        self._ending = Lock()
        self._counts: Any = {}

    def serve(self) -> None:
        """Do what the front says until it is gone."""
        while (frame := self._channel.receive()) is not None:
            message, _ = frame
            match message["do"]:
                case "run":
                    task = JobAttempt(**message["task"])
                    self._jobs[task.job_id] = None
                    self._tasks.submit(self._run, task)
                case "stop_job":
                    self._stop_job(message["job_id"])
                case "ask":
                    thread = self._shows if message["question"] == "show" else self._questions
                    thread.submit(self._answer, message)
                case "stop":
                    return

    def close(self) -> None:
        """Stop every task at its next step, and wait for it."""
        self._never.set()
        for job_id in list(self._jobs):
            self._stop_job(job_id)
        self._tasks.shutdown()
        self._questions.shutdown()
        self._shows.shutdown()

    def _stop_job(self, job_id: str) -> None:
        with self._ending:
            if job_id in self._jobs:
                self._runner.stop_job(job_id)

    def beat(self, every_s: float) -> None:
        """Tell, to the end of it all, which tasks wait for their turn: their silence means no harm."""
        while not self._never.wait(every_s):
            job_ids = self._runner.waiting()
            if job_ids:
                self._channel.send({"say": "waiting", "job_ids": job_ids})

    def _run(self, task: JobAttempt) -> None:
        def tell(body: Body, picture: Picture | None) -> None:
            name, values = encode(body)
            about = {"content_type": picture.content_type, "meta": plain(picture.meta)} if picture else None
            message = {"say": "event", "job_id": task.job_id, "type": name, "body": values, "picture": about}
            self._channel.hold(message, picture.data if picture else b"")  # the runner flushes

        try:
            finished = self._runner.run(task, tell)
        except BaseException as error:  # noqa: BLE001  # a fault of ours, or an exit, fails this job, not the worker
            traceback.print_exc()
            kind = type(error).__name__
            finished = Finished(State.FAILED, Failure("internal_error", f"{kind}: {error}", exception_type=kind))
        with self._ending:
            self._jobs.pop(task.job_id, None)
            self._runner.forget(task.job_id)
        self._runner.say(partial(self._tell_end, task.job_id, finished))

    def _tell_end(self, job_id: str, finished: Finished) -> None:
        """Before the front hears of the end, what it knows of this process is what the job left."""
        counts = self._runner.answer("counts", {})
        if counts != self._counts:
            self._counts = counts
            self._channel.hold({"say": "counts", "counts": counts})
        self._channel.hold({"say": "finished", "job_id": job_id, **_record(finished)})

    def _answer(self, message: Mapping[str, Any]) -> None:
        answer: dict[str, Any] = {"say": "answer", "id": message["id"]}
        try:
            answer["value"] = self._runner.answer(message["question"], message["values"])
        except BaseException as error:  # noqa: BLE001  # node code may raise anything; the front says which question
            answer["error"] = f"{type(error).__name__}: {error}"
        self._channel.send(answer)


def _record(finished: Finished) -> dict[str, Any]:
    return {
        "state": finished.state.value,
        "failure": asdict(finished.failure) if finished.failure is not None else None,
        "outcome": asdict(finished.outcome) if finished.outcome is not None else None,
        "tail": [encode(body) for body in finished.tail],
    }
