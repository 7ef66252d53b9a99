"""Finding jobs by what their request says: words anywhere, or the value of an input of a node."""

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy import ColumnElement, Connection, Text, and_, case, func, type_coerce
from sqlalchemy.exc import OperationalError

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.jobs.store.tables import jobs

__all__ = ["length", "says", "within"]

LONGEST = 1024 * 1024
"""Characters of a request that is searched: while SQLite looks for a pattern, no other Python thread runs."""
SEARCH_S = 10.0
BETWEEN = 50
"""SQLite's instructions between two looks at the clock: about those of a row, whose search may take a second."""
WRITTEN = type_coerce(jobs.c.request, Text)
REQUEST = func.lower(case((func.length(WRITTEN) <= LONGEST, WRITTEN), else_=""))
REVISION = '(@[^"]*)?'
FILES = "(ckpt|unet|lora|vae|clip|control_net|model|gguf|diffusion)_?(name|path)?[0-9]?"
PATTERNS: Mapping[str, str] = {
    "sampler": f'"sampler_name":"{{}}{REVISION}"',
    "schedule": f'"scheduler":"{{}}{REVISION}"',
    "model": f'"{FILES}":"[^"]*{{}}',
    "seed": '"(noise_)?seed":{}[,}}]',
}
"""Where a value stands in the request's JSON, in small letters; both databases read these alike."""


def says(text: str, fields: Mapping[str, str]) -> list[ColumnElement[bool]]:
    """Conditions on a job's request. The pattern is asked only of what holds the words at all."""
    found = [_holds(text)] if text else []
    for name, value in fields.items():
        pattern = PATTERNS[name].format(re.escape(_written(value)))
        found.append(and_(_holds(value), REQUEST.regexp_match(pattern)))
    return found


def length() -> ColumnElement[int]:
    """Characters of a request's JSON."""
    return func.length(WRITTEN)


@contextmanager
def within(connection: Connection, seconds: float = SEARCH_S) -> Iterator[None]:
    """End what the database does after so many seconds: the search is refused then, with what makes it shorter."""
    ends = time.monotonic() + seconds
    is_sqlite = connection.dialect.name == "sqlite"
    driver = connection.connection.driver_connection
    if is_sqlite and driver is not None:
        driver.set_progress_handler(lambda: time.monotonic() > ends, BETWEEN)
    else:
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {int(seconds * 1000)}")
    try:
        yield
    except OperationalError as error:
        if time.monotonic() < ends:
            raise
        shorter = "one that takes less: say `created_after`, or more of the word"
        raise BadValue("the search", f"longer than {seconds:g} s", shorter) from error
    finally:
        if is_sqlite and driver is not None:
            driver.set_progress_handler(None, 0)


def _holds(text: str) -> ColumnElement[bool]:
    return REQUEST.contains(_written(text), autoescape=True)


def _written(text: str) -> str:
    """As the column has it."""
    return json.dumps(text)[1:-1].lower()
