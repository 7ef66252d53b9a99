"""Where words to the user go: results to stdout, everything else to stderr."""

import json
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

__all__ = ["columns", "complain", "out", "remark", "say", "warn", "write_json"]


def out() -> Console:
    """What the user asked for; piped output is not wrapped."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=10_000)


def columns(*headers: str, whole: int = 1, right: tuple[str, ...] = ()) -> Table:
    """A plain table. The first `whole` columns are never cut; the others fold where the terminal is narrow."""
    table = Table(box=None, pad_edge=False)
    for place, header in enumerate(headers):
        table.add_column(header, no_wrap=place < whole, overflow="fold", justify="right" if header in right else "left")
    return table


def say() -> Console:
    """Progress and remarks."""
    return Console(stderr=True, highlight=False)


def remark(message: str) -> None:
    """One line to the user, as it is."""
    say().print(message, markup=False, soft_wrap=True)


def warn(message: str) -> None:
    """A remark that does not stop the run."""
    say().print(f"[yellow]warning:[/] {escape(message)}", soft_wrap=True)


def complain(error: Exception) -> None:
    """The one message of a failed command."""
    say().print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)


def write_json(value: Any) -> None:
    """One JSON document on stdout, never wrapped; what JSON has no form for (a path, say) as a string."""
    out().print(json.dumps(value, indent=2, ensure_ascii=False, default=str), markup=False, soft_wrap=True)
