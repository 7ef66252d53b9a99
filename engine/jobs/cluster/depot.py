"""`Depot`: the front's end of what moves beside words: outputs come in, inputs and unfinished work go out.

Content is known by its digest. What is here already is not fetched again; what a machine has is not sent again.
"""

import hashlib
import os
import re
import shutil
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from blake3 import blake3

from sigmagraph.engine.errors import EngineError, WriteFailed
from sigmagraph.engine.execution.folders import PLACES, inside
from sigmagraph.engine.graph.node import Services
from sigmagraph.engine.units import DAY_S
from sigmagraph.engine.writing import make_folder

__all__ = ["Depot", "SentFile"]

LONGEST_NAME = 255
MOST_KNOWN = 4096
KEEP_S = 2 * DAY_S
NUMBERED = re.compile(r"(.*_)(\d+)(_\.\w+)")
LOG_NAME = re.compile(r"[A-Za-z0-9_-]{1,200}\.part")


@dataclass(frozen=True, slots=True)
class SentFile:
    """A file for a machine: which folder of which owner, its name there, its content."""

    owner: str
    folder: str
    name: str
    path: Path
    digest: str
    size: int

    def about(self) -> dict[str, Any]:
        """The same in words."""
        names = ("owner", "folder", "name", "digest", "size")
        return {name: getattr(self, name) for name in names}


class Depot:
    """The files of all owners, and `folder` with unfinished work by job.

    Its methods read and write files: they are called on threads.
    """

    def __init__(self, services: Callable[[str], Services | None], folder: Path) -> None:
        self._services, self._folder = services, folder
        self._known: OrderedDict[str, tuple[Path, int, int]] = OrderedDict()

    # -- from machines -------------------------------------------------------------------------------------------

    def known(self, digest: str) -> bytes | None:
        """The content, where a file that has it is still as we wrote it."""
        found = self._known.get(digest)
        if found is None:
            return None
        path, size, changed_ns = found
        with suppress(OSError):
            facts = path.stat()
            if (facts.st_size, facts.st_mtime_ns) == (size, changed_ns):
                return path.read_bytes()
        self._known.pop(digest, None)
        return None

    def place(self, owner: str, file: Mapping[str, Any], data: bytes) -> str:
        """Write an output into its owner's folder; the name it has there, the next free one of its series."""
        services = self._services(owner)
        if services is None:
            return str(file["filename"])
        folder = services.output_dir if file["kind"] == "output" else services.temp_dir
        first = inside(folder, str(Path(file["subfolder"]) / file["filename"]))
        make_folder(first.parent)
        draft = first.parent / f".draft-{uuid.uuid4().hex}"
        try:
            draft.write_bytes(data)
            path = next(path for path in _names(first) if _took(draft, path))
        except OSError as error:
            raise WriteFailed(first, error.strerror or str(error)) from error
        finally:
            draft.unlink(missing_ok=True)
        facts = path.stat()
        self._known[file["digest"]] = path, facts.st_size, facts.st_mtime_ns
        while len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return path.name

    def keep(self, job_ids: list[str], name: str, at: int, record: bytes) -> None:
        """More of some unfinished work, which one of these jobs does; what does not fit behind the rest is no use."""
        if not LOG_NAME.fullmatch(name):
            return
        log = make_folder(self._folder) / name
        with suppress(OSError):
            size = log.stat().st_size if log.is_file() else 0
            if at not in (0, size):
                log.unlink(missing_ok=True)
                return
            with log.open("r+b" if log.is_file() else "wb") as out:
                out.truncate(at)
                out.seek(at)
                out.write(record)
            for job_id in job_ids:
                with suppress(FileExistsError):
                    os.link(log, make_folder(self._of(job_id)) / name)

    def keep_no_more(self, name: str) -> None:
        """It is done."""
        if LOG_NAME.fullmatch(name):
            with suppress(OSError):
                for path in (self._folder / name, *self._folder.glob(f"*/{name}")):
                    path.unlink(missing_ok=True)

    def forget(self, job_id: str) -> None:
        """A job is over."""
        shutil.rmtree(self._of(job_id), ignore_errors=True)

    def sweep(self) -> None:
        """Remove what nobody came back for."""
        for path in (*self._folder.glob("*.part"), *self._folder.glob("*/*.part")):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > KEEP_S:
                    path.unlink()

    # -- for machines --------------------------------------------------------------------------------------------

    def outgoing(self, job_id: str | None, owner: str, prompt: Mapping[str, Any]) -> list[SentFile]:
        """The files that a prompt names, and what is left of the job's earlier attempts."""
        found = list(self._inputs(owner, prompt))
        for log in sorted(self._of(job_id).glob("*.part")) if job_id is not None else ():
            with suppress(OSError):
                data = log.read_bytes()
                found.append(SentFile(owner, "unfinished", log.name, log, blake3(data).hexdigest(), len(data)))
        return found

    def _inputs(self, owner: str, prompt: Mapping[str, Any]) -> Iterator[SentFile]:
        services = self._services(owner)
        if services is None:
            return
        values = (value for node in prompt.values() for value in (node.get("inputs") or {}).values())
        for value in dict.fromkeys(value for value in values if isinstance(value, str)):
            if not 0 < len(value) <= LONGEST_NAME or "\n" in value:
                continue
            name, _, place = value.removesuffix("]").rpartition(" [") if value.endswith("]") else (value, "", "input")
            if place not in PLACES:
                name, place = value, "input"
            with suppress(EngineError, OSError, ValueError):
                path = inside(services.directories(place)[0], name)
                if path.is_file():
                    digest = blake3(path.read_bytes()).hexdigest()
                    yield SentFile(owner, place, name, path, digest, path.stat().st_size)

    def _of(self, job_id: str | None) -> Path:
        return self._folder / hashlib.blake2b(str(job_id).encode(), digest_size=12).hexdigest()


def _names(first: Path) -> Iterator[Path]:
    """Of a numbered file the numbers above the highest of its series; of others the name itself, then with numbers."""
    match = NUMBERED.fullmatch(first.name)
    if match is None:
        yield first
    stem, suffix = (match[1], match[3]) if match is not None else (f"{first.stem}_", f"_{first.suffix}")
    taken = re.compile(re.escape(stem) + r"(\d+)" + re.escape(suffix))
    numbers = (int(found[1]) for path in first.parent.iterdir() if (found := taken.fullmatch(path.name)))
    for number in count(max(numbers, default=0) + 1):
        yield first.with_name(f"{stem}{number:05}{suffix}")


def _took(draft: Path, path: Path) -> bool:
    """Give the file this name, unless it is taken."""
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        with suppress(FileExistsError), path.open("xb") as out:
            out.write(draft.read_bytes())
            return True
        return False
    return True
