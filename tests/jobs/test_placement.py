"""Which job begins next and where, decided by the one thing that decides it; after a restart the service has it too."""

import random
from pathlib import Path
from typing import Any

from sigmagraph.engine.jobs.job import Job, State
from sigmagraph.engine.jobs.placement.job_placement import JobPlacement
from sigmagraph.engine.jobs.queue import Queue
from sigmagraph.engine.jobs.runs import Running
from sigmagraph.engine.jobs.workers.worker import JobAttempt
from tests.jobs.serving import sent, service
from tests.jobs.test_fence import Puppet, Runs, success, until

WEIGHTS: dict[str, Any] = {"1": {"class_type": "Load", "inputs": {"ckpt_name": "big.safetensors"}}}


class Front:
    """A queue, two workers of which the second alone has the weights, and who decides between them."""

    def __init__(self) -> None:
        self.queue, self.running = Queue(), dict[str, Running]()
        self.bare, self.stocked = Puppet("bare"), Puppet("stocked")
        self.bare.model_files, self.stocked.model_files = frozenset(), frozenset({"big.safetensors"})
        self.placement = JobPlacement(self.queue, [self.bare, self.stocked], self.running, False)

    def send(self, job_id: str) -> None:
        self.placement.add(job_id, WEIGHTS)
        self.queue.put(Job(job_id, "a", State.QUEUED, 0.0, 0, 0, 0.0))

    def begin(self) -> str | None:
        """The worker of the next job, which runs there from now on."""
        placed = self.placement.take()
        if placed is None:
            return None
        job, worker = placed
        assert isinstance(worker, Puppet)
        self.placement.release(worker)
        self.running[job.id] = Running(job, worker, 0.0)
        worker.run(JobAttempt(job.id, job.owner, 1, WEIGHTS, (), {}))
        self.placement.begun(job.id, WEIGHTS, worker)
        return worker.name

    def end(self, job_id: str) -> Job:
        running = self.running.pop(job_id)
        self.bare.tasks.clear()
        self.stocked.tasks.clear()
        return running.job


def test_a_job_that_comes_back_waits_for_a_machine_with_its_files_again() -> None:
    front = Front()
    front.send("x")
    assert front.begin() == "stocked"
    job = front.end("x")
    front.placement.lost(front.stocked)
    front.placement.stopped("x")
    front.queue.done("x", is_back=True)
    front.queue.put(job)
    assert front.begin() == "stocked"


def test_after_a_restart_waiting_jobs_go_where_their_weights_are(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        away = Puppet("away")
        away.is_here = False
        async with service(tmp_path, [away], stop_s=0.0) as jobs:
            waiting = [await sent(jobs, salt="big.safetensors") for _ in range(2)]
        bare, stocked = Puppet("bare"), Puppet("stocked")
        bare.model_files, stocked.model_files = frozenset(), frozenset({"big.safetensors"})
        async with service(tmp_path, [bare, stocked], stop_s=0.0) as jobs:
            for job in waiting:
                await until(lambda: bool(bare.tasks or stocked.tasks))
                assert [task.job_id for task in stocked.tasks] == [job.id]
                assert not bare.tasks
                stocked.listener.has_finished(stocked, stocked.tasks.pop().job_id, success("done"))

    run(case())


def test_a_job_that_is_over_leaves_nothing_whether_or_not_it_ran() -> None:
    front = Front()
    for name in ("ran", "late"):
        front.send(name)
    assert front.begin() == "stocked"
    front.placement.suspect("ran")
    assert front.begin() is None
    front.end("ran")
    front.placement.forget("ran")
    assert front.placement.take() is not None  # and it turns out to be too late for it
    front.placement.release(front.stocked)
    front.placement.forget("late")
    assert not front.placement.has_reserved
    kept = (front.placement._suspects, front.placement._colocation._works, front.placement._affinity._wanted)
    assert kept == (set(), {}, {})


class Fleet:
    """Workers with room for one checkpoint each, and a long queue of jobs that want one of several."""

    def __init__(self, workers: int, checkpoints: str, seed: int) -> None:
        self.chance, self.queue, self.running = random.Random(seed), Queue(), dict[str, Running]()
        self.workers = [Puppet(f"w{at}") for at in range(workers)]
        self.placement = JobPlacement(self.queue, self.workers, self.running, False)
        self.prompts = [self._prompt(self.chance.choice(checkpoints)) for _ in range(300)]
        for at, prompt in enumerate(self.prompts):
            self.placement.add(str(at), prompt)
            self.queue.put(Job(str(at), "abc"[at % 3], State.QUEUED, float(at), 0, 0, 0.0))

    @staticmethod
    def _prompt(checkpoint: str) -> dict[str, Any]:
        return {"1": {"class_type": "Load", "inputs": {"ckpt_name": f"{checkpoint}.safetensors"}}}

    def run(self) -> tuple[list[int], float]:
        """The order in which jobs began, and how many of them found their checkpoint where they began."""
        order, hits, resident = list[int](), 0, dict[str, Any]()
        while True:
            while (placed := self.placement.take()) is not None:
                job, worker = placed
                assert isinstance(worker, Puppet)
                prompt = self.prompts[int(job.id)]
                self.placement.release(worker)
                self.running[job.id] = Running(job, worker, 0.0)
                worker.run(JobAttempt(job.id, job.owner, 1, prompt, (), {}))
                self.placement.begun(job.id, prompt, worker)
                hits += resident.get(worker.name) == prompt
                resident[worker.name] = prompt
                order.append(int(job.id))
            if not self.running:
                return order, hits / len(order)
            ended = self.running.pop(self.chance.choice(list(self.running)))
            ended.worker.tasks.clear()  # type: ignore[attr-defined]
            self.queue.done(ended.job.id)
            self.placement.forget(ended.job.id)


def test_weights_stay_where_they_are() -> None:
    order, hit_rate = Fleet(3, "abc", 5).run()
    assert sorted(order) == list(range(300))
    assert hit_rate > 0.8, "chance would find one in three"


def test_one_worker_keeps_the_order_whatever_it_has() -> None:
    order, _ = Fleet(1, "abc", 5).run()
    assert order == list(range(300))
