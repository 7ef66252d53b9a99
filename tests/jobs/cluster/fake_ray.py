"""A package `ray` that is not Ray: its errors, a connection that breaks, hangs or differs on request."""

import sys
from collections.abc import Callable
from concurrent.futures import Future
from threading import Event
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

FAMILY = {
    "RayActorError": (),
    "ActorDiedError": ("RayActorError",),
    "ActorUnavailableError": ("RayActorError",),
    "ActorUnschedulableError": (),
    "NodeDiedError": (),
    "OutOfMemoryError": (),
    "RayTaskError": (),
    "ObjectStoreFullError": (),
    "OutOfDiskError": (),
    "ObjectLostError": (),
}
"""Ray's errors as far as they are told apart, and which are kinds of which; test_ray.py compares it with Ray."""


def errors() -> SimpleNamespace:
    """Their classes."""
    made: dict[str, type[Exception]] = {}
    for name, parents in FAMILY.items():
        made[name] = type(name, tuple(made[parent] for parent in parents) or (Exception,), {})
    return SimpleNamespace(**made)


class FakeRay(ModuleType):
    """As much of the package as is used."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.exceptions = errors()
        self.killed: list[tuple[Any, bool]] = []
        self.joined: list[dict[str, Any]] = []
        self.answers = Event()
        self.answers.set()
        self.refuses: Exception | None = None
        self.up: list[dict[str, Any]] = []
        self.is_full = False

    def error(self, name: str, text: str = "") -> Exception:
        """One of its errors."""
        made: Exception = getattr(self.exceptions, name)(text)
        return made

    def init(self, **where: Any) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.joined.append(where)

    def shutdown(self) -> None: ...

    def nodes(self) -> list[dict[str, Any]]:
        self.answers.wait()
        if self.refuses is not None:
            raise self.refuses
        return self.up

    def kill(self, actor: Any, *, no_restart: bool) -> None:
        self.answers.wait()
        self.killed.append((actor, no_restart))

    def put(self, data: bytes) -> Any:
        if self.is_full:
            raise self.error("ObjectStoreFullError", "no room")
        return Reference(lambda: data)


class Reference:
    """What a call answers before it is answered."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self._answer = answer

    def future(self) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            future.set_result(self._answer())
        except Exception as error:  # noqa: BLE001  # that is what futures are for
            future.set_exception(error)
        return future


class FakeActor:
    """Every method of it answers by one function."""

    def __init__(self, answer: Callable[[str], Any]) -> None:
        self._answer = answer

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *arguments: Reference(lambda: self._answer(name)))


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    """Stands where Ray is imported from."""
    made = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", made)
    return made
