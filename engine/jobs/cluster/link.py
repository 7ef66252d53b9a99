"""`ActorLink`: how the front reaches an actor and moves bytes to it. What can go wrong on the way, in our words."""

from typing import Any, Protocol

__all__ = ["ActorLink", "LinkLost", "StoreFull"]


class LinkLost(Exception):
    """The actor, or the way to it, is gone.

    `is_from_outside`: its machine went, so no job is to blame. `is_temporary`: the cluster is starting it again.
    `is_final`: it does not come back, and another has to take its place.
    """

    def __init__(
        self, reason: str, *, is_from_outside: bool = False, is_temporary: bool = False, is_final: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason, self.is_from_outside = reason, is_from_outside
        self.is_temporary, self.is_final = is_temporary, is_final


class StoreFull(Exception):
    """The object store has no room."""


class ActorLink(Protocol):
    """One actor, started again by its cluster when its process dies."""

    async def call(self, method: str, *arguments: Any) -> Any:
        """What the actor's method answers. Raises `LinkLost`."""

    async def fetch(self, reference: Any) -> bytes:
        """The bytes behind what the actor offered. Raises `LinkLost`."""

    async def offer(self, data: bytes) -> Any:
        """What the actor can fetch the bytes with. Raises `StoreFull`."""

    def kill(self) -> None:
        """End the actor's process; the cluster starts another."""

    def end(self) -> None:
        """End the actor for good."""
