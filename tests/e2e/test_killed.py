"""kill -9 in the middle of real sampling: nothing accepted is lost, and what is made is what would have been made."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from engine.execution.cache import MemoryCache
from engine.execution.folders import Folders
from engine.execution.run import execute
from engine.graph.document import parse_workflow
from engine.graph.plan import plan
from engine.graph.validate import validate

pytestmark = pytest.mark.slow

Graphs = Callable[..., dict[str, Any]]
JOBS, KILLS = (int(os.environ.get(f"SIGMAGRAPH_{name}", usual)) for name, usual in (("JOBS", 40), ("KILLS", 30)))
SAMPLERS = ("euler", "dpmpp_2m", "heun", "euler_ancestral", "dpmpp_sde", "uni_pc", "lms", "res_multistep")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "SIGMAGRAPH_PRIVATE_WEBHOOKS": "true"}
COMMAND = [sys.executable, "-c", "from engine.cli.app import main; main()"]
ROOT = Path(__file__).resolve().parents[2]


def undisturbed(home: Path, graph: dict[str, Any]) -> bytes:
    """The picture of a graph, made here in one go."""
    import torch

    from nodes import NODES

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        folders = Folders(home / "models", home / "input", home / "calm", home / "calm-temp")
        prepared = plan(validate(parse_workflow(graph), NODES, folders), folders)
        ui = execute(prepared, folders, MemoryCache(), around=torch.inference_mode).or_raise().ui
    finally:
        torch.set_num_threads(threads)
    return (home / "calm" / ui["7"]["images"][0]["filename"]).read_bytes()


def test_a_killed_command_goes_on_where_it_was(home: Path, txt2img: Graphs) -> None:
    graph = txt2img(steps=200, sampler_name="dpmpp_2m")
    path = home / "workflow.json"
    path.write_text(json.dumps(graph))
    arguments = [*COMMAND, "run", str(path), "--home", str(home), "--output", str(home / "out")]
    running = subprocess.Popen(arguments, env=ENVIRONMENT, cwd=ROOT, stderr=subprocess.DEVNULL)
    wait_for(lambda: size_of_unfinished(home) > 30_000, 120)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not list((home / "out").glob("*.png"))
    written = size_of_unfinished(home)
    subprocess.run(arguments, env=ENVIRONMENT, cwd=ROOT, check=True, capture_output=True)
    [made] = (home / "out").glob("*.png")
    assert made.read_bytes() == undisturbed(home, graph)
    assert written > 0
    assert size_of_unfinished(home) == 0


def size_of_unfinished(home: Path) -> int:
    return sum(path.stat().st_size for path in (home / "temp").rglob("*.part"))


def wait_for(is_so: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


class Server:
    """`sigmagraph serve` as a process that is killed and started again on one port."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, 0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self.port == 0:
            with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as probe:
                self.port = probe.server_address[1]
        log = (self.home / "server.log").open("ab")
        where = ["--home", str(self.home), "--output", str(self.home / "out"), "--port", str(self.port)]
        self.process = subprocess.Popen([*COMMAND, "serve", *where], env=ENVIRONMENT, cwd=ROOT, stderr=log)
        log.close()
        wait_for(lambda: self.answers("/health"), 60)

    def answers(self, path: str) -> bool:
        try:
            self.call(path)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        return True

    def call(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data)
        with urllib.request.urlopen(request, timeout=90) as answer:
            return json.loads(answer.read() or b"null")

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def kill_worker(self) -> None:
        """The process that samples, if it runs just now."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGKILL)


@pytest.fixture
def server(home: Path) -> Iterator[Server]:
    server = Server(home)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def told() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A receiver of webhooks: its address, and (job id, delivery id) of all that came."""
    heard: list[tuple[str, str]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the base class calls it by this name
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            heard.append((body["job_id"], self.headers["Webhook-Id"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *what: Any) -> None:
            """Say nothing."""

    receiver = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=receiver.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{receiver.server_address[1]}/", heard
    receiver.shutdown()
    receiver.server_close()
    thread.join()


def mixed(txt2img: Graphs, at: int) -> dict[str, Any]:
    """Job `at`: one of several samplers, short or long, and a name of its own."""
    sampler = SAMPLERS[at % len(SAMPLERS)]
    graph = txt2img(seed=at, steps=(40, 120, 200)[at % 3], sampler_name=sampler)
    graph["7"]["inputs"]["filename_prefix"] = f"job{at:02}x"
    return graph


def test_forty_jobs_outlive_thirty_kills(server: Server, home: Path, txt2img: Graphs, told: Any) -> None:
    url, heard = told
    graphs = {number: mixed(txt2img, number) for number in range(JOBS)}
    accepted: dict[str, int] = {}
    chance, left = random.Random(6), 0
    for kill in range(KILLS):
        for at in range(JOBS * kill // KILLS, JOBS * (kill + 1) // KILLS):
            server.call(f"/workflows/job{at}", {"workflow": graphs[at]})
            answer = server.call(f"/workflows/job{at}/run", {"webhook": {"url": url, "secret": "s"}})
            accepted[answer["job_id"]] = at
        wait_for(lambda before=left: size_of_unfinished(home) not in (0, before), 120)  # type: ignore[misc]  # it samples
        time.sleep(chance.uniform(0.0, 1.5))
        if kill % 2:
            server.kill()
            server.start()
        else:
            server.kill_worker()
        left = size_of_unfinished(home)  # three deaths without a step between them would fail the job, rightly
    wait_for(lambda: server.call("/prompt")["exec_info"]["queue_remaining"] == 0, 600)
    wait_for(lambda: {job for job, _ in heard} == set(accepted), 120)
    history = server.call("/history?max_items=1000")
    for job_id, at in accepted.items():
        assert history[job_id]["status"]["status_str"] == "success", (at, history[job_id]["status"])
        [picture] = history[job_id]["outputs"]["7"]["images"]
        assert (home / "out" / picture["filename"]).read_bytes() == undisturbed(home, graphs[at]), at
        assert len({delivery for job, delivery in heard if job == job_id}) == 1
    assert ends(home) == dict.fromkeys(accepted, 1)
    assert interrupted(home) > KILLS // 3  # the kills did hit running jobs


def ends(home: Path) -> dict[str, int]:
    """How often each job ended, by its stored events."""
    with sqlite3.connect(f"file:{home}/user/jobs.sqlite?mode=ro", uri=True) as database:
        query = (
            "select job_id, count(*) from events join jobs on jobs.id = job_id "
            "where type = 'ended' and source = 'workflows' group by job_id"
        )
        return dict(database.execute(query).fetchall())


def interrupted(home: Path) -> int:
    """How many attempts were lost."""
    with sqlite3.connect(f"file:{home}/user/jobs.sqlite?mode=ro", uri=True) as database:
        return int(database.execute("select count(*) from events where type = 'requeued'").fetchone()[0])
