"""`ProcessWorker`: the front's side of a worker process. Starts it, speaks with it, starts it again when it dies."""

import asyncio
import logging
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from sigmagraph.engine.jobs.protocol import WorkerStatus
from sigmagraph.engine.jobs.settings import ProcessSettings
from sigmagraph.engine.jobs.workers.conversation import Conversation
from sigmagraph.engine.jobs.workers.ipc import CUT_OFF, pack, receive
from sigmagraph.engine.jobs.workers.spawn import spawn
from sigmagraph.engine.jobs.workers.worker import Listener

__all__ = ["ProcessWorker"]

LOG = logging.getLogger("sigmagraph.jobs")
MODULE = "sigmagraph.engine.jobs.workers.worker_main"
FIRST_WAIT_S = 0.2
STEADY_S = 60.0
"""A process that lived so long starts again at once; one that dies sooner waits longer each time."""
TRIES = 3
"""So many starts in a row that came to nothing are no accident: whoever runs the server has to know."""
DRAIN_S = 0.5
"""What a process said before its end is read within it, whoever else holds its socket."""
OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class ProcessWorker(Conversation):
    """One worker process."""

    def __init__(self, settings: ProcessSettings) -> None:
        super().__init__(settings.name, settings.slots)
        self.settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._life: asyncio.Task[None] | None = None
        self._is_from_outside = False
        self._starts = self._failed_starts = 0
        self._last_error = ""

    def start(self, listener: Listener) -> None:
        self._listener = listener
        self._life = asyncio.create_task(self._live(), name=f"worker {self.name}")

    def kill(self, reason: str) -> None:
        self._reason = reason
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)

    async def stop(self) -> None:
        self._is_stopping = True
        if self._writer is not None:
            self._send({"do": "stop"})
        if self._life is None:
            return
        _, late = await asyncio.wait([self._life], timeout=2.0)
        if late:
            self.kill("stopped")
            self._life.cancel()
            await asyncio.wait([self._life])
        if self._process is not None and self._process.returncode is None:
            self.kill("stopped")
            await self._process.wait()

    def status(self) -> WorkerStatus:
        pid = self._process.pid if self._process is not None and self._process.returncode is None else None
        jobs, stats, problem = tuple(self._jobs), self._stats, self._last_error
        return WorkerStatus(self.name, self._is_ready, self._starts, jobs, pid, stats, problem)

    # -- one life after another ----------------------------------------------------------------------------------

    async def _live(self) -> None:
        """Start the process, serve it to its end, start it again."""
        wait_s = FIRST_WAIT_S
        clock = asyncio.get_running_loop().time
        while not self._is_stopping:
            began, self._reason, self._has_started = clock(), "", False
            try:
                await self._one_life()
            except OSError as error:
                self._reason = f"cannot be started: {error}"
            except Exception as error:  # it speaks another language, of another version say
                LOG.exception("worker %s said something that cannot be read", self.name)
                self._reason = f"said something that cannot be read: {type(error).__name__}: {error}"
            if self._is_stopping:
                return
            self._mourn()
            self._count_failed_start()
            wait_s = FIRST_WAIT_S if clock() - began > STEADY_S else min(self.settings.max_restart_wait_s, wait_s * 2)
            await asyncio.sleep(wait_s)

    async def _one_life(self) -> None:
        short_of_memory = kernel_kills()
        environment = {**os.environ, **self.settings.environment}
        self._process, reader, self._writer = await spawn(MODULE, environment=environment)
        self._starts += 1
        how = self.settings
        hello = {"factory": how.factory, "options": dict(how.options), "slots": how.slots, "beat_s": how.beat_s}
        self._send({"do": "hello", **hello})
        watch = asyncio.create_task(self._hang_up(self._process, self._writer))
        try:
            async with asyncio.timeout(self.settings.start_deadline_s) as deadline:
                while (frame := await receive(reader)) is not None:
                    self._heard(self._listener, frame[0], frame[1])
                    if self._is_ready:
                        deadline.reschedule(None)
        except TimeoutError:
            self.kill(f"was not ready within {self.settings.start_deadline_s:g} s")
        finally:
            watch.cancel()
            self._is_ready = False
            self._writer.close()
            if not self._is_stopping:  # its end of the socket is closed: it is dead, or no use any more
                self._reap()
            status = await self._process.wait()
            is_spared = short_of_memory is not None and short_of_memory == kernel_kills()
            self._is_from_outside = is_spared and not self._reason and -status in OUTSIDE
            self._reason = self._reason or _how_it_ended(status)

    @staticmethod
    async def _hang_up(process: asyncio.subprocess.Process, writer: asyncio.StreamWriter) -> None:
        """Nobody is there once the process is gone, though one that it forked may hold its end of the socket."""
        await process.wait()
        await asyncio.sleep(DRAIN_S)
        writer.transport.abort()

    def _reap(self) -> None:
        """Make sure that it is gone; an exit status it has already is kept."""
        if self._process is not None and self._process.returncode is None:
            asyncio.get_running_loop().call_later(1.0, self._kill_if_alive, self._process)

    @staticmethod
    def _kill_if_alive(process: asyncio.subprocess.Process) -> None:
        if process.returncode is None:
            process.kill()

    def _mourn(self) -> None:
        """Tell who waits for it."""
        jobs, self._last_error = self._end_of_life(), self._reason
        LOG.warning("%s %s", self.name, self._reason, extra={"worker": self.name, "jobs": list(jobs)})
        self._listener.is_lost(self, jobs, f"{self.name} {self._reason}", is_from_outside=self._is_from_outside)

    def _count_failed_start(self) -> None:
        """Tell when it is time to give up; a worker that somebody killed while it started has not failed."""
        if self._has_started:
            self._failed_starts = 0
        elif not self._is_from_outside:
            self._failed_starts += 1
            if self._failed_starts == TRIES:
                reason = f"{self.name} did not start, {TRIES} times in a row: {self._reason}"
                self._listener.has_given_up(self, reason)

    # -- speaking ------------------------------------------------------------------------------------------------

    def _send(self, message: dict[str, Any]) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(pack(message))


def kernel_kills(counters: Path = Path("/proc/vmstat")) -> int | None:
    """How many processes the kernel has killed for want of memory so far; None where it does not say."""
    try:
        lines = counters.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def _how_it_ended(status: int) -> str:
    if status == CUT_OFF:
        return f"exited with status {status}: something in it closed the socket to the server"
    if status >= 0:
        return f"exited with status {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else str(-status)
    return f"died of {name}"
