"""Where a node keeps unfinished work, so that the same work begun again goes on: the protocol nodes program against.

A node asks for it with `Hidden("KEPT")`; it gets None where nothing is kept. What is behind it is the engine's matter.
"""

from typing import Protocol

__all__ = ["Kept", "Log"]


class Log(Protocol):
    """Records of one piece of work, in order; they outlive the process, until `discard`."""

    def records(self) -> list[bytes]:
        """What was appended so far, by this process or one before it; a record cut short is left out."""

    def append(self, data: bytes) -> None:
        """Add a record. Never raises: work goes on where nothing can be kept."""

    def clear(self) -> None:
        """Forget the records; new ones may follow."""

    def discard(self) -> None:
        """The work is done: nothing of it is kept."""

    def close(self) -> None:
        """Let go of the log and leave it for whoever begins again."""


class Kept(Protocol):
    """The unfinished work of one node, found by its content key: equal inputs, equal key, equal work."""

    def begin(self) -> Log:
        """The log of the node's next piece of work; each further call is another piece, in the same order each time."""
