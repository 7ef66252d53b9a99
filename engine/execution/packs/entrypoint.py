"""The classes a pack's `comfy_entrypoint` gives, and a deadline for packs that hang."""

import asyncio
import inspect
from collections.abc import Callable
from threading import Thread
from typing import Any, TypeVar

__all__ = ["IMPORT_S", "Ended", "extension_classes", "within"]

IMPORT_S = 60.0  # packs that fetch something when they are imported take long; one that waits for ever must not
T = TypeVar("T")


class Ended(RuntimeError):
    """Code of a pack raised what ends programs: an exit, an interrupt of its own. The cause says which."""


def extension_classes(entry: Callable[[], Any]) -> dict[str, Any]:
    """The classes of the extension that `comfy_entrypoint` gives, by the names of their schemas."""
    return {_schema(cls).node_id: cls for cls in asyncio.run(_of_extension(entry))}


def _schema(cls: Any) -> Any:
    """What a class says about itself; among them may be older classes that a pack gave a schema."""
    return cls.define_schema() if hasattr(cls, "define_schema") else cls.GET_SCHEMA()


async def _of_extension(entry: Callable[[], Any]) -> list[Any]:
    extension = entry()
    extension = await extension if inspect.isawaitable(extension) else extension
    for name in ("on_load", "get_node_list"):
        answer = getattr(extension, name)() if hasattr(extension, name) else []
        answer = await answer if inspect.isawaitable(answer) else answer
    return list(answer or ())


def within(seconds: float, work: Callable[[], T], what: str) -> T:
    """The result of `work`, or a `TimeoutError` when it takes longer; the thread it runs on is then left behind.

    What is no `Exception` comes as `Ended`: an interrupt raised there is the pack's and not the user's.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)  # packs ask for one while they are imported
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001  # handed on to the caller
            failures.append(error)
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    thread = Thread(target=run, daemon=True, name=what)
    thread.start()
    thread.join(seconds)
    if failures and not isinstance(failures[0], Exception):
        raise Ended(f"{what} ended with {type(failures[0]).__name__}") from failures[0]
    if failures:
        raise failures[0]
    if not results:
        raise TimeoutError(f"{what} took longer than {seconds:g} s")
    return results[0]
