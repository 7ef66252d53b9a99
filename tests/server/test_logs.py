"""What a log says when clients choose the words, and when the same thing happens a thousand times a second."""

import logging

from sigmagraph.engine.server.monitoring.logs import TextFormatter, Unrepeated


def record(message: str, level: int = logging.WARNING, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("sigmagraph.http", level, __file__, 1, message, None, None)
    vars(made).update(fields)
    return made


def test_a_line_of_text_stays_one_line_whatever_a_client_sent() -> None:
    forged = "x\r\n12:00:00 info    job ended\x1b[2J\x85\u2028 job=1"
    text = TextFormatter().format(record(forged, path=forged))
    assert text.splitlines() == [text]
    assert "\x1b" not in text
    assert "x\\r\\n12:00:00" in text
    try:
        raise ValueError(forged)
    except ValueError as error:
        failed = record("failed")
        failed.exc_info = (ValueError, error, error.__traceback__)
    head, *trace = TextFormatter().format(failed).splitlines()
    assert head.endswith("failed")
    assert trace
    assert all(line.startswith("    ") for line in trace)


def test_a_warning_that_repeats_is_said_once_and_counted() -> None:
    now = [0.0]
    once = Unrepeated(10.0, lambda: now[0])
    said = sum(once.filter(record("out of descriptors")) for _ in range(1000))
    assert said == 1
    assert once.filter(record("out of descriptors", job="another"))
    assert all(once.filter(record("job started", logging.INFO)) for _ in range(5))
    now[0] = 11.0
    again = record("out of descriptors")
    assert once.filter(again)
    assert vars(again)["repeated"] == 999


def test_what_is_remembered_of_warnings_is_bounded() -> None:
    once = Unrepeated(10.0, lambda: 0.0)
    assert all(once.filter(record(f"warning {i}")) for i in range(5000))
    assert len(once._said) <= 1000
