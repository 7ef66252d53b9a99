"""Evaluations of several jobs in one call: on request only, and never the matter of a job that has no part in them."""

import logging
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from sigmagraph.engine.errors import NodeFailed
from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.inline import execute
from sigmagraph.engine.execution.lanes.scheduler import Scheduler
from sigmagraph.engine.execution.lanes.ticket import Ticket
from sigmagraph.engine.graph.node import Node, Progress, node
from sigmagraph.engine.graph.plan import Plan, plan
from sigmagraph.engine.graph.results import Joinable
from tests.execution.running import with_nodes
from tests.graph.small import checked, prompt


@dataclass
class Network:
    """Stands in for a model: a row depends on nothing but its own state. Notes how many rows each call had."""

    calls: list[int] = field(default_factory=list)
    most: int = 100

    def __call__(self, states: Sequence[float]) -> list[float]:
        self.calls.append(len(states))
        if len(states) > self.most:
            raise MemoryError(f"{len(states)} rows are too many")
        if any(state < 0 for state in states):
            raise ValueError("no state is below zero")
        return [(state * 1.1 + 0.3) % 7.0 for state in states]


@dataclass
class Bench:
    """A network, a sampler that asks it, and a gate that holds the device until all jobs are there."""

    network: Network = field(default_factory=Network)
    opened: threading.Event = field(default_factory=threading.Event)
    order: list[str] = field(default_factory=list)

    def nodes(self) -> dict[str, Node]:
        @node("Asks", category="test", lane="device")
        def asks(
            *, steps: int = 4, start: float = 0.0, model: str = "a", name: str = ""
        ) -> Generator[Progress | Joinable, Any, float]:
            """A sampler of `steps` evaluations."""
            state = start
            for step in range(steps):
                joinable = Joinable(model, state, self.network)
                answer = yield joinable
                state = joinable.alone() if answer is None else answer
                self.order.append(name)
                yield Progress(step + 1, steps)
            return state

        @node("Gate", category="test", lane="device")
        def hold() -> int:
            """Holds the lane."""
            self.opened.wait(10)
            return 1

        return with_nodes(asks, hold)

    def job(self, **inputs: Any) -> Plan:
        filled = {"steps": 4, "start": 0.0, "model": "a", "name": ""} | inputs
        return plan(checked(prompt(k=("Asks", filled), s=("Show", {"value": ["k", 0]})), self.nodes()))

    def gate(self) -> Plan:
        return plan(checked(prompt(k=("Gate", {}), s=("Show", {"value": ["k", 0]})), self.nodes()))

    @contextmanager
    def at_once(self, plans: Sequence[Plan], together: int, priorities: Sequence[int] = ()) -> Iterator[list[Ticket]]:
        """Submit all while the device is held, then let it go."""
        scheduler = Scheduler(cache=MemoryCache(0), batch_evaluations=together)
        scheduler.submit(self.gate(), priority=99)
        ranks = priorities or [0] * len(plans)
        tickets = [scheduler.submit(planned, priority=rank) for planned, rank in zip(plans, ranks, strict=True)]
        self.opened.set()
        yield tickets
        scheduler.close()


def shown(ticket: Ticket) -> float:
    value: float = ticket.wait(20).or_raise().ui["s"]["shown"][0]
    return value


def test_jobs_that_wait_for_the_same_network_share_its_calls_and_their_results_stay() -> None:
    bench = Bench()
    plans = [bench.job(steps=20, start=float(i)) for i in range(4)]
    alone = [execute(planned, None, MemoryCache(0)).ui["s"]["shown"][0] for planned in plans]
    bench.network.calls.clear()
    with bench.at_once(plans, 4) as tickets:
        assert [shown(ticket) for ticket in tickets] == alone
    assert sum(bench.network.calls) == 80
    assert len(bench.network.calls) <= 26  # 20 steps of four, and a few calls while they come in
    assert max(bench.network.calls) == 4


def test_nothing_is_shared_unless_asked_for() -> None:
    bench = Bench()
    with bench.at_once([bench.job(start=float(i)) for i in range(4)], 1) as tickets:
        assert [shown(ticket) for ticket in tickets]
    assert bench.network.calls == [1] * 16


def test_a_call_serves_no_more_jobs_than_allowed() -> None:
    bench = Bench()
    with bench.at_once([bench.job(steps=9, start=float(i)) for i in range(7)], 3) as tickets:
        assert [shown(ticket) for ticket in tickets]
    assert max(bench.network.calls) == 3
    assert sum(bench.network.calls) == 63


def test_different_networks_and_different_priorities_are_asked_apart() -> None:
    bench = Bench()
    with bench.at_once([bench.job(start=1.0, model="a"), bench.job(start=2.0, model="b")], 4) as tickets:
        assert [shown(ticket) for ticket in tickets]
    with bench.at_once([bench.job(start=3.0), bench.job(start=4.0)], 4, [0, 1]) as tickets:
        assert [shown(ticket) for ticket in tickets]
    assert bench.network.calls == [1] * 16


def test_a_job_that_cannot_be_evaluated_fails_alone() -> None:
    bench = Bench()
    plans = [bench.job(steps=5, start=1.0), bench.job(steps=5, start=-1.0), bench.job(steps=5, start=2.0)]
    good = [execute(plans[at], None, MemoryCache(0)).ui["s"]["shown"][0] for at in (0, 2)]
    with bench.at_once(plans, 4) as (first, bad, last):
        assert [shown(first), shown(last)] == good
        error = bad.wait(20).error
    assert isinstance(error, NodeFailed)
    assert "no state is below zero" in str(error)


def test_what_does_not_fit_into_memory_together_is_done_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(Network(most=1))
    plans = [bench.job(steps=5, start=float(i)) for i in range(3)]
    with caplog.at_level(logging.WARNING), bench.at_once(plans, 4) as tickets:
        results = [ticket.wait(20).or_raise().nodes["k"].outcome for ticket in tickets]
    assert results == ["executed"] * 3
    assert bench.network.calls.count(1) == 15
    assert "evaluations in one call failed (3 rows are too many); they are done one by one" in caplog.text


def test_a_cancelled_job_leaves_the_calls_of_the_others() -> None:
    bench = Bench()
    plans = [bench.job(steps=10, start=1.0, name="stays"), bench.job(steps=10_000, start=2.0, name="goes")]
    alone = execute(plans[0], None, MemoryCache(0)).ui["s"]["shown"][0]
    scheduler = Scheduler(cache=MemoryCache(0), batch_evaluations=2)
    stays, goes = (scheduler.submit(planned) for planned in plans)
    while bench.order.count("goes") < 5:
        threading.Event().wait(0.001)
    scheduler.withdraw(goes)
    assert goes.wait(20).is_cancelled
    assert shown(stays) == alone
    scheduler.close()


def test_nodes_that_offer_nothing_take_turns_as_ever() -> None:
    order: list[str] = []

    @node("Plain", category="test", lane="device")
    def plain(*, name: str = "", steps: int = 30) -> Generator[Progress, None, int]:
        """A sampler of somebody else's."""
        for step in range(steps):
            order.append(name)
            yield Progress(step + 1, steps)
        return steps

    def job(name: str, steps: int) -> Plan:
        inputs = {"name": name, "steps": steps}
        return plan(checked(prompt(k=("Plain", inputs), s=("Show", {"value": ["k", 0]})), with_nodes(plain)))

    scheduler = Scheduler(batch_evaluations=4)
    tickets = [scheduler.submit(job("a", 2000)), scheduler.submit(job("b", 20))]
    assert [ticket.wait(20).error for ticket in tickets] == [None, None]
    assert order.index("b") < len(order) - 1 - order[::-1].index("a")
    scheduler.close()


def test_a_node_that_yields_something_else_fails_its_job_and_no_lane() -> None:
    @node("Odd", category="test", lane="device")
    def odd() -> Generator[Any, None, int]:
        """Yields what nobody knows."""
        yield "half done"
        return 1

    made = plan(checked(prompt(k=("Odd", {}), s=("Show", {"value": ["k", 0]})), with_nodes(odd)))
    scheduler = Scheduler()
    for _ in range(2):
        assert "the node yielded 'half done'; expected Progress" in str(scheduler.submit(made).wait(20).error)
    scheduler.close()
