"""Log lines as JSON with their fields, and the last few hundred of them kept for the page's console."""

import json
import logging
import sys
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

__all__ = ["JsonFormatter", "RecentLines", "configure"]

KEPT = 300
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, and every field given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in STANDARD}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """The same for people: fields follow the message."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {name: value for name, value in vars(record).items() if name not in STANDARD}
        moment = datetime.fromtimestamp(record.created, UTC)
        tail = "".join(f" {name}={value}" for name, value in fields.items())
        head = f"{moment:%H:%M:%S} {record.levelname.lower():7} {record.getMessage()}{tail}"
        return f"{head}\n{self.formatException(record.exc_info)}" if record.exc_info else head


class RecentLines(logging.Handler):
    """Keeps the last lines and tells listeners about each new one."""

    def __init__(self, kept: int = KEPT) -> None:
        super().__init__()
        self.entries: deque[dict[str, str]] = deque(maxlen=kept)
        self.listeners: list[Callable[[dict[str, str]], None]] = []
        self.setFormatter(TextFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        moment = datetime.fromtimestamp(record.created, UTC).replace(tzinfo=None)
        entry = {"t": moment.isoformat(timespec="microseconds"), "m": self.format(record) + "\n"}
        self.entries.append(entry)
        for listener in self.listeners:
            listener(entry)


def configure(form: str, level: str) -> None:
    """Send the project's log to stderr in the form the operator chose."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("aiohttp.access", "alembic"):  # the metrics count requests
        logging.getLogger(chatty).setLevel(logging.WARNING)
