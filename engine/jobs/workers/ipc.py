"""How two processes speak: frames of a JSON header and raw bytes, each with its length in front. No pickle."""

import json
import os
import socket
import struct
from asyncio import IncompleteReadError, StreamReader
from contextlib import suppress
from threading import Lock
from typing import Any

from sigmagraph.engine.errors import WorkerLost

__all__ = ["CUT_OFF", "Channel", "pack", "receive", "unpacked"]

LENGTHS = struct.Struct(">II")
LARGEST = 1 << 30
CUT_OFF = 4
"""The exit status of a process whose socket was closed from within, by a node say: it can tell nobody any more."""


def pack(header: dict[str, Any], data: bytes = b"") -> bytes:
    """One frame."""
    text = json.dumps(header, separators=(",", ":")).encode()
    if max(len(text), len(data)) > LARGEST:
        raise WorkerLost(f"a message of {max(len(text), len(data))} bytes is larger than {LARGEST}")
    return LENGTHS.pack(len(text), len(data)) + text + data


def unpacked(frame: bytes) -> tuple[dict[str, Any], bytes]:
    """What `pack` made one frame of."""
    text, _ = LENGTHS.unpack_from(frame)
    end = LENGTHS.size + text
    return json.loads(frame[LENGTHS.size : end]), frame[end:]


async def receive(reader: StreamReader) -> tuple[dict[str, Any], bytes] | None:
    """The next frame, or None at the end of the stream."""
    try:
        sizes = LENGTHS.unpack(await reader.readexactly(LENGTHS.size))
        if max(sizes) > LARGEST:
            return None
        header, data = await reader.readexactly(sizes[0]), await reader.readexactly(sizes[1])
    except (IncompleteReadError, ConnectionError):
        return None
    return json.loads(header), data


class Channel:
    """The worker's end: blocking, written to by several threads, read by one."""

    def __init__(self, end: socket.socket) -> None:
        self._socket, self._lock = end, Lock()
        self._file = end.makefile("rb")
        self._held: list[bytes] = []
        self._identity = _identity(end)

    def is_cut_off(self) -> bool:
        """Whether the socket's descriptor was closed from within, or is another file's by now.

        The other side sees no end: a read that is under way keeps the socket open.
        """
        return _identity(self._socket) != self._identity

    def hold(self, header: dict[str, Any], data: bytes = b"") -> None:
        """Send a frame with the next one, or at the next `flush`."""
        frame = pack(header, data)
        with self._lock:
            self._held.append(frame)

    def send(self, header: dict[str, Any], data: bytes = b"") -> None:
        """Send one frame whole; to a front that is gone it makes no difference: whoever receives finds out."""
        self.hold(header, data)
        self.flush()

    def flush(self) -> None:
        """Send what is held, as one write; never into a file that has the descriptor now."""
        with self._lock, suppress(OSError):
            frames, self._held = self._held, []
            if frames and not self.is_cut_off():
                self._socket.sendall(b"".join(frames))

    def receive(self) -> tuple[dict[str, Any], bytes] | None:
        """The next frame, or None once the other side is gone."""
        try:
            lengths = self._file.read(LENGTHS.size)
            if len(lengths) < LENGTHS.size:
                return None
            sizes = LENGTHS.unpack(lengths)
            header, data = self._file.read(sizes[0]), self._file.read(sizes[1])
        except OSError:
            return None
        return (json.loads(header), data) if len(header) == sizes[0] and len(data) == sizes[1] else None


def _identity(end: socket.socket) -> tuple[int, int] | None:
    """Which socket it is; None where the descriptor is closed."""
    try:
        found = os.fstat(end.fileno())
    except OSError:
        return None
    return found.st_dev, found.st_ino
