"""`RayLink`: one actor of Ray Core, and the actor's class. With `ray_cluster` all that knows Ray.

Ray is imported when it is needed: it is the extra `cluster`.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from importlib import import_module
from typing import Any

from sigmagraph.engine.errors import ClusterUnusable
from sigmagraph.engine.jobs.cluster.device import DeviceActor
from sigmagraph.engine.jobs.cluster.link import LinkLost, StoreFull

__all__ = ["RayDevice", "RayLink", "first_line", "ray"]

INSTALL = "pip install 'sigmagraph[cluster]'"
END_S = 5.0
FULL = (
    "Ray's object store is full, values go in pieces, which is slower: start Ray here with a larger "
    "--object-store-memory, or make room on the disk that it moves values to"
)


def ray() -> Any:
    """The package. A call after the connection was lost must not start a cluster of our own, as is Ray's habit."""
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    try:
        return import_module("ray")
    except ModuleNotFoundError as error:
        raise ClusterUnusable("workers", f"Ray is not installed: {INSTALL}") from error


class RayDevice(DeviceActor):
    """A device whose parcels go by Ray's object store."""

    def __init__(self) -> None:
        super().__init__(_put, ray().get)


def _put(data: bytes) -> Any:
    """A reference to the bytes, or None where there is no room for them."""
    exceptions = ray().exceptions
    try:
        return ray().put(data)
    except (exceptions.ObjectStoreFullError, exceptions.OutOfDiskError) as error:
        logging.getLogger("sigmagraph.jobs").warning("%s (%s)", FULL, first_line(error))
        return None


class RayLink:
    """One actor of Ray's.

    Ray's client waits for the head where it seems not to: a call returns once the head has taken it. So everything
    that asks Ray for something does it on one of `threads`, and a head that hangs does not stop the server.
    """

    def __init__(self, actor: Any, threads: Executor) -> None:
        self._actor, self._threads = actor, threads

    async def call(self, method: str, *arguments: Any) -> Any:
        try:
            return await self._answer(lambda: getattr(self._actor, method).remote(*arguments))
        except Exception as error:
            raise _lost(error) from error

    async def fetch(self, reference: Any) -> bytes:
        exceptions = ray().exceptions
        try:
            data: bytes = await self._answer(lambda: reference)
        except (exceptions.ObjectStoreFullError, exceptions.OutOfDiskError) as error:
            raise StoreFull(str(error)) from error
        except Exception as error:
            raise _lost(error) from error
        return data

    async def offer(self, data: bytes) -> Any:
        try:
            reference = await asyncio.wrap_future(self._threads.submit(_put, data))
        except Exception as error:
            raise _lost(error) from error
        if reference is None:
            raise StoreFull(f"no room for {len(data)} bytes")
        return [reference]  # inside a list it is passed on, not awaited and unpacked

    def kill(self) -> None:
        self._end(no_restart=False)

    def end(self) -> None:
        with suppress(TimeoutError):
            self._end(no_restart=True).result(END_S)

    def _end(self, *, no_restart: bool) -> "Future[None]":
        def end() -> None:
            with suppress(Exception):
                ray().kill(self._actor, no_restart=no_restart)

        return self._threads.submit(end)

    async def _answer(self, asked: Callable[[], Any]) -> Any:
        """What a reference stands for. Whoever waits may stop: the reference's own future goes on to its end."""
        future: Future[Any] = await asyncio.wrap_future(self._threads.submit(lambda: asked().future()))
        answer = asyncio.wrap_future(future)
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(answer)


def _lost(error: Exception) -> LinkLost:
    """What became of the actor, in our words."""
    exceptions = ray().exceptions
    text = str(error)
    match error:
        case exceptions.ActorUnavailableError():
            return LinkLost("died: its process ended, or its machine is gone", is_temporary=True)
        case exceptions.OutOfMemoryError():
            return LinkLost("died: its machine ran out of memory", is_temporary=True)
        case exceptions.ActorUnschedulableError() | exceptions.NodeDiedError():
            return LinkLost("is gone: its machine left the cluster", is_from_outside=True, is_final=True)
        case exceptions.ActorDiedError() if "node" in text and "died" in text.partition("node")[2]:
            return LinkLost("is gone: its machine left the cluster", is_from_outside=True, is_final=True)
        case exceptions.ActorDiedError() if "owner" in text and "died" in text.partition("owner")[2]:
            return LinkLost("is gone: our connection to the cluster ended", is_from_outside=True, is_final=True)
        case exceptions.RayActorError():
            return LinkLost(f"died: {first_line(error)}", is_final=True)
        case exceptions.RayTaskError():
            return LinkLost(f"failed: {text.strip().splitlines()[-1]}")
        case _:
            return LinkLost(f"cannot be reached: {first_line(error)}", is_from_outside=True)


def first_line(error: Exception) -> str:
    """Of a text that may go on for pages; of an error of gRPC's its details, which come later in its text."""
    details = getattr(error, "details", None)
    text = str(details() if callable(details) else error)
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)[:300]
