"""The order of waiting jobs: laws of a pure thing."""

import math
import random
from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from sigmagraph.engine.jobs.job import Job, State
from sigmagraph.engine.jobs.queue import FEW, MOST_OVERTAKEN, Queue


def job(name: str, number: float = 0.0, priority: int = 0, owner: str = "a") -> Job:
    return Job(name, owner, State.QUEUED, number, priority, 0, 0.0)


def drained(queue: Queue) -> list[str]:
    """All ids, each job done before the next is taken."""
    order = []
    while (taken := queue.take()) is not None:
        order.append(taken.id)
        queue.done(taken.id)
    return order


JOBS = st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 2), st.sampled_from("abc")), max_size=30)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 2)), max_size=30))
def test_one_owners_jobs_come_by_priority_then_number_then_arrival(facts: list[tuple[int, int]]) -> None:
    queue, jobs = Queue(), [job(str(i), float(number), priority) for i, (number, priority) in enumerate(facts)]
    for waiting in jobs:
        queue.put(waiting)
    expected = sorted(jobs, key=lambda waiting: (-waiting.priority, waiting.number, int(waiting.id)))
    assert drained(queue) == [waiting.id for waiting in expected]


@settings(deadline=None, max_examples=50)
@given(JOBS)
def test_every_job_comes_once_and_nothing_is_kept(facts: list[tuple[int, int, str]]) -> None:
    queue = Queue()
    for i, (number, priority, owner) in enumerate(facts):
        queue.put(job(str(i), float(number), priority, owner))
        queue.put(job(str(i), float(number) + 1, priority, owner))
    assert len(queue) == len(facts)
    assert sorted(drained(queue), key=int) == [str(i) for i in range(len(facts))]
    assert (queue._owners, queue._arrivals, queue._waiting, queue._jobs) == ({}, {}, {}, {})


@settings(deadline=None, max_examples=50)
@given(JOBS, st.integers(1, 5))
def test_no_owner_waits_for_more_than_one_job_of_each_other(facts: list[tuple[int, int, str]], slots: int) -> None:
    queue, waiting = Queue(), dict.fromkeys("abc", 0)
    for i, (number, _, owner) in enumerate(facts):
        queue.put(job(str(i), float(number), 0, owner))
        waiting[owner] += 1
    since = dict.fromkeys("abc", 0)
    while (taken := queue.take()) is not None:
        waiting[taken.owner] -= 1
        for owner in "abc":
            since[owner] = 0 if owner == taken.owner or not waiting[owner] else since[owner] + 1
        assert max(since.values()) <= 2
        queue.done(taken.id)


@settings(deadline=None, max_examples=50)
@given(JOBS, st.integers(0, 30))
def test_the_highest_priority_is_that_of_what_waits_still(facts: list[tuple[int, int, str]], taken: int) -> None:
    queue = Queue()
    for i, (number, priority, owner) in enumerate(facts):
        queue.put(job(str(i), float(number), priority, owner))
    for _ in range(taken):
        queue.take()
    assert queue.highest_priority() == max((waiting.priority for waiting in queue._jobs.values()), default=-math.inf)


def test_with_many_slots_each_owner_gets_its_share() -> None:
    queue = Queue()
    for i in range(20):
        queue.put(job(f"many{i}", owner="many"))
    for i in range(2):
        queue.put(job(f"few{i}", owner="few"))
    running = [taken.owner for _ in range(4) if (taken := queue.take()) is not None]
    assert sorted(running) == ["few", "few", "many", "many"]


def test_a_job_that_comes_back_is_first_again() -> None:
    queue = Queue()
    for name in ("first", "second"):
        queue.put(job(name))
    taken = queue.take()
    assert taken is not None
    queue.done(taken.id, is_back=True)
    queue.put(taken)
    assert drained(queue) == ["first", "second"]


def test_a_removed_job_does_not_come() -> None:
    queue = Queue()
    for name in ("x", "y"):
        queue.put(job(name))
    queue.remove("x")
    queue.remove("x")
    assert (len(queue), queue.waiting("a"), "x" in queue) == (1, 1, False)
    assert drained(queue) == ["y"]


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.sampled_from("abc"), min_size=3, max_size=24),
    st.lists(st.tuples(st.integers(0, 23), st.sampled_from([-1e300, -9e299, -5.0, 0.0, 3.0, 9e299])), max_size=40),
    st.sets(st.sampled_from("abc"), min_size=1),
)
def test_moves_change_the_order_of_the_movers_own_jobs_alone(
    owners: list[str], moves: list[tuple[int, float]], movers: set[str]
) -> None:
    """The turns of owners are the same with and without moves, and so are the jobs of who moves none."""
    jobs = [job(f"{owner}{at}", float(at), 0, owner) for at, owner in enumerate(owners)]
    still, moved = Queue(), Queue()
    for waiting in jobs:
        still.put(waiting)
        moved.put(waiting)
    for at, number in moves:
        waiting = jobs[at % len(jobs)]
        if waiting.owner in movers:
            moved.put(replace(waiting, number=number))
    one, other = drained(still), drained(moved)
    assert [name[0] for name in one] == [name[0] for name in other]
    assert [name for name in one if name[0] not in movers] == [name for name in other if name[0] not in movers]


def test_among_owners_who_had_no_turn_it_is_who_began_to_wait_first() -> None:
    queue = Queue()
    for name in ("a", "b", "c"):
        queue.put(job(f"{name}1", 5.0, 0, name))
    queue.put(job("c1", -9e299, 0, "c"))
    assert drained(queue) == ["a1", "b1", "c1"]


def test_ten_thousand_moves_leave_a_few_entries() -> None:
    queue = Queue()
    for at in range(8):
        queue.put(job(str(at), float(at)))
    for at in range(10_000):
        queue.put(job(str(at % 8), float(at // 8 % 5000)))
        queue.put(job("7", -1.0))  # to the same place, again and again
        assert len(queue._owners["a"].heap) <= 2 * 8 + FEW
    assert sorted(drained(queue)) == [str(at) for at in range(8)]


@settings(deadline=None, max_examples=100)
@given(JOBS, st.integers(1, 4), st.randoms(use_true_random=False))
def test_a_job_that_suits_better_overtakes_none_but_equals(
    facts: list[tuple[int, int, str]], slots: int, chance: random.Random
) -> None:
    """Priorities stay, and who has least running comes first."""
    queue, jobs = Queue(), [job(str(i), float(n), p, o) for i, (n, p, o) in enumerate(facts)]
    for waiting in jobs:
        queue.put(waiting)
    taken: list[Job] = []
    running: list[Job] = []
    while (found := queue.take(overtakes=lambda first: lambda other: chance.random() < 0.5)) is not None:
        left = [waiting for waiting in jobs if waiting not in taken]
        assert found.priority == max(waiting.priority for waiting in left)
        equals = {waiting.owner for waiting in left if waiting.priority == found.priority}
        has = Counter(each.owner for each in running)
        assert has[found.owner] == min(has[owner] for owner in equals)
        taken.append(found)
        running.append(found)
        if len(running) == slots:
            queue.done(running.pop(0).id)
    assert len({each.id for each in taken}) == len(jobs)
    assert not queue._overtaken


def test_the_last_overtakes_no_more_than_the_bound_and_nothing_that_was_moved_to_the_front() -> None:
    queue = Queue()
    for i in range(100):
        queue.put(job(str(i), 1.0))
    queue.put(job("front", -1.0))

    def taken() -> str:
        found = queue.take(overtakes=lambda first: lambda other: other.id != "0")
        assert found is not None
        return found.id

    assert taken() == "front"
    order = [taken() for _ in range(100)]
    assert order.index("0") == MOST_OVERTAKEN
    assert order == [*(str(i) for i in range(1, 33)), "0", *(str(i) for i in range(33, 100))]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 150), st.randoms(use_true_random=False))
def test_no_job_begins_behind_more_later_ones_than_may_pass_it(count: int, chance: random.Random) -> None:
    queue = Queue()
    for i in range(count):
        queue.put(job(str(i)))
    order = []
    while (found := queue.take(overtakes=lambda first: lambda other: chance.random() < 0.1)) is not None:
        order.append(int(found.id))
    assert sorted(order) == list(range(count))
    assert max(sum(later > i for later in order[:place]) for place, i in enumerate(order)) <= MOST_OVERTAKEN
