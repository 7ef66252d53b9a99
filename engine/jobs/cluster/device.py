"""`DeviceActor`: one device of one machine, as an actor: the worker process of `serve`, reached by calls.

A lease is a front's word for one stretch of time in which it listens. Calls under an earlier one are answered with
None, and what was under way then is stopped: a machine that froze and woke up finds that it was given up.
"""

import hashlib
import os
import platform
import shutil
import socket
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from sigmagraph.engine.graph.node import Services
from sigmagraph.engine.host import free_bytes
from sigmagraph.engine.jobs.cluster.mailbox import INLINE_BYTES, Mailbox, Parcel
from sigmagraph.engine.jobs.cluster.shipping import Shipping, carrying
from sigmagraph.engine.jobs.cluster.versions import environment
from sigmagraph.engine.jobs.job import LOCAL
from sigmagraph.engine.jobs.workers.child import Child, opened
from sigmagraph.engine.jobs.workers.runner import Runner
from sigmagraph.engine.jobs.workers.worker import Setup, load_factory
from sigmagraph.engine.model_folders import CODE_FOLDERS, MODEL_FOLDERS
from sigmagraph.engine.units import DAY_S

__all__ = ["METHODS_AT_ONCE", "DeviceActor"]

METHODS_AT_ONCE = 8
"""One listens, one may be building; the rest are short."""
KEEP_VALUES_S = 2 * DAY_S
"""A front asks for what it sent twice a day (`ActorWorker`), which counts as use."""
SWEEP_EVERY_S = 3600.0
PRIVATE = ("input", "output", "temp")
Fetch = Callable[[Any], bytes]


class DeviceActor:
    """Holds the nodes, the weights and the cache of one device. Its methods are called on several threads."""

    def __init__(self, offer: Callable[[bytes], Any] = lambda data: None, fetch: Fetch = bytes) -> None:
        self._offer, self._fetch = offer, fetch
        self._lock = Lock()
        self._lease = ""
        self._mailbox = Mailbox()
        self._shipping: Shipping | None = None
        self._child: Child | None = None
        self._runner: Runner | None = None
        self._services: Callable[[str], Services | None] = lambda owner: None
        self._scratch = Path()
        self._swept_at = time.monotonic()
        self._delivered: dict[tuple[str, str], int] = {}
        self._ready: dict[str, Any] = {}

    def about(self) -> dict[str, Any]:
        """What is to be known of this machine before anything is loaded."""
        return {
            "pid": os.getpid(),
            "machine": socket.gethostname(),
            "system": f"{platform.system()} {platform.machine()}",
            "memory": free_bytes(),
            "environment": environment(),
        }

    def hello(self, lease: str, greeting: Mapping[str, Any]) -> dict[str, Any]:
        """A front begins to listen; the words that say we are ready, or why we are not."""
        with self._lock:
            self._end_lease()
            self._mailbox = Mailbox(self._offer)
            try:
                self._build(greeting)
            except Exception as error:  # noqa: BLE001  # whatever keeps it from starting, the front has to know it
                traceback.print_exc()
                return {"say": "failed", "reason": f"{type(error).__name__}: {error}"}
            assert self._runner is not None
            self._lease, self._shipping = lease, Shipping(self._mailbox, self._services)
            child = self._child = Child(self._shipping, self._runner, greeting["slots"])
            Thread(target=child.serve, name="front", daemon=True).start()
            Thread(target=child.beat, args=(greeting["beat_s"],), name="beat", daemon=True).start()
            return self._ready

    def close(self) -> None:
        """Stop what is under way."""
        with self._lock:
            self._end_lease()

    def say(self, lease: str, messages: Sequence[dict[str, Any]]) -> bool | None:
        """What the front tells."""
        if lease != self._lease:
            return None
        for message in messages:
            self._mailbox.say(message)
        return True

    def hear(self, lease: str, after: int, wait_s: float) -> tuple[int, list[Parcel]] | None:
        """What we tell, see `Mailbox.hear`."""
        mailbox = self._mailbox
        return mailbox.hear(after, wait_s) if lease == self._lease else None

    def value(self, lease: str, digest: str, start: int, is_whole: bool) -> Any:
        """The content of an announced file: an offer of the whole, or bytes from `start` on; none where it is gone."""
        if lease != self._lease or self._shipping is None:
            return None
        path = self._shipping.path(digest)
        try:
            data = path.read_bytes() if path is not None else None
        except OSError:
            data = None
        if data is None:
            return b""
        offered = self._offer(data) if is_whole and len(data) > INLINE_BYTES else None
        return offered if offered is not None else data[start : start + INLINE_BYTES]

    def receive(self, lease: str, file: Mapping[str, Any], start: int, payload: Any) -> bool | None:
        """A file the front sends: the whole of it, or the piece that begins at `start`. True: it is complete."""
        if lease != self._lease:
            return None
        data = payload if isinstance(payload, bytes) else self._fetch(payload[0])
        value = self._scratch / "values" / file["digest"]
        with self._lock:
            draft = value.with_suffix(".draft")
            with draft.open("r+b" if start else "wb") as out:
                out.truncate(start)
                out.seek(start)
                out.write(data)
            if start + len(data) < file["size"]:
                return False
            draft.replace(value)
            self._put_in_place(file, value)
        return True

    def place(self, lease: str, file: Mapping[str, Any]) -> bool | None:
        """Whether the content was here already; then it is where the file belongs now."""
        if lease != self._lease:
            return None
        value = self._scratch / "values" / file["digest"]
        with self._lock:
            if not value.is_file():
                return False
            self._put_in_place(file, value)
        return True

    # -- inside --------------------------------------------------------------------------------------------------

    def _put_in_place(self, file: Mapping[str, Any], value: Path) -> None:
        services = self._services(file["owner"])
        if services is None:
            return
        os.utime(value)
        if time.monotonic() - self._swept_at > SWEEP_EVERY_S:
            self._swept_at = time.monotonic()
            _sweep(self._scratch)
        if file["folder"] == "unfinished":
            self._delivered[file["owner"], file["name"]] = file["size"]
            folder = services.temp_dir / ".unfinished"
            path = folder / file["name"]
            if path.is_file() and path.stat().st_size >= file["size"]:
                return
        else:
            path = {"input": services.directories("input")[0], "output": services.output_dir}.get(
                file["folder"], services.temp_dir
            ) / file["name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.draft")
        shutil.copyfile(value, draft)
        draft.replace(path)

    def _end_lease(self) -> None:
        """What the last front asked for is stopped; it has been given up there."""
        self._lease, child, self._child = "", self._child, None
        self._mailbox.close()
        if child is not None:
            child.close()
        if self._shipping is not None:
            self._shipping.forget_all()

    def _build(self, greeting: Mapping[str, Any]) -> None:
        """The nodes and what they use, once in the life of the process."""
        if self._runner is not None:
            self._delivered.clear()
            return
        options, self._scratch = _at_home(greeting)
        models = options.get("models")
        if models is not None and not Path(models).is_dir():
            raise FileNotFoundError(
                f"{socket.gethostname()} has no folder {models}: put the models there, or name "
                "the folder that has them on every machine with --machine-home"
            )
        setup: Setup = load_factory(greeting["factory"])(options)
        self._services = setup.services
        carried = carrying(setup.services, lambda header, data: self._mailbox.send(header, data), self._is_known)
        self._runner, self._ready = opened(replace(setup, services=carried), lambda: self._mailbox.flush())
        self._ready["models"] = self._models() if models is not None else None

    def _is_known(self, owner: str, name: str, size: int) -> bool:
        return self._delivered.get((owner, name), -1) == size

    def _models(self) -> list[str]:
        """The names of every weight file here, as graphs write them."""
        services = self._services(LOCAL)
        folders = [folder for folder in MODEL_FOLDERS if folder not in CODE_FOLDERS]
        return sorted({name for folder in folders for name in services.files(folder)}) if services is not None else []


def _at_home(greeting: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    """The options with folders of this machine, and where those lie; what an earlier life left there goes."""
    name = hashlib.blake2b(f"{greeting['front']} {greeting['name']}".encode(), digest_size=8).hexdigest()
    scratch = Path(tempfile.gettempdir()) / f"sigmagraph-{os.getuid()}" / name
    for private in ("values", *PRIVATE):
        (scratch / private).mkdir(parents=True, exist_ok=True, mode=0o700)
    _sweep(scratch)
    shutil.rmtree(scratch / "output", ignore_errors=True)
    (scratch / "output").mkdir(exist_ok=True)
    options = dict(greeting["options"])
    options |= {private: str(scratch / private) for private in PRIVATE}
    return {**options, "cache_folder": str(scratch / "cache")}, scratch


def _sweep(scratch: Path) -> None:
    """Remove files that no front has asked for of late: inputs come as long as the machine works."""
    for pattern in ("values/*", "*/.owners/*/*", "input/**/*"):
        with suppress(OSError):  # a folder went meanwhile: what is left of the pattern is looked at next time
            for old in scratch.glob(pattern):
                with suppress(OSError):
                    if old.is_file() and time.time() - old.stat().st_mtime > KEEP_VALUES_S:
                        old.unlink()
