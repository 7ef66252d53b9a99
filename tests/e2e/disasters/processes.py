"""`sigmagraph serve` as processes that disasters happen to, and a receiver of its webhooks."""

import http.client
import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, "-c", "from sigmagraph.engine.cli.app import main; main()"]
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
    "SIGMAGRAPH_PRIVATE_WEBHOOKS": "true",
    "SIGMAGRAPH_STOP_DEADLINE_S": "0.5",
}
SMALL_DISK = os.environ.get("SIGMAGRAPH_SMALL_DISK")
"""A folder on a file system of some 60 MB that may be filled; without it, processes are limited instead."""
UNREACHABLE = (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException)


def wait_for(is_so: Callable[[], bool], timeout_s: float) -> None:
    """Until it is so; fails after a time no test needs."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


class Server:
    """One server on one home folder and one port, started again after each end."""

    def __init__(self, home: Path) -> None:
        self.home, self.port, self.start_s = home, 0, 4.0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        if self.port == 0:
            with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as probe:
                self.port = probe.server_address[1]
        where = ["--home", str(self.home), "--output", str(self.home / "out"), "--port", str(self.port)]
        with (self.home / "server.log").open("ab") as log:
            self.process = subprocess.Popen([*COMMAND, "serve", *where], env=ENVIRONMENT, cwd=ROOT, stderr=log)
        wait_for(lambda: self.answers("/health"), 60)

    def measure(self, graph: Any) -> None:
        """Start it and note how long that takes to the first step of a job, 8 s at most: how busy this machine is."""
        began = time.monotonic()
        self.start()
        job_id = self.call("/prompt", {"prompt": graph})["prompt_id"]
        first = f"select count(*) from events where job_id = '{job_id}' and type = 'node_progress'"
        wait_for(lambda: self.rows(first) != [(0,)], 120)
        self.start_s = min(8.0, time.monotonic() - began)

    def end(self, number: signal.Signals) -> int:
        """Send the front a signal and wait for its end; its worker goes with it."""
        assert self.process is not None
        worker = self.worker()
        self.process.send_signal(number)
        status = self.process.wait(60)
        if worker is not None:
            wait_for(lambda: not is_alive(worker), 30)
        return status

    def worker(self) -> int | None:
        """The process that samples, if there is one just now."""
        assert self.process is not None
        with suppress(FileNotFoundError, ProcessLookupError):
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            return int(children[0]) if children else None
        return None

    def signal_worker(self, number: signal.Signals) -> None:
        """Send the worker a signal, once there is one."""
        wait_for(lambda: self.worker() is not None, 60)
        with suppress(ProcessLookupError):
            os.kill(self.worker() or 0, number)

    def answers(self, path: str) -> bool:
        """Whether the server answers with success."""
        try:
            self.call(path)
        except UNREACHABLE:
            return False
        return True

    def call(self, path: str, body: Any = None, **headers: str) -> Any:
        """One request; raises for what is no success."""
        data = None if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, named)
        with urllib.request.urlopen(request, timeout=90) as answer:
            return json.loads(answer.read() or b"null")

    def insist(self, path: str, body: Any, key: str) -> Any:
        """A submission that is sent again, with its key, until it has been answered: what a careful client does."""
        while True:
            try:
                return self.call(path, body, Idempotency_Key=key)
            except urllib.error.HTTPError as refusal:
                if refusal.code != 503:
                    raise
            except UNREACHABLE:
                pass
            time.sleep(0.1)

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """No file of the server or its worker can grow for as long as this lasts: what a full disk comes to.

        A process may lower its own limit on the size of files and raise it again, so nobody needs to be root. On a
        small disk of its own (SIGMAGRAPH_SMALL_DISK) the disk is filled.
        """
        assert self.process is not None
        if SMALL_DISK:
            with filled(self.home):
                yield
            return
        pids = [pid for pid in (self.process.pid, self.worker()) if pid is not None]
        for pid in pids:
            _limit_files(pid, 4096)
        try:
            yield
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    _limit_files(pid, resource.RLIM_INFINITY)

    @contextmanager
    def locked_database(self) -> Iterator[None]:
        """Another process holds the database for as long as this lasts."""
        script = (
            "import sqlite3, sys\n"
            "other = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)\n"
            "other.execute('BEGIN EXCLUSIVE')\n"
            "print('held', flush=True)\n"
            "sys.stdin.read()\n"
            "other.execute('ROLLBACK')\n"
        )
        command = [sys.executable, "-c", script, str(self.home / "user/jobs.sqlite")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            yield

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query of the database answers."""
        with sqlite3.connect(f"file:{self.home}/user/jobs.sqlite?mode=ro", uri=True) as database:
            return database.execute(query).fetchall()


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """The disk of a folder without a free byte."""
    balloon = folder / "balloon"
    with suppress(OSError), balloon.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 10, 1):
            with suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
    try:
        yield
    finally:
        balloon.unlink()


def _limit_files(pid: int, size_bytes: int) -> None:
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size_bytes, hard))


def is_alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def lost_attempts(server: Server) -> int:
    """How often a running job was queued again."""
    return int(server.rows("select count(*) from events where type = 'requeued'")[0][0])


def disturb(server: Server, times: int, disturbances: list[Callable[[], Any]], longest: float) -> None:
    """Disturbances in turn, at random moments; `longest` between two is counted in starts of the server."""
    chance = random.Random(times)
    longest_s = longest * server.start_s
    for turn in range(times):
        time.sleep(chance.uniform(0.2, longest_s))
        disturbances[turn % len(disturbances)]()


class Receiver:
    """Hears webhooks: the delivery ids by job. The first try of each is refused, so that there is a second."""

    def __init__(self) -> None:
        self.heard: defaultdict[str, list[str]] = defaultdict(list)
        self._refused: set[str] = set()

    def answer(self, job_id: str, delivery: str) -> int:
        """The status a delivery is answered with."""
        if delivery not in self._refused:
            self._refused.add(delivery)
            return 500
        self.heard[job_id].append(delivery)
        return 204

    @contextmanager
    def listening(self) -> Iterator[str]:
        """Its address, for as long as it listens."""
        answer = self.answer

        class Hook(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the base class calls it by this name
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(answer(body["data"]["job_id"], str(self.headers["Webhook-Id"])))
                self.end_headers()

            def log_message(self, *what: Any) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        server.server_close()
        thread.join()
