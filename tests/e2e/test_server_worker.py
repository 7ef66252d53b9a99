"""A killed worker: HTTP answers throughout, the job ends once. A killed server loses nothing it accepted."""

import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving import CHECKOUT, Server

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path / "home", "--custom-nodes", str(CHECKOUT / "tests/browser/packs")).start()
    yield running
    running.stop()


def waiting(seconds: float) -> dict[str, Any]:
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 1}},
        "2": {"class_type": "WaitAndPass", "inputs": {"image": ["1", 0], "seconds": seconds, "turn": 0}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "w"}},
    }


def submitted(server: Server, seconds: float) -> str:
    """A job, once it runs."""
    prompt_id = str(server.json("/prompt", {"prompt": waiting(seconds)})["prompt_id"])
    while not server.json("/queue")["queue_running"]:
        time.sleep(0.05)
    return prompt_id


def worker_of(server: Server) -> int:
    """The process the front started."""
    assert server.process is not None
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return int(children[0])


def test_a_killed_worker_is_replaced_while_http_answers_and_the_job_ends_once(server: Server) -> None:
    prompt_id = submitted(server, 3.0)
    os.kill(worker_of(server), signal.SIGKILL)
    longest, entry = 0.0, None
    while entry is None:
        begun = time.monotonic()
        assert server.json("/health")["status"] == "ok"
        entry = server.json(f"/history/{prompt_id}").get(prompt_id)
        longest = max(longest, time.monotonic() - begun)
        time.sleep(0.05)
    assert entry["status"]["completed"] is True
    assert longest < 5.0
    assert len(list((server.home / "output").glob("w_*.png"))) == 1
    with urllib.request.urlopen(f"{server.url}/metrics") as response:
        assert 'sigmagraph_worker_starts{worker="worker"} 2.0' in response.read().decode()


def test_a_killed_server_comes_back_with_its_jobs(server: Server) -> None:
    running = submitted(server, 2.0)
    pending = str(server.json("/prompt", {"prompt": waiting(0.1)})["prompt_id"])
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    server.start()
    assert server.ended(running)["status"]["completed"] is True
    assert server.ended(pending)["status"]["completed"] is True
