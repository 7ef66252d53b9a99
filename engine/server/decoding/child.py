"""The process that decodes, `python -m sigmagraph.engine.server.decoding.child FD BYTES`: one request after another.

It tells what a picture will take before it decodes, and goes on when told to. What a hostile file can do ends here: the
computing time of each request and the memory of the process are bounded, and there is nothing secret in it.
"""

import io
import resource
import signal
import socket
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from PIL.Image import DecompressionBombWarning

from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.jobs.workers.ipc import Channel
from sigmagraph.engine.server.decoding.operations import OPERATIONS, PREVIEW_PIXELS, Picture, decoded, drafted, opened

__all__ = ["main"]

LONGEST_ANSWER = 1 << 20  # what is longer goes by a file, so that it never is in the server's memory
PREVIEW_BYTES = 12 * PREVIEW_PIXELS


class PictureDecoder:
    """One request at a time."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def serve(self) -> None:
        """Until the server is gone."""
        while (frame := self._channel.receive()) is not None:
            request, data = frame
            signal.setitimer(signal.ITIMER_PROF, request["cpu_s"])  # its signal ends the process
            began = _computed()
            try:
                self._answer(request, data, began)
            except EngineError as error:
                self._say("failed", began, message=str(error.args[0]))
            except MemoryError:
                self._say("failed", began, message=f"{request['name']}: takes more memory than decoding may have here")
            except Exception as error:  # noqa: BLE001  # Pillow raises anything over a bent file
                self._say("failed", began, message=f"{request['name']}: no picture that can be shown: {error}")
            signal.setitimer(signal.ITIMER_PROF, 0)

    def _answer(self, request: Mapping[str, Any], data: bytes, began: float) -> None:
        operation, name = OPERATIONS[request["do"]], request["name"]
        with ExitStack() as files:
            images = [opened(source, request["max_pixels"], name) for source in _sources(request["sources"], data)]
            for image in images:
                files.enter_context(image)
                if operation.is_small:
                    drafted(image)
            self._say("opened", began, bytes=_memory(images, operation.pixel_bytes, is_small=operation.is_small))
            if self._channel.receive() is None:
                return
            made = operation.make([decoded(image, name) for image in images], **request["options"])
        if isinstance(made, dict):
            self._say("done", began, made=made)
        elif len(made) <= LONGEST_ANSWER:
            self._say("done", began, data=made)
        else:
            Path(request["out"]).write_bytes(made)
            self._say("done", began, is_file=True)

    def _say(self, what: str, began: float, *, data: bytes = b"", **more: Any) -> None:
        self._channel.send({"say": what, "cpu_s": _computed() - began, **more}, data)


def _sources(sources: Sequence[Any], data: bytes) -> list[Path | io.BytesIO]:
    """A path, or a number of bytes of what came with the request."""
    found: list[Path | io.BytesIO] = []
    place = 0
    for source in sources:
        if isinstance(source, int):
            found.append(io.BytesIO(data[place : place + source]))
            place += source
        else:
            found.append(Path(source))
    return found


def _memory(images: Sequence[Picture], pixel_bytes: int, *, is_small: bool) -> int:
    """The most it takes to decode these and to make something of them, in bytes."""
    pixels = sum(image.width * image.height for image in images)
    return pixels * pixel_bytes + (min(12 * pixels, PREVIEW_BYTES) if is_small else 0)


def _computed() -> float:
    """Seconds of computing so far, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(descriptor: int, most_bytes: int) -> None:
    """Serve the socket, and end with it."""
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the server, which ends this by closing the socket
        signal.signal(number, signal.SIG_IGN)
    warnings.simplefilter("ignore", DecompressionBombWarning)  # our own limit says what is too large
    resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    PictureDecoder(Channel(socket.socket(fileno=descriptor))).serve()


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
