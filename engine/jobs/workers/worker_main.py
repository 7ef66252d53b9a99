"""The worker process, `python -m sigmagraph.engine.jobs.workers.worker_main FD`: reads tasks, sends what happens.

It ends as soon as the socket does: a front that was killed leaves no orphan behind.
"""

import gc
import os
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from threading import Thread

from sigmagraph.engine.jobs.workers.child import Child, opened
from sigmagraph.engine.jobs.workers.ipc import CUT_OFF, Channel
from sigmagraph.engine.jobs.workers.worker import load_factory

__all__ = ["main"]

QUIET_END = 0
BAD_START = 3
LOOK_S = 0.25


def main(descriptor: int) -> int:
    """Serve the socket; the exit status says whether it ever started."""
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the front, which lets jobs finish and then says stop
        signal.signal(number, _leave_it_to_the_front)
    channel = Channel(socket.socket(fileno=descriptor))
    frame = channel.receive()
    if frame is None:
        return QUIET_END
    hello = frame[0]
    try:
        runner, ready = opened(load_factory(hello["factory"])(hello["options"]), channel.flush)
    except Exception as error:  # noqa: BLE001  # whatever keeps it from starting, the front has to know it
        traceback.print_exc()
        channel.send({"say": "failed", "reason": f"{type(error).__name__}: {error}"})
        return BAD_START
    gc.freeze()  # what is loaded stays: a full collection walked all of it, for a quarter of a second in a step
    channel.send(ready)
    child = Child(channel, runner, hello["slots"])
    reader = Thread(target=child.serve, name="front", daemon=True)
    reader.start()
    Thread(target=_end_when_cut_off, args=(channel,), name="socket", daemon=True).start()
    Thread(target=child.beat, args=(hello["beat_s"],), name="beat", daemon=True).start()
    reader.join()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a node may have closed them
            stream.flush()
    os._exit(CUT_OFF if channel.is_cut_off() else QUIET_END)  # a node that hangs must not keep the process alive


def _end_when_cut_off(channel: Channel) -> None:
    """A node may close every descriptor there is: without its socket the process serves nobody, and nobody sees it."""
    while not channel.is_cut_off():
        time.sleep(LOOK_S)
    os._exit(CUT_OFF)


def _leave_it_to_the_front(number: int, frame: object) -> None:
    """A terminal and systemd signal every process of a group; a handler, unlike ignoring, ends with an exec."""


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
