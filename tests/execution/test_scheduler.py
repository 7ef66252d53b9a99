import asyncio
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from itertools import count
from typing import Any

import pytest

from sigmagraph.engine.errors import NodeFailed, OutOfMemory
from sigmagraph.engine.execution import events
from sigmagraph.engine.execution.cache.memory import Entry, MemoryCache
from sigmagraph.engine.execution.inline import execute
from sigmagraph.engine.execution.lanes.policy import Claimant, first
from sigmagraph.engine.execution.lanes.scheduler import Scheduler
from sigmagraph.engine.execution.lanes.ticket import Ticket
from sigmagraph.engine.graph.node import Node, Progress, node
from sigmagraph.engine.graph.plan import plan
from tests.execution.running import with_nodes
from tests.graph.small import Anything, checked, prompt

ORDER: list[tuple[str, int]] = []


@node("Sampler", category="test", lane="device")
def sampler(*, steps: int = 4, seed: int = 0, name: str = "", pause_ms: int = 0) -> Generator[Progress, None, int]:
    """A stand-in for a sampler: a little arithmetic per step."""
    state = seed
    yield Progress(0, steps)  # as samplers do: announces the number of steps and says nothing about their pace
    for step in range(steps):
        ORDER.append((name, step))
        time.sleep(pause_ms / 1000)
        state = (state * 1103515245 + 12345) % 2**31
        yield Progress(step + 1, steps)
    return state


@node("Encode", category="test", lane="host")
def encode(*, value: int = 0, pause_ms: int = 0) -> str:
    """Host work."""
    time.sleep(pause_ms / 1000)
    return f"png of {value}"


@node("Fails", category="test", lane="device")
def fails(*, value: int = 0) -> Generator[Progress, None, int]:
    """Fails half-way."""
    yield Progress(1, 2)
    raise ValueError("half-way")


MEETING = threading.Barrier(4)


@node("Meet", category="test", lane="host")
def meet(*, value: int = 0) -> int:
    """Waits until three others are there too."""
    MEETING.wait(10)
    return value


NODES = with_nodes(sampler, encode, fails, meet)


@pytest.fixture(autouse=True)
def no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that is not woken sleeps on: no look of its own now and then hides that."""
    monkeypatch.setattr("sigmagraph.engine.execution.lanes.scheduler.IDLE_S", 1000.0)


def job(name: str, steps: int = 4, seed: int = 0, pause_ms: int = 0, encode_ms: int = 0) -> Any:
    inputs = {"steps": steps, "seed": seed, "name": name, "pause_ms": pause_ms}
    document = prompt(
        k=("Sampler", inputs), e=("Encode", {"value": ["k", 0], "pause_ms": encode_ms}), s=("Show", {"value": ["e", 0]})
    )
    return plan(checked(document, NODES))


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    ORDER.clear()
    made = Scheduler(cache=MemoryCache(budget_bytes=0), host_threads=2)
    yield made
    made.close()


@pytest.fixture
def gate() -> Iterator[Callable[[], Any]]:
    """Makes a plan whose node holds the device until it is let go."""
    opened = threading.Event()

    @node("Gate", category="test", lane="device")
    def hold(*, value: int = 0) -> int:
        """Holds the lane."""
        opened.wait(10)
        return value

    made = plan(checked(prompt(g=("Gate", {"value": 1}), s=("Show", {"value": ["g", 0]})), with_nodes(hold)))
    hold_open: Any = lambda: made  # noqa: E731
    hold_open.open = opened.set
    yield hold_open
    opened.set()


def test_a_job_gives_the_result_it_gives_alone(scheduler: Scheduler) -> None:
    made = job("a", 9, seed=3)
    assert scheduler.submit(made).wait(20).or_raise().ui == execute(made, None, MemoryCache(0)).ui


def test_results_of_interleaved_jobs_are_those_of_the_jobs_alone(scheduler: Scheduler) -> None:
    plans = [job(str(i), steps=1 + (i * 7) % 13, seed=i) for i in range(30)]
    alone = [execute(planned, None, MemoryCache(0)).ui for planned in plans]
    tickets = [scheduler.submit(planned) for planned in plans]
    assert [ticket.wait(30).or_raise().ui for ticket in tickets] == alone


def test_a_short_job_does_not_wait_for_a_long_one(scheduler: Scheduler) -> None:
    long = scheduler.submit(job("long", 60, pause_ms=5))
    while ("long", 3) not in ORDER:
        time.sleep(0.001)
    short = scheduler.submit(job("short", 4, pause_ms=5))
    short.wait(20).or_raise()
    assert not long.is_done
    begun = next(at for at, (name, _) in enumerate(ORDER) if name == "short")
    between = [name for name, _ in ORDER[begun:] if name == "long"][: ORDER.index(("short", 3)) - begun]
    assert ORDER.index(("short", 3)) - begun < 8
    assert len(between) <= 4
    long.wait(20).or_raise()


def test_equal_jobs_are_finished_in_the_order_they_came(gate: Any) -> None:
    ORDER.clear()
    clocks = defaultdict(count)  # of each thread its own, so that every step takes equally long
    scheduler = Scheduler(clock=lambda: float(next(clocks[threading.get_ident()])))
    held = scheduler.submit(gate())
    tickets = [scheduler.submit(job(str(i), 10, seed=i)) for i in range(4)]
    gate.open()
    held.wait(20)
    for ticket in tickets:
        ticket.wait(20).or_raise()
    ends = [ORDER.index((str(i), 9)) for i in range(4)]
    assert ends == sorted(ends)
    scheduler.close()


def test_a_higher_priority_goes_first(scheduler: Scheduler, gate: Any) -> None:
    scheduler.submit(gate())
    low = scheduler.submit(job("low", 5, seed=1))
    high = scheduler.submit(job("high", 5, seed=2), priority=1)
    gate.open()
    high.wait(20)
    low.wait(20)
    assert ORDER.index(("high", 4)) < ORDER.index(("low", 0))


@pytest.mark.parametrize(
    ("claimants", "expected"),
    [
        ([Claimant(0, 30, 0, 0, 1), Claimant(0, 2, 0, 0, 2)], 2),
        ([Claimant(0, 30, 0, 0, 1), Claimant(0, 25, 0, 0, 2)], 1),
        ([Claimant(0, 30, 0, 0, 1), Claimant(0, 0, 0, 0, 2)], 2),
        ([Claimant(0, 0.3, 29.7, 40, 1), Claimant(0, 1, 0, 0, 2)], 2),
        ([Claimant(0, 0.01, 29.99, 40, 1), Claimant(0, 1, 0, 0, 2)], 1),
        ([Claimant(0, 30, 0, 600, 1), Claimant(0, 2, 0, 0, 2)], 2),
        ([Claimant(0, 30, 0, 10_000, 1), Claimant(0, 2, 0, 0, 2)], 1),
        ([Claimant(0, 2, 0, 0, 1), Claimant(1, 900, 0, 0, 2)], 2),
        ([Claimant(9, 1, 0, 0, 1), Claimant(0, 5, 0, 0, 2, is_ending=True)], 2),
        ([Claimant(0, 4, 0, 0, 1), Claimant(0, 4, 0, 0, 2), Claimant(0, 4, 0, 0, 3)], 1),
    ],
)
def test_who_goes_first(claimants: list[Claimant], expected: int) -> None:
    assert first(claimants).arrival == expected
    assert first(reversed(claimants)).arrival == expected


def test_host_work_of_one_job_overlaps_with_device_work_of_another(scheduler: Scheduler) -> None:
    seen: list[tuple[str, float]] = []

    def note(name: str) -> Callable[[events.Event], None]:
        def emit(event: events.Event) -> None:
            if isinstance(event, events.NodeFinished):
                seen.append((f"{name}.{event.node_id}", time.perf_counter()))

        return emit

    first = scheduler.submit(job("a", 2, seed=1, encode_ms=200), note("a"))
    second = scheduler.submit(job("b", 5, seed=2, pause_ms=5), note("b"))
    first.wait(20).or_raise()
    second.wait(20).or_raise()
    times = dict(seen)
    assert times["b.k"] < times["a.e"]


@pytest.mark.parametrize("jobs", [1, 4])
def test_every_thread_of_the_host_lane_is_woken_for_work(jobs: int) -> None:
    each = 4 // jobs
    scheduler = Scheduler(host_threads=4)
    try:
        tickets = []
        for at in range(jobs):
            nodes = {f"m{i}": ("Meet", {"value": 10 * at + i}) for i in range(each)}
            shows = {f"s{i}": ("Show", {"value": [f"m{i}", 0]}) for i in range(each)}
            tickets.append(scheduler.submit(plan(checked(prompt(**nodes, **shows), NODES))))
        assert [ticket.wait(10).error for ticket in tickets] == [None] * jobs
    finally:
        scheduler.close()


def test_a_failure_concerns_its_job_alone(scheduler: Scheduler) -> None:
    bad = plan(checked(prompt(f=("Fails", {"value": 1}), s=("Show", {"value": ["f", 0]})), NODES))
    tickets = [scheduler.submit(planned) for planned in (job("a", seed=1), bad, job("b", seed=2))]
    results = [ticket.wait(20) for ticket in tickets]
    assert [result.error is None for result in results] == [True, False, True]
    assert isinstance(results[1].error, NodeFailed)


def test_a_listener_that_fails_stops_nothing(scheduler: Scheduler, caplog: pytest.LogCaptureFixture) -> None:
    def emit(event: events.Event) -> None:
        raise RuntimeError("listener")

    scheduler.submit(job("a"), emit).wait(20).or_raise()
    assert "a listener failed on RunStarted" in caplog.text


def test_a_cancelled_job_ends_between_two_steps_and_the_next_goes_on(scheduler: Scheduler) -> None:
    long = scheduler.submit(job("long", 10_000, pause_ms=1))
    while ("long", 2) not in ORDER:
        time.sleep(0.001)
    scheduler.withdraw(long)
    assert long.wait(20).is_cancelled
    assert scheduler.submit(job("next", seed=5)).wait(20).error is None
    assert ("long", 9_999) not in ORDER


def test_a_job_can_be_cancelled_before_it_begins(gate: Any) -> None:
    scheduler = Scheduler(host_threads=1, most_jobs=1)
    held = scheduler.submit(gate())
    queued = scheduler.submit(job("queued"))
    scheduler.withdraw(queued)
    assert queued.wait(20).is_cancelled
    assert not held.is_done
    gate.open()
    held.wait(20).or_raise()
    scheduler.close()


def test_closing_cancels_what_is_left() -> None:
    scheduler = Scheduler()
    tickets = [scheduler.submit(job(str(i), 100_000, seed=i, pause_ms=1)) for i in range(20)]
    scheduler.close()
    assert all(ticket.wait(5).is_cancelled for ticket in tickets)


def counted(*failures: BaseException) -> tuple[Node, list[int]]:
    tries: list[int] = []
    left = list(failures)

    @node("Heavy", category="test", lane="device")
    def heavy(*, value: int = 0) -> Generator[Progress, None, int]:
        """Runs out of memory."""
        tries.append(value)
        yield Progress(1, 2)
        if left:
            raise left.pop(0)
        return value

    return heavy, tries


class OutOfMemoryError(RuntimeError):
    """As the tensor library calls it."""


@pytest.mark.parametrize("failure", [MemoryError("no"), OutOfMemoryError("CUDA out of memory")])
def test_out_of_memory_frees_and_tries_once_more(failure: BaseException) -> None:
    freed: list[int] = []
    heavy, tries = counted(failure)
    scheduler = Scheduler(free=lambda: freed.append(1))
    scheduler.store.memory.put("old", Entry(([1],)))
    made = plan(checked(prompt(h=("Heavy", {"value": 1}), s=("Show", {"value": ["h", 0]})), with_nodes(heavy)))
    assert scheduler.submit(made).wait(20).or_raise().ui == {"s": {"shown": [1]}}
    assert (tries, freed) == ([1, 1], [1])
    assert "old" not in scheduler.store
    scheduler.close()


def test_out_of_memory_twice_fails_that_job_alone() -> None:
    heavy, tries = counted(MemoryError("one"), MemoryError("two"))
    scheduler = Scheduler()
    made = plan(checked(prompt(h=("Heavy", {"value": 1}), s=("Show", {"value": ["h", 0]})), with_nodes(heavy)))
    bad, good = scheduler.submit(made), scheduler.submit(job("good"))
    error = bad.wait(20).error
    assert isinstance(error, NodeFailed)
    assert isinstance(error.__cause__, OutOfMemory)
    assert "not enough memory" in str(error)
    assert good.wait(20).error is None
    assert len(tries) == 2
    scheduler.close()


def test_the_second_try_has_the_device_to_itself() -> None:
    """Another job's sampler is half-way when memory runs out: it ends first, and a third one begins only afterwards."""
    ORDER.clear()
    tries: list[int] = []

    @node("Greedy", category="test", lane="device")
    def greedy(*, value: int = 0) -> int:
        """Runs out of memory while others are under way."""
        tries.append(len(ORDER))
        ORDER.append(("greedy", len(tries)))
        if len(tries) == 1:
            raise MemoryError("beside another")
        return value

    made = plan(checked(prompt(h=("Greedy", {"value": 1}), s=("Show", {"value": ["h", 0]})), with_nodes(greedy)))
    scheduler = Scheduler()
    long = scheduler.submit(job("long", 60, pause_ms=2))
    while ("long", 3) not in ORDER:
        time.sleep(0.001)
    hungry = scheduler.submit(made)
    while not tries:
        time.sleep(0.001)
    late = scheduler.submit(job("late", 3, seed=9, pause_ms=2))
    assert [ticket.wait(20).error for ticket in (long, hungry, late)] == [None] * 3
    assert ORDER.index(("long", 59)) < ORDER.index(("greedy", 2)) < ORDER.index(("late", 0))
    scheduler.close()


def test_a_short_job_goes_before_the_last_steps_and_the_decoding_of_a_long_one() -> None:
    """Time is counted in steps of the device; decoding takes eight of them."""
    ORDER.clear()
    now = 0.0

    @node("Decode", category="test", lane="device")
    def decode(*, value: int = 0, name: str = "") -> int:
        """A node without progress."""
        nonlocal now
        now += 8
        ORDER.append((name, -1))
        return value

    @node("Counted", category="test", lane="device")
    def sample(*, steps: int, seed: int = 0, name: str = "") -> Generator[Progress, None, int]:
        """A sampler that moves the clock, and lets a short job in before the last two steps of the long one."""
        nonlocal now
        for step in range(steps):
            now += 1
            ORDER.append((name, step))
            if (name, step) == ("long", 67):
                tickets.append(scheduler.submit(made("short", 4)))
            yield Progress(step + 1, steps)
        return seed

    def made(name: str, steps: int) -> Any:
        document = prompt(
            k=("Counted", {"steps": steps, "name": name, "seed": steps}),
            d=("Decode", {"value": ["k", 0], "name": name}),
            s=("Show", {"value": ["d", 0]}),
        )
        return plan(checked(document, with_nodes(decode, sample)))

    scheduler = Scheduler(cache=MemoryCache(0), clock=lambda: now)
    tickets = [scheduler.submit(made("first", 2))]
    tickets[0].wait(20).or_raise()
    tickets.append(scheduler.submit(made("long", 70)))
    tickets[1].wait(20).or_raise()
    tickets[2].wait(20).or_raise()
    assert ORDER.index(("short", -1)) < ORDER.index(("long", 69))
    scheduler.close()


def test_the_inline_driver_tries_once_more_too() -> None:
    heavy, tries = counted(MemoryError("one"))
    made = plan(checked(prompt(h=("Heavy", {"value": 1}), s=("Show", {"value": ["h", 0]})), with_nodes(heavy)))
    assert execute(made).error is None
    assert len(tries) == 2


def test_equal_jobs_at_once_compute_once() -> None:
    ORDER.clear()
    scheduler = Scheduler()
    tickets = [scheduler.submit(job("same", 20, pause_ms=1)) for _ in range(8)]
    results = [ticket.wait(20).or_raise() for ticket in tickets]
    assert len(ORDER) == 20
    assert len({str(result.ui) for result in results}) == 1
    assert sorted(result.nodes["k"].outcome for result in results) == ["executed", *["memory"] * 7]
    scheduler.close()


def test_when_the_one_who_computes_is_cancelled_another_takes_over() -> None:
    ORDER.clear()
    scheduler = Scheduler()
    first = scheduler.submit(job("same", 50, pause_ms=2))
    while ("same", 2) not in ORDER:
        time.sleep(0.001)
    second = scheduler.submit(job("same", 50, pause_ms=2))
    scheduler.withdraw(first)
    assert first.wait(20).is_cancelled
    assert second.wait(20).or_raise().nodes["k"].outcome == "executed"
    scheduler.close()


def test_a_thousand_cancels_at_random_moments_leave_no_stuck_lane_and_no_wrong_entry() -> None:
    dice = random.Random(11)
    cache = MemoryCache()
    scheduler = Scheduler(cache=cache, host_threads=2)
    plans = [job("", steps=dice.randrange(1, 12), seed=dice.randrange(5)) for _ in range(40)]
    alone = [execute(planned, None, MemoryCache(0)).ui for planned in plans]
    tickets: list[tuple[int, Ticket]] = []
    for _ in range(1000):
        which = dice.randrange(len(plans))
        tickets.append((which, scheduler.submit(plans[which])))
        if dice.random() < 0.3:
            time.sleep(dice.random() * 0.0005)
        scheduler.withdraw(dice.choice(tickets[-20:])[1])
    results = [(which, ticket.wait(60)) for which, ticket in tickets]
    assert {result.is_cancelled for _, result in results} == {True, False}
    assert all(result.is_cancelled or result.ui == alone[which] for which, result in results)
    assert scheduler.submit(plans[0]).wait(20).ui == alone[0]
    for which, planned in enumerate(plans):
        assert execute(planned, None, cache).ui == alone[which]
    scheduler.close()
    assert not scheduler._tickets
    assert not scheduler.store._flights


def test_async_nodes_of_several_jobs_wait_side_by_side() -> None:
    together: list[int] = []
    now = 0

    @node("Waits", category="test", lane="device")
    async def waits(*, value: int = 0) -> int:
        """Waits."""
        nonlocal now
        now += 1
        together.append(now)
        await asyncio.sleep(0.05)
        now -= 1
        return value

    scheduler = Scheduler()
    plans = [
        plan(checked(prompt(w=("Waits", {"value": i}), s=("Show", {"value": ["w", 0]})), with_nodes(waits)))
        for i in range(5)
    ]
    tickets = [scheduler.submit(planned) for planned in plans]
    assert [ticket.wait(20).or_raise().ui["s"]["shown"] for ticket in tickets] == [[i] for i in range(5)]
    assert max(together) == 5
    scheduler.close()


def test_a_job_that_waits_for_async_work_is_cancelled_at_once() -> None:
    begun = threading.Event()

    @node("Waits", category="test")
    async def waits(*, value: Anything) -> Anything:
        """Waits for ever."""
        begun.set()
        await asyncio.sleep(3600)

    scheduler = Scheduler()
    ticket = scheduler.submit(
        plan(checked(prompt(w=("Waits", {"value": 1}), s=("Show", {"value": ["w", 0]})), with_nodes(waits)))
    )
    begun.wait(10)
    scheduler.withdraw(ticket)
    assert ticket.wait(5).is_cancelled
    scheduler.close()
