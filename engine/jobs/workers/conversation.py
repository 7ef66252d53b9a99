"""`Conversation`: what the front says to a worker that is not in its process, and what it makes of the answers.

How the words travel, and what it takes to have somebody to speak to, is the subclass's matter.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import count
from typing import Any

from sigmagraph.engine.errors import WorkerLost
from sigmagraph.engine.jobs.event_json import decode
from sigmagraph.engine.jobs.job import Failure, Outcome, State
from sigmagraph.engine.jobs.workers.worker import Finished, JobAttempt, Listener, Picture

__all__ = ["Conversation"]


class Conversation:
    """The front's side. Everything happens on the event loop; nothing here blocks."""

    def __init__(self, name: str, slots: int) -> None:
        self._name, self._slots = name, slots
        self._jobs: dict[str, None] = {}
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._ids = count()
        self._is_ready = self._is_stopping = self._has_started = False
        self._stats: Mapping[str, Any] = {}
        self._reason = ""

    @property
    def name(self) -> str:
        return self._name

    @property
    def free_slots(self) -> int:
        return self._slots - len(self._jobs) if self._is_ready else 0

    @property
    def model_files(self) -> frozenset[str] | None:
        return None

    def run(self, task: JobAttempt) -> None:
        self._jobs[task.job_id] = None
        self._send(run_message(task))

    def stop_job(self, job_id: str) -> None:
        if job_id in self._jobs:
            self._send({"do": "stop_job", "job_id": job_id})

    async def ask(self, question: str, values: Mapping[str, Any], timeout_s: float) -> Any:
        if not self._is_ready:
            raise WorkerLost(f"{self.name} is not ready")
        number = next(self._ids)
        future = self._answers[number] = asyncio.get_running_loop().create_future()
        self._send({"do": "ask", "id": number, "question": question, "values": dict(values)})
        try:
            return await asyncio.wait_for(future, timeout_s)
        except TimeoutError as error:
            raise WorkerLost(f"{self.name} did not answer {question!r} within {timeout_s:g} s") from error
        finally:
            self._answers.pop(number, None)

    def _send(self, message: dict[str, Any]) -> None:
        """Say something; to one who is gone it makes no difference."""
        raise NotImplementedError

    def _became_ready(self, listener: Listener, message: Mapping[str, Any]) -> None:
        self._is_ready, self._has_started, self._stats = True, True, message["stats"]
        listener.is_ready(self._as_worker(), message["nodes"])

    def _as_worker(self) -> Any:
        """Ourselves, as listeners know us: the subclass is a `Worker`."""
        return self

    def _heard(self, listener: Listener, message: Mapping[str, Any], data: bytes) -> None:
        """Pass on what it said."""
        match message["say"]:
            case "ready":
                self._became_ready(listener, message)
            case "counts":
                self._stats = {**self._stats, **message["counts"]}
            case "failed":
                self._reason = f"cannot start: {message['reason']}"
            case "answer":
                self._answered(message)
            case "event":
                about = message["picture"]
                picture = Picture(about["content_type"], data, about["meta"]) if about is not None else None
                event = decode(message["type"], message["body"])
                listener.happened(self._as_worker(), message["job_id"], event, picture)
            case "waiting":
                listener.are_waiting(self._as_worker(), message["job_ids"])
            case "finished":
                self._jobs.pop(message["job_id"], None)
                listener.has_finished(self._as_worker(), message["job_id"], finished(message))

    def _answered(self, message: Mapping[str, Any]) -> None:
        future = self._answers.get(message["id"])
        if future is None or future.done():
            return
        if "error" in message:
            future.set_exception(WorkerLost(f"{self.name} could not answer: {message['error']}"))
        else:
            future.set_result(message["value"])

    def _end_of_life(self) -> tuple[str, ...]:
        """Nothing more will be heard; the jobs that were under way."""
        jobs, self._jobs, self._is_ready = tuple(self._jobs), {}, False
        for future in self._answers.values():
            if not future.done():
                future.set_exception(WorkerLost(f"{self.name} {self._reason}"))
        return jobs


def run_message(task: JobAttempt) -> dict[str, Any]:
    """A task in words."""
    return {"do": "run", "task": {field.name: getattr(task, field.name) for field in fields(task)}}


def finished(message: Mapping[str, Any]) -> Finished:
    """The end of an attempt, from words."""
    failure, outcome = message["failure"], message["outcome"]
    return Finished(
        State(message["state"]),
        Failure(**failure) if failure is not None else None,
        Outcome(**outcome) if outcome is not None else None,
        tuple(decode(name, values) for name, values in _pairs(message["tail"])),
    )


def _pairs(tail: Sequence[Sequence[Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, values) for name, values in tail]
