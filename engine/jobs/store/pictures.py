"""Pictures of work in progress on their way between servers: in pieces beside what a transaction tells, then whole.

A picture leaves with the next commit of its server, before the events of that commit. Of progress a few a second are
enough; a picture that is a result is never passed over.
"""

import json
import secrets
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from threading import Lock
from typing import Any

from sigmagraph.engine.jobs.events import Preview

__all__ = ["PicturesHeard", "PicturesToTell", "notes"]

EVERY_S = 0.2
PIECE = 6000
"""Characters; PostgreSQL refuses a note of 8,000 bytes."""
MOST_BYTES = 16 << 20
"""A larger picture is seen at its own server alone."""
MOST_WAITING, MOST_RESULTS = 64, 1024
"""More wait only where the database takes nothing."""
MOST_JOBS = 1000


class PicturesToTell:
    """What the next commit takes along. Filled on the event loop, emptied by the writer."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, Lock()
        self._waiting: list[Preview] = []
        self._taken_at: dict[str, float] = {}

    def put(self, preview: Preview) -> None:
        """One more, if there is room; of a job's progress one in `EVERY_S`."""
        if len(preview.data) > MOST_BYTES:
            return
        with self._lock:
            if len(self._waiting) >= MOST_RESULTS:
                return
            if not preview.meta.get("is_result"):
                now = self._clock()
                if now - self._taken_at.get(preview.job_id, -EVERY_S) < EVERY_S or len(self._waiting) >= MOST_WAITING:
                    return
                self._taken_at = {job: at for job, at in self._taken_at.items() if now - at < EVERY_S}
                self._taken_at[preview.job_id] = now
            self._waiting.append(preview)

    def waiting(self) -> Sequence[Preview]:
        """All that wait, in their order; they do so until `told`."""
        with self._lock:
            return list(self._waiting)

    def told(self, count: int) -> None:
        """So many are committed."""
        with self._lock:
            del self._waiting[:count]


class PicturesHeard:
    """Pieces from other servers, put together; whole pictures wait for the next events of their jobs."""

    def __init__(self) -> None:
        self._pieces: dict[int, tuple[str, list[str]]] = {}
        self._whole: dict[str, list[Preview]] = {}

    def hear(self, said: Mapping[str, Any]) -> None:
        """One piece; a server's pieces come in their order."""
        at, of = said["picture"]
        if at == 0:
            self._pieces[said["from"]] = said["name"], []
        name, pieces = self._pieces.get(said["from"], ("", []))
        if said["name"] != name or at != len(pieces):  # some were not heard
            return
        pieces.append(said["data"])
        if len(pieces) == of:
            del self._pieces[said["from"]]
            about, _, data = b64decode("".join(pieces)).partition(b"\n")
            preview = Preview(data=data, **json.loads(about))
            self._whole.setdefault(preview.job_id, []).append(preview)
            if len(self._whole) > MOST_JOBS:  # of a server that died no events come
                del self._whole[next(iter(self._whole))]

    def take(self, job_id: str) -> list[Preview]:
        """A job's, once."""
        return self._whole.pop(job_id, [])


def notes(number: int, preview: Preview) -> Iterator[str]:
    """A picture as notes of the server with this number."""
    about = asdict(preview)
    data = about.pop("data")
    text = b64encode(json.dumps(about).encode() + b"\n" + data).decode()
    pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
    name = secrets.token_hex(4)  # PostgreSQL sends equal notes of one transaction once
    for at, piece in enumerate(pieces):
        yield json.dumps({"from": number, "picture": [at, len(pieces)], "name": name, "data": piece})
