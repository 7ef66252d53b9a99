"""Where words to the user go: results to stdout, everything else to stderr."""

import json
import textwrap
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Column, Table

from sigmagraph.engine.cli.stdout import answer_stream

__all__ = ["Columns", "columns", "complain", "out", "remark", "say", "tell", "warn", "write_json"]

GAP = 2  # between columns


def out() -> Console:
    """What the user asked for; piped output is not wrapped."""
    console = Console(file=answer_stream(), highlight=False)
    return console if console.is_terminal else Console(file=answer_stream(), highlight=False, width=10_000)


class Columns(Table):
    """A plain table whose cells fold between words, wherever the terminal has room for the longest word of each."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        measured = [(*self._measured(column, console, options), column) for column in self.columns]
        left = options.max_width - GAP * (len(measured) - 1) - sum(least for least, _, _ in measured)
        if left >= 0:
            measured.sort(key=lambda one: one[1] - one[0])
            for place, (least, most, column) in enumerate(measured):
                column.width = least + min(most - least, left // (len(measured) - place))
                left -= column.width - least
        yield from super().__rich_console__(console, options)

    @staticmethod
    def _measured(column: Column, console: Console, options: ConsoleOptions) -> tuple[int, int]:
        """The longest word, and the longest cell."""
        cells = [Measurement.get(console, options, cell) for cell in (column.header, *column.cells)]
        most = max(cell.maximum for cell in cells)
        return most if column.no_wrap else max(cell.minimum for cell in cells), most


def columns(*headers: str, whole: int = 1, right: tuple[str, ...] = ()) -> Columns:
    """A plain table. The first `whole` columns are never folded; the others are where the terminal is narrow."""
    table = Columns(box=None, pad_edge=False)
    for place, header in enumerate(headers):
        table.add_column(header, no_wrap=place < whole, overflow="fold", justify="right" if header in right else "left")
    return table


def tell(line: str) -> None:
    """A line of the answer; a terminal that is too narrow for it gets it folded between words."""
    console = out()
    width = console.width if console.is_terminal else len(line) + 1
    folded = textwrap.wrap(line, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    for part in folded or [""]:
        console.print(_writable(part), markup=False, soft_wrap=True)


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
    out().print(_writable(json.dumps(value, indent=2, ensure_ascii=False, default=str)), markup=False, soft_wrap=True)


def _writable(text: str) -> str:
    r"""Half a character, as in a file's odd name, has no bytes: it is written as JSON writes it, `\ud800`."""
    return text.encode("utf-8", "backslashreplace").decode()
