"""What leaves a machine beside words: the files of output nodes, by content, and every record of unfinished work.

A file is announced before the event that names it, and fetched by who does not have its content. Unfinished work goes
out as it grows: when the machine is lost, another goes on from there.
"""

import copy
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, cast

from blake3 import blake3

from sigmagraph.engine.execution.cache.checkpoint import HEAD
from sigmagraph.engine.graph.kept import Kept, Log
from sigmagraph.engine.graph.node import Services
from sigmagraph.engine.jobs.artifacts import entries
from sigmagraph.engine.jobs.cluster.mailbox import Mailbox

__all__ = ["Shipping", "carrying"]

Post = Callable[[dict[str, Any], bytes], None]
OwnersServices = Callable[[str], Services | None]
IsKnown = Callable[[str, str, int], bool]
"""Whether the front has just so many bytes of an owner's log of that name."""


class Shipping:
    """The worker's end of a mailbox that announces the files its events name."""

    def __init__(self, mailbox: Mailbox, services: OwnersServices) -> None:
        self._mailbox, self._services = mailbox, services
        self._owners: dict[str, str] = {}
        self._files: dict[str, dict[str, Path]] = {}
        self._lock = Lock()

    def receive(self) -> tuple[dict[str, Any], bytes] | None:
        """The next message for the worker; what is meant for us stays here."""
        while (frame := self._mailbox.receive()) is not None:
            message, _ = frame
            if message["do"] == "forget":
                self._forget(message["job_id"])
                continue
            if message["do"] == "run":
                self._owners[message["task"]["job_id"]] = message["task"]["owner"]
            return frame
        return None

    def hold(self, header: dict[str, Any], data: bytes = b"") -> None:
        """A frame, and before it the files it names."""
        if header["say"] == "event" and isinstance(header["body"].get("ui"), Mapping):
            self._announce(header["job_id"], header["body"]["ui"])
        self._mailbox.hold(header, data)

    def send(self, header: dict[str, Any], data: bytes = b"") -> None:
        """The same at once."""
        self.hold(header, data)
        self._mailbox.flush()

    def path(self, digest: str) -> Path | None:
        """The file of that content, while its job is under way."""
        with self._lock:
            return next((files[digest] for files in self._files.values() if digest in files), None)

    def forget_all(self) -> None:
        """The front is gone."""
        for job_id in list(self._files):
            self._forget(job_id)

    def _announce(self, job_id: str, ui: Mapping[str, Any]) -> None:
        for entry in entries(ui):
            path = _place(self._services(self._owners.get(job_id, "")), entry)
            if path is None:
                continue
            with self._lock:  # or another job that wrote there too forgets it between the two
                try:
                    data = path.read_bytes()
                except OSError:  # named, but not there: as it would be without us
                    continue
                digest = blake3(data).hexdigest()
                self._files.setdefault(job_id, {})[digest] = path
            self._mailbox.hold({"say": "file", "job_id": job_id, "digest": digest, "size": len(data), **entry})

    def _forget(self, job_id: str) -> None:
        """The front has all of a job: its files are there now, and not here."""
        self._owners.pop(job_id, None)
        with self._lock:
            files = self._files.pop(job_id, {})
            wanted = {path for others in self._files.values() for path in others.values()}
            for path in set(files.values()) - wanted:
                path.unlink(missing_ok=True)


def carrying(services: OwnersServices, post: Post, is_known: IsKnown) -> OwnersServices:
    """The same services, of which every record of unfinished work is posted too, unless the front has it."""

    def carried(owner: str) -> Services | None:
        found = services(owner)
        if found is None:
            return None
        twin = copy.copy(found)
        vars(twin)["kept"] = lambda key: _CarriedWork(cast(Kept, found.kept(key)), owner, key, post, is_known)
        return twin

    return carried


@dataclass
class _CarriedWork:
    work: Kept
    owner: str
    key: str
    post: Post
    is_known: IsKnown
    _begun: int = field(default=0, init=False)

    def begin(self) -> Log:
        """The next piece's log; what it held already goes out first."""
        name = f"{self.key}-{self._begun}.part"
        self._begun += 1
        log = self.work.begin()
        framed = [_framed(record) for record in log.records()]
        size = sum(map(len, framed))
        if self.is_known(self.owner, name, size):
            framed = []
        carried = _CarriedLog(log, {"owner": self.owner, "name": name}, self.post, 0 if framed else size)
        for record in framed:
            carried.out(record)
        return carried


class _CarriedLog:
    """A log that is written here and posted to the front."""

    def __init__(self, log: Log, about: dict[str, str], post: Post, at: int) -> None:
        self._log, self._about, self._post, self._at = log, about, post, at

    def records(self) -> list[bytes]:
        """What was there."""
        return self._log.records()

    def append(self, data: bytes) -> None:
        """Here and there."""
        self._log.append(data)
        self.out(_framed(data))

    def clear(self) -> None:
        """Begin anew in both places."""
        self._log.clear()
        self._at = 0
        self._post({"say": "kept", **self._about, "at": 0}, b"")

    def discard(self) -> None:
        """Done in both places."""
        self._log.discard()
        self._post({"say": "kept_no_more", **self._about}, b"")

    def close(self) -> None:
        """Let go of the file here."""
        self._log.close()

    def out(self, framed: bytes) -> None:
        """Post a record as the file has it."""
        self._post({"say": "kept", **self._about, "at": self._at}, framed)
        self._at += len(framed)


def _framed(record: bytes) -> bytes:
    return HEAD.pack(len(record), zlib.crc32(record)) + record


def _place(services: Services | None, entry: Mapping[str, str]) -> Path | None:
    if services is None or entry["kind"] not in ("output", "temp"):
        return None
    folder = services.output_dir if entry["kind"] == "output" else services.temp_dir
    return folder / entry["subfolder"] / entry["filename"]
