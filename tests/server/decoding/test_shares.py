"""Who is next: bounded places, one always left to others, and who used least goes first."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigmagraph.engine.server.decoding.pool import SMALL_BYTES, DecodingBudget
from sigmagraph.engine.server.decoding.shares import HALF_LIFE_S, Shares, Turn


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 5), st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(0, 20)), max_size=80))
def test_places_are_never_too_many_nor_all_of_one_owner_and_none_stays_empty(
    places: int, steps: list[tuple[str, bool, int]]
) -> None:
    shares = Shares(places, lambda: 0.0)
    turns: list[Turn] = []
    for owner, is_new, number in steps:
        if is_new or not turns:
            turns.append(shares.queue(owner))
        else:
            shares.leave(turns.pop(number % len(turns)))
            shares.charge(owner, number)
        held = Counter(turn.owner for turn in turns if turn.ready.is_set())
        waiting = Counter(turn.owner for turn in turns if not turn.ready.is_set())
        assert held.total() <= places
        assert all(count <= max(1, places - 1) for count in held.values())
        assert {owner: shares.waiting(owner) for owner in "abc"} == {owner: waiting[owner] for owner in "abc"}
        if held.total() < places:
            assert all(held[owner] == max(1, places - 1) for owner in waiting)


async def test_who_used_least_of_late_goes_first_and_use_is_forgotten() -> None:
    now = 0.0
    shares = Shares(2, lambda: now)
    shares.charge("greedy", 8.0)
    running = [shares.queue("x"), shares.queue("y")]
    greedy, modest = shares.queue("greedy"), shares.queue("modest")
    shares.leave(running[0])
    assert (modest.ready.is_set(), greedy.ready.is_set()) == (True, False)
    now = 3 * HALF_LIFE_S
    assert shares.used("greedy") == pytest.approx(1.0)


async def test_the_budget_is_kept_but_for_one_that_is_larger_than_all_of_it() -> None:
    budget, order = DecodingBudget(10 * SMALL_BYTES), list[str]()

    async def holds(name: str, size: float, until: asyncio.Event) -> None:
        async with budget.hold(int(size * SMALL_BYTES)):
            order.append(name)
            await until.wait()

    first, second = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for name, size, until in (("a", 6, first), ("b", 6, second), ("c", 3, second), ("small", 1, second)):
            tasks.create_task(holds(name, size, until))
            await asyncio.sleep(0)
        assert order == ["a", "small"]  # c stands behind b
        first.set()
        await asyncio.sleep(0.01)
        assert order == ["a", "small", "b", "c"]
        tasks.create_task(holds("huge", 100, first))
        await asyncio.sleep(0.01)
        assert "huge" not in order
        second.set()
    assert order[-1] == "huge"
