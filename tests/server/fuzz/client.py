"""A client that sends what no proper client would, and measures the front: time to the answer, its own time, memory."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Request:
    """One request as bytes decide it: nothing is escaped that the test did not escape."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    @property
    def may_be_unfinished(self) -> bool:
        """Whether a server may rightly wait for more of it."""
        return any(name in ("Content-Length", "Transfer-Encoding", "Expect") for name, _ in self.headers)

    def written(self) -> bytes:
        lines = [f"{self.method} {self.target} HTTP/1.1", "Connection: close"]
        lines += ["Host: 127.0.0.1"] * (not any(name == "Host" for name, _ in self.headers))
        lines += [f"{name}: {value}" for name, value in self.headers]
        if not any(name in ("Content-Length", "Transfer-Encoding") for name, _ in self.headers):
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + self.body

    def __repr__(self) -> str:
        shown = self.body if len(self.body) < 400 else self.body[:400] + b"..."
        return f"Request({self.method!r}, {self.target[:300]!r}, {self.headers!r}, {shown!r})"


@dataclass(frozen=True)
class Answer:
    """`status` is None where the server closed the connection without one."""

    status: int | None
    body: bytes
    seconds: float
    processor_s: float


@dataclass
class Front:
    """The process under test."""

    port: int
    pid: int
    routes: list[tuple[str, str]]
    sent: int = field(default=0)

    def send(self, request: Request) -> Answer:
        """Send and read: all of a short answer, the beginning of a stream."""
        self.sent += 1
        patience_s = 0.5 if request.may_be_unfinished else 20.0
        used, began = self.processor_s(), time.monotonic()
        with socket.create_connection(("127.0.0.1", self.port), timeout=patience_s) as line:
            with suppress(BrokenPipeError, ConnectionResetError):  # it has heard enough: its answer to that counts
                line.sendall(request.written())
            head = self._read(line)
            assert head or request.may_be_unfinished, "no answer"
            seconds = time.monotonic() - began
        words = head.split(b"\r\n", 1)[0].split()
        status = int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") else None
        return Answer(status, head, seconds, self.processor_s() - used)

    def talk(self, frames: bytes) -> bytes:
        """Open a WebSocket, send bytes as frames, hang up; what the server said to the handshake."""
        self.sent += 1
        keys = (
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "c2l4dGVlbiBieXRlcyEhIQ=="),
        )
        request = (
            Request("GET", "/ws?clientId=fuzz", keys).written().replace(b"Connection: close", b"Connection: Upgrade")
        )
        with socket.create_connection(("127.0.0.1", self.port), timeout=20.0) as line:
            line.sendall(request)
            hello = line.recv(4096)
            with suppress(BrokenPipeError, ConnectionResetError):
                line.sendall(frames)
                line.shutdown(socket.SHUT_WR)
            return hello

    @staticmethod
    def _read(line: socket.socket) -> bytes:
        data = b""
        try:
            while b"\r\n\r\n" not in data and (more := line.recv(65536)):
                data += more
            line.settimeout(0.05)
            while len(data) < 4096 and (more := line.recv(65536)):
                data += more
        except TimeoutError:
            pass  # it waits, or streams
        except ConnectionResetError:
            data = data or b"closed"
        return data

    def processor_s(self) -> float:
        """Processor time of the front so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_S

    def peak_bytes(self) -> int:
        """The most memory the front has had."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024


@contextmanager
def running(home: Path) -> Iterator[Front]:
    """A front in a process of its own."""
    command = [sys.executable, "-m", "tests.server.fuzz.front", str(home)]
    with (home / "front.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            said = json.loads(process.stdout.readline())
            yield Front(said["port"], said["pid"], [(method, path) for method, path in said["routes"]])
        finally:
            process.stdin.close()
            process.wait(30)
