"""Killed workers, killed and stopped servers: HTTP answers throughout, jobs end once, nothing accepted is lost."""

import json
import os
import signal
import time
import urllib.error
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


def test_a_hung_worker_is_replaced_while_http_answers_and_the_job_ends_once(tmp_path: Path) -> None:
    packs = str(CHECKOUT / "tests/e2e/packs")
    server = Server(tmp_path / "home", "--custom-nodes", packs, "--step-deadline-s", "3").start()
    try:
        graph = waiting(0.0)
        graph["2"] = {"class_type": "HangOnce", "inputs": {"image": ["1", 0], "unless": str(tmp_path / "once")}}
        prompt_id = str(server.json("/prompt", {"prompt": graph})["prompt_id"])
        entry = None
        while entry is None:
            assert server.json("/health")["status"] == "ok"
            entry = server.json(f"/history/{prompt_id}").get(prompt_id)
            time.sleep(0.1)
        assert entry["status"]["completed"] is True
        events = log_of(server, prompt_id)
        kinds = [event["kind"] for event in events]
        assert [kinds.count(kind) for kind in ("Started", "Requeued", "Ended")] == [2, 1, 1]
        assert "missed its step deadline" in events[kinds.index("Requeued")]["reason"]
        assert len(list((server.home / "output").glob("w_*.png"))) == 1
    finally:
        server.stop()


def test_a_killed_server_comes_back_with_its_jobs(server: Server) -> None:
    running = submitted(server, 2.0)
    pending = str(server.json("/prompt", {"prompt": waiting(0.1)})["prompt_id"])
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    server.start()
    assert server.ended(running)["status"]["completed"] is True
    assert server.ended(pending)["status"]["completed"] is True


def test_a_second_signal_ends_a_server_that_waits_for_its_job_which_comes_back(server: Server) -> None:
    prompt_id = submitted(server, 8.0)
    assert server.process is not None
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert server.json("/health")["status"] == "ok"
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == -signal.SIGTERM
    server.start()
    assert server.ended(prompt_id)["status"]["completed"] is True
    kinds = [event["kind"] for event in log_of(server, prompt_id)]
    assert [kinds.count(kind) for kind in ("Queued", "Started", "Requeued", "Ended")] == [1, 2, 1, 1]


def sampling(steps: int) -> dict[str, Any]:
    """The shipped workflow on the demo checkpoint."""
    graph: dict[str, Any] = json.loads((CHECKOUT / "workflows/txt2img.json").read_text())
    next(node for node in graph.values() if node["class_type"] == "KSampler")["inputs"]["steps"] = steps
    return graph


def log_of(server: Server, prompt_id: str) -> list[dict[str, Any]]:
    """The stored events of an ended job."""
    with urllib.request.urlopen(f"{server.url}/jobs/{prompt_id}/events") as response:
        blocks = response.read().decode().strip().split("\n\n")
    return [json.loads(block.split("data: ", 1)[1]) for block in blocks]


def until_step(server: Server, prompt_id: str, step: int) -> None:
    """Follow a job until a node has got so far."""
    with urllib.request.urlopen(f"{server.url}/jobs/{prompt_id}/events") as response:
        for line in response:
            if line.startswith(b"data: ") and json.loads(line[6:]).get("value", 0) >= step:
                return
    raise AssertionError(f"{prompt_id} ended before step {step}")


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Server]:
    """A server with the demo checkpoint that gives a running job one second when it is to stop."""
    place = tmp_path / "home/models/checkpoints"
    place.mkdir(parents=True)
    (place / "sigmagraph-demo.safetensors").symlink_to(CHECKOUT / "models/checkpoints/sigmagraph-demo.safetensors")
    running = Server(tmp_path / "home", "--stop-deadline-s", "1").start()
    yield running
    running.stop()


def test_a_server_told_to_stop_while_it_samples_gives_the_job_back_and_ends_it_once_later(demo: Server) -> None:
    prompt_id = str(demo.json("/prompt", {"prompt": sampling(120), "client_id": "c"})["prompt_id"])
    until_step(demo, prompt_id, 5)
    assert demo.process is not None
    begun = time.monotonic()
    demo.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert demo.json("/health")["status"] == "ok"  # it answers while it waits
    with pytest.raises(urllib.error.HTTPError, match="503"):
        demo.json("/prompt", {"prompt": waiting(0.0)})
    assert demo.process.wait(30) == 0
    assert time.monotonic() - begun < 15
    demo.start()
    assert demo.ended(prompt_id)["status"]["completed"] is True
    events = log_of(demo, prompt_id)
    kinds = [event["kind"] for event in events]
    assert [kinds.count(kind) for kind in ("Queued", "Started", "Requeued", "Ended")] == [1, 2, 1, 1]
    again = kinds.index("Requeued")
    reached, resumed = (
        [event["value"] for event in part if event["kind"] == "NodeProgress" and event["maximum"] == 120]
        for part in (events[:again], events[again:])
    )
    assert 5 <= max(reached) < 120
    assert resumed[0] > 1  # it goes on from its unfinished work
    assert len(list((demo.home / "output").glob("*.png"))) == 1


def test_a_job_that_ends_within_the_deadline_is_let_end(server: Server) -> None:
    prompt_id = submitted(server, 3.0)
    server.stop()
    server.start()
    events = log_of(server, prompt_id)
    assert [event["kind"] for event in events].count("Started") == 1
    assert events[-1]["state"] == "succeeded"
