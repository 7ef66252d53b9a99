"""The loop of async nodes: what is cancelled before it comes to it leaves nothing behind."""

import asyncio
import gc
import inspect
import time
import warnings
from collections.abc import Coroutine
from threading import Event

from sigmagraph.engine.execution.lanes.async_loop import AsyncLoop


async def held(begun: Event, go_on: Event) -> None:
    begun.set()
    await asyncio.sleep(0)
    go_on.wait(10)  # the loop's thread is held, as by a node that computes


async def never() -> int:
    return 1


def test_a_coroutine_cancelled_before_its_turn_is_closed_and_nobody_warns_of_it() -> None:
    loop, begun, go_on = AsyncLoop(), Event(), Event()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        holding = loop.submit([held(begun, go_on)])
        assert begun.wait(10)
        time.sleep(0.05)
        work: list[Coroutine[None, None, int]] = [never(), never()]
        future = loop.submit(work)
        assert future.cancel()
        go_on.set()
        holding.result(10)
        assert loop.submit([never()]).result(10) == [1]
        loop.close()
        assert {inspect.getcoroutinestate(one) for one in work} == {inspect.CORO_CLOSED}
        del work
        gc.collect()
    assert [str(one.message) for one in heard] == []
