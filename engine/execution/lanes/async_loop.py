"""One background event loop for async nodes, started when the first of them is met."""

import asyncio
import inspect
from collections.abc import Awaitable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from threading import Lock, Thread
from typing import Any

GRACE_S = 2.0


class AsyncLoop:
    """Runs awaitables on a thread of its own; `close` ends it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None

    def submit(self, work: Sequence[Awaitable[Any]]) -> "Future[list[Any]]":
        """Await all of them, at the same time; cancelling the future cancels them."""
        loop = self._running()
        future = asyncio.run_coroutine_threadsafe(_together(work), loop)

        def over(_: "Future[list[Any]]") -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_close_unbegun, work)

        future.add_done_callback(over)
        return future

    def close(self) -> None:
        """Cancel what is pending, give it a moment to clean up, and stop the thread."""
        with self._lock:
            loop, self._loop = self._loop, None
            thread, self._thread = self._thread, None
        if loop is not None and thread is not None:
            ending = asyncio.run_coroutine_threadsafe(_cancel_all(), loop)
            with suppress(TimeoutError):
                ending.result(GRACE_S)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = Thread(target=self._loop.run_forever, name="async nodes", daemon=True)
                self._thread.start()
            return self._loop


def _close_unbegun(work: Sequence[Awaitable[Any]]) -> None:
    """What was cancelled before the loop came to it: a coroutine that nobody awaits says so when it is collected."""
    for call in work:
        if inspect.iscoroutine(call) and inspect.getcoroutinestate(call) == inspect.CORO_CREATED:
            call.close()


async def _contained(work: Awaitable[Any]) -> Any:
    """What a node raises to end the process, or ends its own wait with, is its failure, and not the loop's."""
    try:
        return await work
    except (SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError(f"async node code raised {type(error).__name__}: {error}") from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise RuntimeError("the node's own async work was cancelled, and nobody asked for that") from error


async def _cancel_all() -> None:
    """Cancel every other task and wait until it has noticed."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _together(work: Sequence[Awaitable[Any]]) -> list[Any]:
    """All results in order; the first failure cancels the others."""
    tasks = [asyncio.ensure_future(_contained(call)) for call in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
