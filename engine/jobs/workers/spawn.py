"""Processes of ours: started with our code and nobody else's, spoken with over a socket."""

import asyncio
import os
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping
from pathlib import Path

import sigmagraph

__all__ = ["search_path", "spawn"]

PACKAGE_PARENT = str(Path(sigmagraph.__file__).resolve().parents[1])


def search_path() -> list[str]:
    """Where this process found its modules, but for the current folder: what lies there is not the operator's code."""
    here = os.getcwd()  # noqa: PTH109  # compared with strings
    paths = [path for path in sys.path if os.path.isabs(path) and path != here]  # noqa: PTH117  # likewise
    return paths if PACKAGE_PARENT in paths else [*paths, PACKAGE_PARENT]


async def spawn(
    module: str, *arguments: str, environment: Mapping[str, str]
) -> tuple[Process, asyncio.StreamReader, asyncio.StreamWriter]:
    """Start `python -m module FD ...`; the process, and our end of the socket whose other end is FD.

    -P because the current folder may be another project's, with a torch.py or nodes.py of its own.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            module,
            str(theirs.fileno()),
            *arguments,
            pass_fds=[theirs.fileno()],
            env={**environment, "PYTHONPATH": os.pathsep.join(search_path())},
            stdin=asyncio.subprocess.DEVNULL,
        )
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    return process, reader, writer
