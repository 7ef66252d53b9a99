"""Standard output is for answers: what nodes and packs print, and the programs they start, goes to stderr.

Standard library only: every command has it, also those that answer before anything large is imported.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from typing import TextIO

__all__ = ["answer_stream", "keep_stdout_for_answers", "within_command"]

_command: ContextVar[ExitStack | None] = ContextVar("command", default=None)
_answers: ContextVar[TextIO | None] = ContextVar("answers", default=None)


@contextmanager
def within_command() -> Iterator[None]:
    """While a command runs. At its end standard output is what it was."""
    with ExitStack() as stack:
        token = _command.set(stack)
        stack.callback(_command.reset, token)
        yield


def keep_stdout_for_answers() -> None:
    """To the end of the command `answer_stream` alone leads to standard output. Outside a command: nothing happens."""
    stack, shown = _command.get(), sys.stdout
    if stack is None or shown is None or sys.stderr is None or _answers.get() is not None:
        return
    held = shown
    with suppress(OSError, ValueError):  # a file of its own, as in tests, or one of the two is closed
        if shown.fileno() == 1:
            held = _apart(stack, shown)
    stack.callback(_answers.reset, _answers.set(held))
    stack.enter_context(redirect_stdout(sys.stderr))


def answer_stream() -> TextIO:
    """Where answers go."""
    return _answers.get() or sys.stdout


def _apart(stack: ExitStack, shown: TextIO) -> TextIO:
    """Standard output under another number; under its own, which started programs inherit, is standard error."""
    shown.flush()
    kept = os.dup(1)
    stack.callback(os.close, kept)
    os.dup2(2, 1)
    stack.callback(os.dup2, kept, 1)
    stack.callback(shown.flush)
    held = open(kept, "w", encoding=shown.encoding, errors=shown.errors, closefd=False)  # noqa: SIM115
    stack.callback(_closed, held)
    return held


def _closed(file: TextIO) -> None:
    with suppress(OSError):  # nobody reads any more; who wrote was told
        file.close()
