"""Log lines as JSON or text with their fields, said once; the last few hundred are kept for the page's console."""

import json
import logging
import re
import sys
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

__all__ = ["JsonFormatter", "RecentLines", "RequestLogger", "TextFormatter", "Unrepeated", "configure"]

KEPT = 300
SILENCE_S = 10.0
MOST_KNOWN = 1000
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""What would begin a new line or move the cursor of a terminal."""
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
    """The same for people: fields follow the message. Whatever a client sent, one event is one line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {name: value for name, value in vars(record).items() if name not in STANDARD}
        moment = datetime.fromtimestamp(record.created, UTC)
        tail = "".join(f" {name}={value}" for name, value in fields.items())
        head = f"{moment:%H:%M:%S} {record.levelname.lower():7} {one_line(record.getMessage() + tail)}"
        if not record.exc_info:
            return head
        lines = self.formatException(record.exc_info).splitlines()
        return "\n".join([head, *("    " + one_line(line) for line in lines)])


def one_line(text: str) -> str:
    """The text with control characters written as Python escapes them."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class Unrepeated(logging.Filter):
    """A warning that comes again within some seconds, with the same fields, is counted and not said."""

    def __init__(self, silence_s: float = SILENCE_S, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._silence_s, self._clock = silence_s, clock
        self._said: dict[tuple[str, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        fields = [f"{name}={value}" for name, value in vars(record).items() if name not in STANDARD]
        cause = str(record.exc_info[1]) if record.exc_info else ""
        key = (record.name, record.getMessage(), cause, *fields)
        now = self._clock()
        until, count = self._said.get(key, (now, 0))
        if now < until:
            self._said[key] = until, count + 1
            return False
        if count:
            record.repeated = count
        self._remember(key, now)
        return True

    def _remember(self, key: tuple[str, ...], now: float) -> None:
        if len(self._said) >= MOST_KNOWN:
            self._said = {said: (until, count) for said, (until, count) in self._said.items() if now < until}
        if len(self._said) < MOST_KNOWN:
            self._said[key] = now + self._silence_s, 0


class RecentLines(logging.Handler):
    """Keeps the last records and tells listeners about each new one. They become lines when somebody reads them."""

    def __init__(self, kept: int = KEPT) -> None:
        super().__init__()
        self._kept: deque[logging.LogRecord | dict[str, str]] = deque(maxlen=kept)
        self.listeners: list[Callable[[logging.LogRecord], None]] = []
        self.setFormatter(TextFormatter())
        self.addFilter(Unrepeated())

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append(self.entry(record) if record.exc_info else record)  # a traceback holds on to what failed
        for listener in self.listeners:
            listener(record)

    @property
    def entries(self) -> list[dict[str, str]]:
        """The last lines, each with its time."""
        return [kept if isinstance(kept, dict) else self.entry(kept) for kept in list(self._kept)]

    def entry(self, record: logging.LogRecord) -> dict[str, str]:
        """A line with its time."""
        moment = datetime.fromtimestamp(record.created, UTC).replace(tzinfo=None)
        return {"t": moment.isoformat(timespec="microseconds"), "m": self.format(record) + "\n"}


class RequestLogger(AbstractAccessLogger):
    """A line for every answered request: method, path, status, time. No query and no header: they may hold keys."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        size = getattr(response, "body_length", 0)
        fields = {"method": request.method, "path": request.path, "status": response.status}
        self.logger.info("request", extra=fields | {"ms": round(time * 1000, 1), "bytes": size})


def configure(form: str, level: str) -> None:
    """Send the project's log to stderr in the form the operator chose; `auto` is text for a terminal, else JSON."""
    handler = logging.StreamHandler(sys.stderr)
    is_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler.setFormatter(TextFormatter() if is_text else JsonFormatter())
    handler.addFilter(Unrepeated())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("aiohttp.access", "alembic"):  # the metrics count requests
        logging.getLogger(chatty).setLevel(logging.WARNING)
