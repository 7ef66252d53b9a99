"""Jobs of every kind, cancelled at random moments, on few slots: nobody hangs, and every result that comes is right."""

import asyncio
import random
import time
from collections.abc import Generator
from itertools import count
from typing import Annotated, Any

import pytest

from sigmagraph.engine.errors import OutOfMemory
from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.inline import execute
from sigmagraph.engine.execution.lanes import scheduler as scheduler_module
from sigmagraph.engine.execution.lanes.scheduler import Scheduler
from sigmagraph.engine.graph.comfy.comfy_class import from_class
from sigmagraph.engine.graph.node import Expansion, Node, Progress, Socket, node
from sigmagraph.engine.graph.plan import plan
from sigmagraph.engine.graph.results import Joinable
from tests.execution.running import with_nodes
from tests.graph.small import checked, prompt

Number = Annotated[int, Socket("INT")]
NAMES = count()


@node("Load", category="test")
def load(*, value: int = 0) -> int:
    """Host work."""
    time.sleep(0.0005)
    return value


@node("Grow", category="test", outputs=("INT",))
def grow(*, value: Number) -> Expansion:
    """A sampler in its place."""
    inner = f"inner{next(NAMES)}"
    inputs = {"value": value % 5, "steps": 2, "seed": 1}
    return Expansion({inner: {"class_type": "Sample", "inputs": inputs}}, ([inner, 0],))


class Asks:
    """Asks for its input and is called, both asynchronously."""

    RETURN_TYPES = ("INT",)
    FUNCTION = "run"
    INPUT_TYPES = classmethod(lambda cls: {"required": {"value": ("INT", {"lazy": True})}})

    async def check_lazy_status(self, value: Any) -> list[str]:
        await asyncio.sleep(0.0005)
        return ["value"]

    async def run(self, value: int) -> tuple[int]:
        await asyncio.sleep(0.0005)
        return (value + 1,)


def nodes(dice: random.Random, hunger: float) -> dict[str, Node]:
    """All of them; a step of a sampler runs out of memory with this probability."""

    @node("Sample", category="test", lane="device")
    def sample(*, value: Number, steps: int = 4, seed: int = 0) -> Generator[Any, Any, int]:
        """Offers each evaluation."""
        state = value * 31 + seed
        yield Progress(0, steps)
        for done in range(steps):
            if dice.random() < hunger:
                raise OutOfMemory("no room")
            offer = Joinable("k", state, lambda states: [number * 1103515245 % 2**31 for number in states])
            answer = yield offer
            state = offer.alone() if answer is None else answer
            yield Progress(done + 1, steps)
        return state

    return with_nodes(load, grow, sample, from_class(Asks, "Asks"))


def document(dice: random.Random) -> dict[str, Any]:
    """Few different values, so that jobs share work."""
    return prompt(
        l=("Load", {"value": dice.randrange(3)}),
        k=("Sample", {"value": ["l", 0], "steps": dice.randrange(1, 6), "seed": dice.randrange(3)}),
        a=("Asks", {"value": ["k", 0]}),
        g=("Grow", {"value": ["a", 0]}),
        s=("Show", {"value": ["g", 0]}),
        t=("Show", {"value": ["k", 0]}),
    )


@pytest.mark.parametrize(
    ("together", "budget", "hunger"), [(1, None, 0.0), (4, None, 0.0), (4, 0, 0.0), (4, None, 0.02), (1, 3_000, 0.02)]
)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_cancels_at_random_moments_hang_nobody_and_spoil_no_result(
    together: int, budget: int | None, hunger: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_module, "IDLE_S", 3600.0)  # a wake-up that is lost is a job that does not end
    dice = random.Random(7)
    made, plain = nodes(random.Random(5), hunger), nodes(random.Random(5), 0.0)
    scheduler = Scheduler(cache=MemoryCache(budget), host_threads=2, batch_evaluations=together, most_jobs=4)
    alone: dict[str, Any] = {}
    ends = {"done": 0, "cancelled": 0, "failed": 0}
    for _ in range(20):
        documents = [document(dice) for _ in range(8)]
        tickets = [scheduler.submit(plan(checked(written, made)), priority=dice.randrange(2)) for written in documents]
        for ticket in tickets:
            if dice.random() < 0.4:
                time.sleep(dice.random() * 0.002)
                scheduler.withdraw(ticket)
        for written, ticket in zip(documents, tickets, strict=True):
            result = ticket.wait(30)
            if result.error is None:
                ends["done"] += 1
                if str(written) not in alone:
                    alone[str(written)] = execute(plan(checked(written, plain)), None, MemoryCache(0)).or_raise().ui
                assert result.ui == alone[str(written)]
            else:
                ends["cancelled" if result.is_cancelled else "failed"] += 1
    assert ends["done"] > 20
    assert ends["cancelled"] > 10
    assert ends["failed"] == 0 or hunger
    assert not scheduler._tickets
    assert not scheduler.store._flights
    scheduler.close()
