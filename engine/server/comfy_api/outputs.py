"""Which of an owner's outputs holds a content, and what all of them are: in memory, read from the store of jobs.

A file is read once, the newest first, when somebody asks for a content. One that changed since is not found by what it
held, and by what it holds once that was noticed.
"""

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from sigmagraph.engine.jobs.job import MadeFile
from sigmagraph.engine.jobs.protocol import Jobs
from sigmagraph.engine.server.comfy_api.store import SCHEME, Asset, digest_of
from sigmagraph.engine.server.context import OwnerFolders
from sigmagraph.engine.server.files import Outside, resolve
from sigmagraph.engine.server.static import content_type

__all__ = ["OUTPUTS", "OutputAsset", "Outputs", "OwnedOutput"]

NAMESPACE = uuid.UUID("5347a55e-7500-4000-8000-000000000000")
MOST_OWNERS = 200
MOST_FILES = 20_000
"""Of one owner; the oldest are left out."""
FEW = 64
"""So many that are gone are left alone, however few there are."""
READING_S = 2.0
"""How long one question may read files; the next goes on where this one stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputAsset(Asset):
    """An output among an owner's assets: nobody keeps a record of it, and it goes with its file."""

    output: "OwnedOutput"


@dataclass(slots=True)
class OwnedOutput:
    """One file that a job made, and its digest once it was read, with the size and time that the file had then."""

    made: MadeFile
    path: Path
    digest: str | None = None
    seen: tuple[int, int] | None = None

    def asset(self) -> "OutputAsset | None":
        """As the editor lists it; None where the file is gone. Its id is the same as long as its job is kept."""
        now, made = _seen(self.path), self.made
        if now is None:
            return None
        name = f"{made.subfolder}/{made.filename}".lstrip("/")
        asset_id = str(uuid.uuid5(NAMESPACE, f"{made.job_id} {made.kind} {name}"))
        digest = self.digest if self.digest is not None and now == self.seen else ""
        values = asset_id, digest, now[0], content_type(made.filename), made.filename
        return OutputAsset(*values, f"{name} [{made.kind}]", made.at, (made.kind,), output=self)

    def read(self) -> str | None:
        """The digest of what the file holds now; None where it is gone."""
        now = _seen(self.path)
        if now is None:
            return None
        if now != self.seen:
            try:
                with self.path.open("rb") as file:
                    self.digest, self.seen = digest_of(file)[0], now
            except OSError:
                return None
        return self.digest


@dataclass(slots=True)
class _Known:
    """One owner's files: by the order they were made, and by content as far as they were read."""

    last: int = 0
    files: dict[Path, OwnedOutput] = field(default_factory=dict)
    unread: list[OwnedOutput] = field(default_factory=list)
    by_digest: dict[str, OwnedOutput] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def forget_gone(self) -> None:
        """Let go of files that were left out or written anew, once they are as many as those that are there."""
        most = 2 * len(self.files) + FEW
        if len(self.unread) > most:
            self.unread = [output for output in self.unread if self._has(output)]
        if len(self.by_digest) > most:
            self.by_digest = {digest: output for digest, output in self.by_digest.items() if self._has(output)}

    def _has(self, output: OwnedOutput) -> bool:
        return self.files.get(output.path) is output


class Outputs:
    """Every owner's outputs. On the event loop; files are read on threads."""

    def __init__(self, jobs: Jobs, folders: Callable[[str], OwnerFolders]) -> None:
        self._jobs, self._folders = jobs, folders
        self._owners: OrderedDict[str, _Known] = OrderedDict()

    async def all(self, owner: str) -> list[OwnedOutput]:
        """The newest last; a name that was written twice stands where it was last."""
        known = self._known(owner)
        async with known.lock:
            await self._learn(owner, known)
            return list(known.files.values())

    async def by_hash(self, owner: str, digest: str) -> OwnedOutput | None:
        """A file of that content, where one was found in the time there is."""
        wanted = SCHEME + digest.lower().removeprefix(SCHEME)
        known = self._known(owner)
        async with known.lock:
            await self._learn(owner, known)
            return await asyncio.to_thread(_found, known, wanted)

    def _known(self, owner: str) -> _Known:
        known = self._owners.setdefault(owner, _Known())
        self._owners.move_to_end(owner)
        if len(self._owners) > MOST_OWNERS:
            self._owners.popitem(last=False)
        return known

    async def _learn(self, owner: str, known: _Known) -> None:
        """What was made since."""
        places = self._folders(owner)
        roots = {"output": places.output_dir, "temp": places.temp_dir}
        for made in await self._jobs.files_made(owner, known.last, MOST_FILES):
            known.last = made.seq
            try:
                path = resolve(roots[made.kind], made.subfolder, made.filename)
            except (Outside, KeyError):
                continue
            known.files.pop(path, None)
            known.files[path] = output = OwnedOutput(made, path)
            known.unread.append(output)
        for path in list(known.files)[: -MOST_FILES or None]:
            del known.files[path]
        known.forget_gone()


def _found(known: _Known, wanted: str) -> OwnedOutput | None:
    output = known.by_digest.get(wanted)
    if output is not None and known.files.get(output.path) is output:
        now = output.read()
        if now == wanted:
            return output
        if now is not None:
            known.by_digest[now] = output
    until = time.monotonic() + READING_S
    while known.unread and time.monotonic() < until:
        output = known.unread.pop()
        digest = output.read() if known.files.get(output.path) is output else None
        if digest is not None:
            known.by_digest[digest] = output
        if digest == wanted:
            return output
    return None


def _seen(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


OUTPUTS: web.AppKey[Outputs] = web.AppKey("outputs", Outputs)
