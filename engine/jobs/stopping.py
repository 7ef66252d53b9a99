"""Attempts that count no more and are being stopped: their jobs do not begin again on a worker that still has them."""

from collections.abc import Mapping

from sigmagraph.engine.jobs.workers.worker import Worker

__all__ = ["Stopping"]


class Stopping:
    """Which attempts were taken from workers, and since when they are to stop: the event loop's seconds."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[Worker, float]] = {}

    def stop(self, job_id: str, worker: Worker, now: float) -> None:
        """Stop the attempt of a job at its next step; what it says from here on is not heard."""
        self._since[job_id] = worker, now
        worker.stop_job(job_id)

    def kill_overdue(self, runs_on: Mapping[str, Worker], now: float, deadline_s: float) -> None:
        """Kill workers that have not stopped an attempt in time: its job may wait for that worker alone."""
        for job_id, (worker, since) in list(self._since.items()):
            if job_id not in worker.status().jobs or runs_on.get(job_id) is worker:  # over, or begun again
                del self._since[job_id]
            elif now - since > deadline_s:
                del self._since[job_id]
                worker.kill(f"did not stop an attempt of job {job_id} within {deadline_s:g} s")
