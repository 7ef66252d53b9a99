"""The statements on a job's way: as SQLAlchemy has them, and for SQLite compiled once and run without it.

SQLAlchemy takes a tenth of a millisecond for a statement that SQLite runs in a hundredth, and a job takes a dozen.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Executable
from sqlalchemy.dialects.sqlite import dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler

__all__ = ["Statement"]

SQLITE = dialect(paramstyle="named")
Parameters = Mapping[str, Any]


class Statement:
    """One statement with named parameters. `given` are the columns that an insert is given, `read` those it answers."""

    def __init__(
        self, statement: Executable, read: Sequence[ColumnElement[Any]] = (), given: Sequence[str] | None = None
    ) -> None:
        self.statement = statement
        compiled = statement.compile(dialect=SQLITE, column_keys=given)  # type: ignore[attr-defined]  # all of ours can
        assert isinstance(compiled, SQLCompiler)
        self._sql = compiled.string
        kinds = {name: bound.type.dialect_impl(SQLITE) for name, bound in compiled.binds.items()}
        made = {name: kind.bind_processor(SQLITE) for name, kind in kinds.items()}
        self._names = list(kinds)
        self._written = {name: writer for name, writer in made.items() if writer is not None}
        self._read = [
            (str(column.key), column.type.dialect_impl(SQLITE).result_processor(SQLITE, None)) for column in read
        ]

    def rows(self, connection: Connection, parameters: Parameters) -> list[dict[str, Any]]:
        """Run it; what it answers."""
        if connection.dialect.name != SQLITE.name:
            answer = connection.execute(self.statement, dict(parameters))
            return [dict(row) for row in answer.mappings()] if answer.returns_rows else []
        bound = self._bound(parameters)
        try:
            found = _sqlite(connection).execute(self._sql, bound).fetchall()
        except sqlite3.Error as error:
            raise self._as_sqlalchemy_has_it(error, bound) from error
        return [
            {
                name: value if reader is None else reader(value)
                for (name, reader), value in zip(self._read, row, strict=True)
            }
            for row in found
        ]

    def row(self, connection: Connection, parameters: Parameters) -> dict[str, Any] | None:
        """Its one row, if there is one."""
        return next(iter(self.rows(connection, parameters)), None)

    def run(self, connection: Connection, many: Sequence[Parameters]) -> None:
        """Run it once for each."""
        if connection.dialect.name != SQLITE.name:
            connection.execute(self.statement, [dict(parameters) for parameters in many])
            return
        bound = [self._bound(parameters) for parameters in many]
        try:
            _sqlite(connection).executemany(self._sql, bound)
        except sqlite3.Error as error:
            raise self._as_sqlalchemy_has_it(error, bound) from error

    def _bound(self, parameters: Parameters) -> dict[str, Any]:
        bound = {name: parameters[name] for name in self._names}
        for name, writer in self._written.items():
            bound[name] = writer(bound[name])
        return bound

    def _as_sqlalchemy_has_it(self, error: sqlite3.Error, bound: Any) -> BaseException:
        return DBAPIError.instance(self._sql, bound, error, sqlite3.Error, dialect=SQLITE)


def _sqlite(connection: Connection) -> sqlite3.Connection:
    found = connection.connection.driver_connection
    assert isinstance(found, sqlite3.Connection)
    return found
