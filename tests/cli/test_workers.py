"""`sigmagraph workers` against servers that are older, or none of ours; and where a key goes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from typer.testing import CliRunner

import sigmagraph as sg
from sigmagraph.engine.cli.app import app
from sigmagraph.engine.errors import ServerRefused


@contextmanager
def answering(status: int, body: bytes, **headers: str) -> Iterator[tuple[str, list[str | None]]]:
    """A server that answers everything alike, and the keys that it was sent."""
    keys: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.append(self.headers["Authorization"])
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", keys
    finally:
        server.shutdown()
        server.server_close()


def run(url: str) -> Any:
    return CliRunner().invoke(app, ["workers", url], env={"COLUMNS": "200"})


@pytest.mark.parametrize("body", [b'{"workers": [{"name": "w"}]}', b'{"workers": [{"name": "w", "devices": [{}]}]}'])
def test_an_older_server_is_listed_as_far_as_it_tells(body: bytes) -> None:
    with answering(200, body) as (url, _):
        shown = run(url)
    assert (shown.exit_code, shown.exception) == (0, None)
    assert shown.stdout.splitlines()[1].split()[0] == "w"


@pytest.mark.parametrize(
    "body",
    [
        b'{"workers": 5}',
        b'{"workers": [null]}',
        b'{"workers": [{"jobs": 7}]}',
        b'{"workers": [{"models": [1]}]}',
        b'{"workers": [{"devices": {"a": 1}}]}',
        b"[" * 100_000,
        b"<html>",
    ],
)
def test_what_is_no_answer_of_ours_is_told_in_a_line(body: bytes) -> None:
    with answering(200, body) as (url, _):
        shown = run(url)
    assert (shown.exit_code, repr(shown.exception)) == (1, "SystemExit(1)")
    assert "is it at this address?" in shown.stderr


@pytest.mark.parametrize("body", [b"oops", b'{"error": [], "node_errors": []}', b"[" * 100_000, b'{"error": "no"}'])
def test_a_refusal_of_any_form_is_told_in_a_line(body: bytes) -> None:
    with answering(500, body) as (url, _), pytest.raises(ServerRefused, match="GET /workers"):
        sg.Client(url).workers()


def test_a_redirect_to_another_server_is_followed_without_the_key() -> None:
    with answering(200, b'{"workers": []}') as (other, keys), answering(302, b"", Location=other) as (url, first):
        assert sg.Client(url, "secret").workers() == {"workers": []}
    assert (first, keys) == (["Bearer secret"], [None])
