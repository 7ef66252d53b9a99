"""Who may begin beside whom: equal jobs one after the other, a much shorter one beside a long one."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from sigmagraph.engine.execution.events import NodeFinished, NodeProgress
from sigmagraph.engine.jobs.events import Ended, JobEvent, Preview, Requeued, Started
from sigmagraph.engine.jobs.job import Job, State
from sigmagraph.engine.jobs.placement.colocation import Colocation
from sigmagraph.engine.jobs.service import JobService
from tests.jobs.serving import child, here, sent, service

Runs = Callable[[Coroutine[Any, Any, None]], None]
RECORDS = [{"class_type": "Sample", "lane": "device"}, {"class_type": "Decode", "lane": "device"}]
RECORDS += [{"class_type": "Save", "lane": "host"}]


def graph(steps: int) -> dict[str, Any]:
    return {
        "1": {"class_type": "Sample", "inputs": {"seed": 7, "steps": steps}},
        "2": {"class_type": "Decode", "inputs": {"samples": ["1", 0]}},
        "3": {"class_type": "Save", "inputs": {"images": ["2", 0]}},
    }


HOST_ONLY = {"1": {"class_type": "Save", "inputs": {}}}


def job(name: str, priority: int = 0) -> Job:
    return Job(name, "local", State.RUNNING, 0.0, priority, 1, 0.0)


def sampled(colocation: Colocation, name: str, steps: int, done: int, pace_s: float = 1.0, at: float = 0.0) -> Job:
    """A running job whose sampler has done so many steps."""
    colocation.begun(name, graph(steps))
    for step in range(1, done + 1):
        colocation.hear(name, NodeProgress("1", step, steps), at + step * pace_s)
    return job(name)


def informed() -> Colocation:
    colocation = Colocation()
    colocation.declare(RECORDS)
    return colocation


@pytest.mark.parametrize(
    ("steps", "expected"), [(4, True), (9, True), (10, False), (20, False), (40, False)], ids="{}".format
)
def test_only_what_needs_half_of_what_is_left_begins_beside_it(steps: int, expected: bool) -> None:
    colocation = informed()
    running = sampled(colocation, "long", 20, 2)  # 18 s are left
    assert colocation.may_begin_at_once(colocation.room([running]), graph(steps), 0) is expected
    colocation.add("waits", graph(steps))
    assert colocation.may_begin(colocation.room([running]), job("waits")) is expected


def test_nothing_begins_beside_a_job_of_which_nothing_is_known() -> None:
    colocation = informed()
    colocation.begun("long", graph(1000))
    assert not colocation.may_begin_at_once(colocation.room([job("long")]), graph(1), 0)


def test_what_takes_moments_waits_for_what_takes_moments() -> None:
    colocation = informed()
    running = sampled(colocation, "long", 20, 2, pace_s=0.01)
    assert not colocation.may_begin_at_once(colocation.room([running]), graph(1), 0)


def test_the_time_of_a_class_without_progress_counts() -> None:
    colocation = informed()
    running = sampled(colocation, "long", 20, 2)
    sampled(colocation, "other", 21, 21)
    colocation.hear("other", NodeFinished("2", "Decode", "2", "executed", 12_000.0), 30.0)
    assert not colocation.may_begin_at_once(colocation.room([running]), graph(4), 0)  # 16 s beside 30 s
    assert colocation.may_begin_at_once(colocation.room([running]), graph(3), 0)


def test_what_was_done_before_takes_no_time() -> None:
    colocation = informed()
    sampled(colocation, "before", 19, 19)
    for node_id, kind in (("1", "Sample"), ("2", "Decode")):
        colocation.hear("before", NodeFinished(node_id, kind, node_id, "executed", 9_000.0), 30.0)
    running = sampled(colocation, "long", 20, 2)
    assert colocation.may_begin_at_once(colocation.room([running]), graph(19), 0)
    assert not colocation.may_begin_at_once(colocation.room([running]), graph(18), 0)
    renamed = {f"n{i}": node for i, node in graph(19).items()}
    renamed["n2"] = {"class_type": "Decode", "inputs": {"samples": ["n1", 0]}}
    assert colocation.may_begin_at_once(colocation.room([running]), renamed, 0)


def test_links_in_a_ring_or_to_nowhere_are_read_to_their_end() -> None:
    colocation = informed()
    ring = {i: {"class_type": "Sample", "inputs": {"a": [j, 0], "b": ["gone", 0]}} for i, j in (("1", "2"), ("2", "1"))}
    assert not colocation.may_begin_at_once(colocation.room([sampled(colocation, "long", 20, 2)]), ring, 0)
    long = {str(i): {"class_type": "Sample", "inputs": {"a": [str(i - 1), 0], "steps": 1}} for i in range(5_000)}
    colocation.add("long chain", long)


def test_a_third_has_to_be_shorter_than_what_is_left_of_each() -> None:
    colocation = informed()
    both = [sampled(colocation, "long", 100, 2), sampled(colocation, "short", 8, 2)]
    assert not colocation.may_begin_at_once(colocation.room(both), graph(4), 0)
    assert colocation.may_begin_at_once(colocation.room(both), graph(3), 0)


def test_what_needs_no_device_begins_beside_what_does_and_not_beside_its_like() -> None:
    colocation = informed()
    colocation.begun("long", graph(20))
    colocation.begun("saves", HOST_ONLY)
    assert colocation.may_begin_at_once(colocation.room([job("long")]), HOST_ONLY, 0)
    assert not colocation.may_begin_at_once(colocation.room([job("long"), job("saves")]), HOST_ONLY, 0)


def test_the_more_urgent_begins_beside_the_less_urgent() -> None:
    colocation = informed()
    colocation.begun("long", graph(20))
    assert colocation.may_begin_at_once(colocation.room([job("long")]), graph(20), 1)
    assert not colocation.may_begin_at_once(colocation.room([job("long"), job("long", priority=1)]), graph(20), 1)


def test_where_evaluations_are_shared_every_slot_is_taken() -> None:
    colocation = Colocation(takes_every_slot=True)
    assert colocation.may_begin_at_once(colocation.room([job("long")]), graph(20), 0)


@pytest.mark.parametrize("done", [0, 2, 15, 20])
@pytest.mark.parametrize("priority", [0, 1])
@pytest.mark.parametrize("needs_device", [True, False])
def test_the_waiting_are_looked_at_wherever_one_may_begin(done: int, priority: int, needs_device: bool) -> None:
    colocation = informed()
    room = colocation.room([sampled(colocation, "long", 20, done)])
    assert colocation.may_fit(room, 0) is (done in (2, 15))
    colocation.add("waits", graph(1) if needs_device else HOST_ONLY)
    expected = bool(priority) or not needs_device or done in (2, 15)
    assert colocation.may_begin(room, job("waits", priority)) is expected
    assert colocation.may_fit(room, priority) is expected


class Watch:
    """How many jobs run at each moment, and in which order they ended."""

    def __init__(self, jobs: JobService) -> None:
        self.running: set[str] = set()
        self.most, self.ended = 0, list[str]()
        jobs.listen(self.hear)

    def hear(self, what: JobEvent | Preview) -> None:
        match what:
            case JobEvent(body=Started()):
                self.running.add(what.job_id)
                self.most = max(self.most, len(self.running))
            case JobEvent(body=Ended()):
                self.running.discard(what.job_id)
                self.ended.append(what.job_id)
            case JobEvent(body=Requeued()):
                self.running.discard(what.job_id)
            case _:
                pass


@pytest.mark.parametrize("kind", ["Turns", "Steps"])
def test_equal_jobs_run_one_after_the_other_in_their_order(run: Runs, tmp_path: Path, kind: str) -> None:
    async def case() -> None:
        async with service(tmp_path, [here(slots=4)]) as jobs:
            watch = Watch(jobs)
            made = [await sent(jobs, kind, count=20, seconds=0.01) for _ in range(4)]
            for submitted in made:
                await jobs.wait(submitted.id)
            assert watch.most == 1
            assert watch.ended == [submitted.id for submitted in made]

    run(case())


@pytest.mark.parametrize(("slots", "is_beside"), [(4, True), (1, False)])
def test_a_short_job_overtakes_a_long_one_where_there_is_a_slot(
    run: Runs, tmp_path: Path, slots: int, is_beside: bool
) -> None:
    async def case() -> None:
        async with service(tmp_path, [here(slots=slots)]) as jobs:
            watch = Watch(jobs)
            long = await sent(jobs, "Turns", count=150, seconds=0.02)
            equal = await sent(jobs, "Turns", count=150, seconds=0.0201)
            short = await sent(jobs, "Turns", count=5, seconds=0.02)
            await jobs.wait(short.id)
            assert (long.id in watch.running) is is_beside
            assert watch.most == (2 if is_beside else 1)
            assert (await jobs.get(equal.id)).state is (State.QUEUED if is_beside else State.SUCCEEDED)
            await jobs.cancel_all()

    run(case())


def test_an_idle_worker_takes_the_next_job_whatever_others_do(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path, [here(name="a", slots=4), here(name="b", slots=1)]) as jobs:
            watch = Watch(jobs)
            made = [await sent(jobs, "Turns", count=100, seconds=0.01) for _ in range(3)]
            await jobs.wait(made[0].id)
            assert watch.most == 2
            await jobs.cancel_all()

    run(case())


def test_a_job_that_is_given_up_after_its_worker_died_leaves_nothing_behind(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with service(tmp_path, [child()], max_deaths=1) as jobs:
            assert (await jobs.wait((await sent(jobs, "Die")).id)).state is State.FAILED
            assert (await jobs.wait((await sent(jobs)).id)).state is State.SUCCEEDED
            assert vars(jobs._dispatcher._placement._colocation)["_works"] == {}  # what 10,000 such jobs would leave

    run(case())
