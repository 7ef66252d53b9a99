"""A server on a thread of its own, for clients that block."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sigmagraph.engine.server.endpoints.endpoint import Endpoint
from tests.server.endpoints.conftest import serving


@dataclass(frozen=True)
class Running:
    """Where it is, and a key for it."""

    url: str
    key: str


@contextmanager
def running(home: Path, change: Callable[[Endpoint], Endpoint] | None = None) -> Iterator[Running]:
    """A server with one key that has a million credits."""
    started, failed = threading.Event(), []
    found: list[Running] = []
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        async with serving(home, change, per_minute=1e6) as served:
            key = await served.key(credits=1e6)
            found.append(Running(str(served.client.make_url("")).rstrip("/"), key["x-api-key"]))
            started.set()
            await stop.wait()
            await served.jobs.cancel_all()

    def work() -> None:
        try:
            loop.run_until_complete(serve())
        except BaseException as error:
            failed.append(error)
            raise
        finally:
            started.set()
            loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    started.wait()
    try:
        assert not failed
        yield found[0]
    finally:
        if not failed:
            loop.call_soon_threadsafe(stop.set)
        thread.join()
