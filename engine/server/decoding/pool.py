"""`Decoders`: the server's side of decoding. Few processes, each used by one request at a time, none for long.

A request waits for a place (`shares.Shares`), and has a process open its pictures and say what they take. It waits
until the budget has that much, and gets what was made of them.
"""

import asyncio
import io
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from aiohttp import web

from sigmagraph.engine.errors import EngineError, UnreadableImage
from sigmagraph.engine.jobs.workers.ipc import pack, receive
from sigmagraph.engine.jobs.workers.spawn import spawn
from sigmagraph.engine.server.decoding.shares import Shares
from sigmagraph.engine.writing import make_folder

__all__ = ["DECODERS", "Decoders", "Limits", "Overloaded", "run_decoders"]

CHILD = "sigmagraph.engine.server.decoding.child"
KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR")
BASE_BYTES = 1 << 30
"""Addresses a process takes before any picture: the interpreter, Pillow and its libraries, stacks of threads."""
SMALL_BYTES = 64 << 20
IDLE_S = 30.0
GRACE_S = 0.5


class Overloaded(EngineError):
    """More is asked for than is done at a time; the same request may be answered a little later."""

    code = "overloaded"


@dataclass(frozen=True, slots=True)
class Limits:
    """`cpu_s`: computing a request may take. `memory_bytes`: what all pictures being decoded may take together.

    Of a request that does not compute, because the machine is busy, `wall_factor` times as long is waited for.
    """

    max_pixels: int
    cpu_s: float = 10.0
    memory_bytes: int = 1 << 30
    processes: int = field(default_factory=lambda: max(2, min(5, (os.cpu_count() or 1) + 1)))
    wall_factor: float = 4.0
    wait_s: float = 60.0
    waiting_each: int = 64
    waiting_all: int = 512


class DecodingBudget:
    """Memory for what is under way; small pictures pass, and one that is larger than all of it has it alone."""

    def __init__(self, total: int) -> None:
        self._total, self._held = total, 0
        self._line: list[tuple[int, asyncio.Event]] = []

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Wait until there is so much."""
        if size <= SMALL_BYTES:
            yield
            return
        entry = size, asyncio.Event()
        self._line.append(entry)
        self._look()
        try:
            await entry[1].wait()
            yield
        finally:
            if entry[1].is_set():
                self._held -= size
            else:
                self._line.remove(entry)
            self._look()

    def _look(self) -> None:
        while self._line and (not self._held or self._held + self._line[0][0] <= self._total):
            size, granted = self._line.pop(0)
            self._held += size
            granted.set()


class DecoderProcess:
    """One process."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.process, self._reader, self._writer = process, reader, writer
        self.idle: asyncio.TimerHandle | None = None
        self.is_used_up = False

    async def make(
        self, request: dict[str, Any], data: bytes, budget: DecodingBudget, wall_s: float
    ) -> tuple[Any, bytes]:
        """The process's answer; raises `TimeoutError`, or `EOFError` where it died."""
        loop = asyncio.get_running_loop()
        self._writer.write(pack(request, data))
        async with asyncio.timeout(wall_s) as limit:
            frame = await receive(self._reader)
            if frame is not None and frame[0]["say"] == "opened":
                size = frame[0]["bytes"]
                self.is_used_up = size > SMALL_BYTES  # ends when this is done: the memory goes back to the system
                limit.reschedule(None)
                async with budget.hold(size):
                    limit.reschedule(loop.time() + wall_s)
                    self._writer.write(pack({"do": "go"}))
                    frame = await receive(self._reader)
        if frame is None:
            raise EOFError
        return frame

    async def end(self) -> int:
        """Close it; how it ended."""
        if self.idle is not None:
            self.idle.cancel()
        self._writer.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                return await self.process.wait()
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)  # its own `kill` would take the status away from `wait`
        return await self.process.wait()


class Decoders:
    """Makes something of pictures, for many owners at once, on one event loop. `folder` is for large answers."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.limits, self._folder = limits, folder
        self._shares = Shares(limits.processes, lambda: asyncio.get_running_loop().time())
        self._budget = DecodingBudget(limits.memory_bytes)
        self._all: set[DecoderProcess] = set()
        self._free: list[DecoderProcess] = []
        self._ending: set[asyncio.Task[int]] = set()
        self._names = count()

    async def make(
        self,
        owner: str,
        operation: str,
        sources: Sequence[Path | bytes] = (),
        *,
        is_wanted: Callable[[], bool] = lambda: True,
        **options: Any,
    ) -> tuple[dict[str, Any], BinaryIO]:
        """The figures and the bytes an operation makes of pictures: files, or what was sent.

        Raises `UnreadableImage` and `Overloaded`. `is_wanted` is asked when it is this request's turn.
        """
        async with self._place(owner):
            if not is_wanted():
                raise Overloaded("nobody waits for this picture any more")
            child = self._idle() or await self._started()
            return await self._made(child, owner, operation, sources, options)

    async def close(self) -> None:
        """End every process, whatever it does."""
        for child in list(self._all):
            self._end(child)
        await asyncio.gather(*self._ending)
        shutil.rmtree(self._folder, ignore_errors=True)

    @asynccontextmanager
    async def _place(self, owner: str) -> AsyncIterator[None]:
        limits, shares = self.limits, self._shares
        if shares.waiting(owner) >= limits.waiting_each or shares.waiting() >= limits.waiting_all:
            raise Overloaded(f"{shares.waiting(owner)} of your pictures wait to be decoded already")
        turn = shares.queue(owner)
        try:
            async with asyncio.timeout(limits.wait_s):
                await turn.ready.wait()
        except TimeoutError as error:
            raise Overloaded(f"this picture's turn did not come within {limits.wait_s:g} s") from error
        else:
            yield
        finally:
            shares.leave(turn)

    def _idle(self) -> DecoderProcess | None:
        """One that waits for work; what died meanwhile, for want of memory say, is no picture's fault."""
        while self._free:
            child = self._free.pop()
            if child.idle is not None:
                child.idle.cancel()
            if child.process.returncode is None:
                return child
            self._end(child)
        return None

    async def _started(self) -> DecoderProcess:
        variables = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        most = BASE_BYTES + max(self.limits.memory_bytes, 16 * self.limits.max_pixels)
        self._all.add(child := DecoderProcess(*await spawn(CHILD, str(most), environment=variables)))
        return child

    async def _made(
        self,
        child: DecoderProcess,
        owner: str,
        operation: str,
        sources: Sequence[Path | bytes],
        options: dict[str, Any],
    ) -> tuple[dict[str, Any], BinaryIO]:
        limits, name = self.limits, next((source.name for source in sources if isinstance(source, Path)), "the picture")
        out = make_folder(self._folder) / str(next(self._names))
        request = {
            "do": operation,
            "name": name,
            "sources": [len(source) if isinstance(source, bytes) else str(source) for source in sources],
            "options": options,
            "max_pixels": limits.max_pixels,
            "cpu_s": limits.cpu_s,
            "out": str(out),
        }
        data = b"".join(source for source in sources if isinstance(source, bytes))
        answer: dict[str, Any] | None = None
        try:
            answer, made = await child.make(request, data, self._budget, limits.cpu_s * limits.wall_factor)
        except TimeoutError as error:
            raise UnreadableImage(name, f"was not decoded within {limits.cpu_s * limits.wall_factor:g} s") from error
        except EOFError:
            raise UnreadableImage(name, _why(await child.end(), limits.cpu_s)) from None
        finally:
            self._shares.charge(owner, answer["cpu_s"] if answer is not None else limits.cpu_s)
            self._keep(child, is_whole=answer is not None)
        if answer["say"] == "failed":
            raise UnreadableImage(*answer["message"].split(": ", 1))
        return answer.get("made", {}), _taken(out) if answer.get("is_file") else io.BytesIO(made)

    def _keep(self, child: DecoderProcess, *, is_whole: bool) -> None:
        """Ready for the next, for a while; one that was cut off in the middle, or has grown, ends."""
        if not is_whole or child.is_used_up:
            self._end(child)
            return
        child.idle = asyncio.get_running_loop().call_later(IDLE_S, partial(self._end, child))
        self._free.append(child)

    def _end(self, child: DecoderProcess) -> None:
        self._all.discard(child)
        if child in self._free:
            self._free.remove(child)
        self._ending.add(task := asyncio.create_task(child.end()))
        task.add_done_callback(self._ending.discard)


def _taken(path: Path) -> BinaryIO:
    """The file's content, gone with its last reader."""
    file = path.open("rb")
    path.unlink()
    return file


def _why(status: int, cpu_s: float) -> str:
    if status == -signal.SIGPROF:
        return f"takes more than {cpu_s:g} s to decode"
    return f"no picture that can be shown: its decoder ended with {status}"


DECODERS: web.AppKey[Decoders] = web.AppKey("decoders", Decoders)


async def run_decoders(app: web.Application) -> AsyncIterator[None]:
    """They end with the application."""
    yield
    await app[DECODERS].close()
