"""The worker process, `python -m sigmagraph.engine.jobs.workers.worker_main FD`: reads tasks, sends what happens.

It ends as soon as the socket does: a front that was killed leaves no orphan behind.
"""

import os
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from threading import Event, Thread
from typing import Any

from sigmagraph.engine.jobs.events import Body
from sigmagraph.engine.jobs.job import LOCAL, Failure, State
from sigmagraph.engine.jobs.records import encode, plain
from sigmagraph.engine.jobs.workers.ipc import Channel
from sigmagraph.engine.jobs.workers.runner import Runner
from sigmagraph.engine.jobs.workers.worker import Finished, JobAttempt, Picture, load_factory

__all__ = ["main"]

QUIET_END = 0
BAD_START = 3


class Child:
    """Tasks run on `slots` threads, questions are answered on another, so that a running job delays no check."""

    def __init__(self, channel: Channel, runner: Runner, slots: int) -> None:
        self._channel, self._runner = channel, runner
        self._tasks = ThreadPoolExecutor(slots, "job")
        self._questions = ThreadPoolExecutor(1, "question")
        self._never = Event()
        self._counts: Any = {}

    def serve(self) -> None:
        """Do what the front says until it is gone."""
        while (frame := self._channel.receive()) is not None:
            message, _ = frame
            match message["do"]:
                case "run":
                    self._tasks.submit(self._run, JobAttempt(**message["task"]))
                case "stop_job":
                    self._runner.stop_job(message["job_id"])
                case "ask":
                    self._questions.submit(self._answer, message)
                case "stop":
                    return

    def beat(self, every_s: float) -> None:
        """Tell, to the end of the process, which tasks wait for their turn: their silence means no harm."""
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
        except Exception as error:  # noqa: BLE001  # a fault of ours fails this job, not the worker
            traceback.print_exc()
            kind = type(error).__name__
            finished = Finished(State.FAILED, Failure("internal_error", f"{kind}: {error}", exception_type=kind))
        self._tell_counts()
        self._channel.send({"say": "finished", "job_id": task.job_id, **_record(finished)})

    def _tell_counts(self) -> None:
        """Before the front hears of the end, what it knows of this process is what the job left."""
        counts = self._runner.answer("counts", {})
        if counts != self._counts:
            self._counts = counts
            self._channel.send({"say": "counts", "counts": counts})

    def _answer(self, message: Mapping[str, Any]) -> None:
        answer: dict[str, Any] = {"say": "answer", "id": message["id"]}
        try:
            answer["value"] = self._runner.answer(message["question"], message["values"])
        except Exception as error:  # noqa: BLE001  # node code may raise anything; the front says which question
            answer["error"] = f"{type(error).__name__}: {error}"
        self._channel.send(answer)


def main(descriptor: int) -> int:
    """Serve the socket; the exit status says whether it ever started."""
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the front, which lets jobs finish and then says stop
        signal.signal(number, _leave_it_to_the_front)
    channel = Channel(socket.socket(fileno=descriptor))
    frame = channel.receive()
    if frame is None:
        return QUIET_END
    hello = frame[0]
    try:
        runner = Runner(load_factory(hello["factory"])(hello["options"]), channel.flush)
        nodes, stats = runner.answer("nodes", {"owner": LOCAL}), runner.answer("stats", {})
    except Exception as error:  # noqa: BLE001  # whatever keeps it from starting, the front has to know it
        traceback.print_exc()
        channel.send({"say": "failed", "reason": f"{type(error).__name__}: {error}"})
        return BAD_START
    channel.send({"say": "ready", "nodes": nodes, "stats": stats})
    child = Child(channel, runner, hello["slots"])
    reader = Thread(target=child.serve, name="front", daemon=True)
    reader.start()
    Thread(target=child.beat, args=(hello["beat_s"],), name="beat", daemon=True).start()
    reader.join()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(QUIET_END)  # a node that hangs must not keep the process alive


def _leave_it_to_the_front(number: int, frame: object) -> None:
    """A terminal and systemd signal every process of a group; a handler, unlike ignoring, ends with an exec."""


def _record(finished: Finished) -> dict[str, Any]:
    return {
        "state": finished.state.value,
        "failure": asdict(finished.failure) if finished.failure is not None else None,
        "outcome": asdict(finished.outcome) if finished.outcome is not None else None,
        "tail": [encode(body) for body in finished.tail],
    }


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
