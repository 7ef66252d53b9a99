"""One row, or whether there is any, on the event loop: SQLite has read it in a tenth of the time that a thread takes.

Nothing is remembered: each reading sees the last commit of whoever wrote, so that a withdrawn key opens nothing.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Table, bindparam, select
from sqlalchemy.dialects.sqlite import dialect

__all__ = ["RowQuery", "RowReader"]

SQLITE = dialect(paramstyle="qmark")
Value = Callable[[Any], Any]


class RowQuery:
    """The row of a table whose unique column has a value, for both databases."""

    def __init__(self, table: Table, column: str) -> None:
        self.statement = select(table).where(table.c[column] == bindparam("value"))
        self.sqlite = str(self.statement.compile(dialect=SQLITE))
        self._columns = [(of_table.name, _reader(of_table.type.dialect_impl(SQLITE))) for of_table in table.columns]

    def read(self, row: tuple[Any, ...]) -> dict[str, Any]:
        """What SQLite gave, as values."""
        pairs = zip(self._columns, row, strict=True)
        return {name: value if reader is None else reader(value) for (name, reader), value in pairs}


class RowReader:
    """A connection of the event loop's own. It waits for no lock: `sqlite3.Error` where it would have to."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA query_only = ON")

    def row(self, query: RowQuery, value: str) -> dict[str, Any] | None:
        """The row, as it was last committed."""
        rows = self._connection.execute(query.sqlite, (value,)).fetchall()  # to its end, which ends the reading
        return query.read(rows[0]) if rows else None

    def has_any(self, table: Table) -> bool:
        """Whether a table has rows, as of the last commit."""
        return bool(self._connection.execute(f'SELECT EXISTS (SELECT 1 FROM "{table.name}")').fetchall()[0][0])

    def close(self) -> None:
        """Let go."""
        self._connection.close()


def _reader(kind: Any) -> Value | None:
    """What makes a column's value of what SQLite gives; None where that is the value."""
    found: Value | None = kind.result_processor(SQLITE, None)
    return found
