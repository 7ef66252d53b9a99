"""A real server for suites that drive it from outside: `sigmagraph serve` on a free port, with a home of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-c", "from sigmagraph.engine.cli.app import main; main()", "serve"]
PATIENCE_S = 120.0


class Server:
    """Started, stopped and started again on the same home and port."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home, self.options, self.port = home, options, free_port()
        self.command: Sequence[str] = COMMAND
        self.process: subprocess.Popen[bytes] | None = None
        (home / "models").mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, path: str = "/ready", folder: Path = CHECKOUT, **variables: str) -> "Server":
        """Start in a folder, and wait until it answers this path."""
        arguments = ["--home", str(self.home), "--port", str(self.port), *self.options]
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
        with (self.home / "server.log").open("ab") as log:
            command = [*self.command, *arguments]
            self.process = subprocess.Popen(command, cwd=folder, stderr=log, stdout=log, env=environment)
        return self.until(path)

    def until(self, path: str) -> "Server":
        """Wait until a path answers with 200."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with suppress(urllib.error.URLError, ConnectionError):
                self.json(path)
                return self
            assert self.process is None or self.process.poll() is None, (self.home / "server.log").read_text()
            time.sleep(0.02)
        raise AssertionError((self.home / "server.log").read_text())

    def stop(self) -> None:
        """Stop as an operator would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)

    def json(self, path: str, body: Any = None) -> Any:
        """What a route answers; a body makes it a POST."""
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data)) as response:
            return json.loads(response.read() or b"null")

    def refusal(self, path: str, body: Any = None) -> Any:
        """What a route that refuses answers; a body makes it a POST."""
        with pytest.raises(urllib.error.HTTPError) as caught:
            self.json(path, body)
        with caught.value as error:
            return json.loads(error.read())

    def ended(self, prompt_id: str) -> Any:
        """The history entry of a job, once it is over."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            entry = self.json(f"/history/{prompt_id}").get(prompt_id)
            if entry is not None:
                return entry
            time.sleep(0.05)
        raise AssertionError(f"{prompt_id} did not end")


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
