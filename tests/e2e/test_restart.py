"""A server killed outright finds its results on disk: no model is called, and the pictures are the same bytes."""

import os
import re
import signal
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving import Server

pytestmark = pytest.mark.slow
Graphs = Callable[..., dict[str, Any]]
MODELS = ("CheckpointLoaderSimple", "CLIPTextEncode", "KSampler", "VAEDecode")


@pytest.fixture
def server(home: Path) -> Iterator[Server]:
    running = Server(home, "--cache", "memory=1GiB,disk=1GiB").start()
    yield running
    running.stop()


def twelve(txt2img: Graphs) -> dict[str, Any]:
    """Text to image, then once more from its enlarged latent."""
    graph = txt2img(steps=3)
    refine = graph["5"]["inputs"] | {"latent_image": ["8", 0], "denoise": 0.5, "seed": 9}
    return graph | {
        "8": {"class_type": "LatentUpscale", "inputs": {"samples": ["5", 0], "upscale_method": "bilinear",
              "width": 80, "height": 64, "crop": "disabled"}},
        "9": {"class_type": "KSampler", "inputs": refine},
        "10": {"class_type": "VAEDecode", "inputs": {"samples": ["9", 0], "vae": ["1", 2]}},
        "11": {"class_type": "SaveImage", "inputs": {"images": ["10", 0], "filename_prefix": "refined"}},
        "12": {"class_type": "PreviewImage", "inputs": {"images": ["10", 0]}},
    }  # fmt: skip


def pictures(server: Server, graph: dict[str, Any]) -> list[bytes]:
    entry = server.ended(str(server.json("/prompt", {"prompt": graph})["prompt_id"]))
    assert entry["status"]["completed"] is True
    names = [entry["outputs"][node_id]["images"][0]["filename"] for node_id in ("7", "11")]
    return [(server.home / "output" / name).read_bytes() for name in names]


def killed_and_started(server: Server) -> None:
    """The front and its worker, with kill -9."""
    assert server.process is not None
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    for pid in (server.process.pid, *map(int, children)):
        os.kill(pid, signal.SIGKILL)
    server.process.wait()
    server.start()


def executed(server: Server) -> set[str]:
    """The classes that used models since the start of the server."""
    with urllib.request.urlopen(f"{server.url}/metrics") as response:
        told = response.read().decode()
    spent = dict(re.findall(r'sigmagraph_node_seconds_total{class_type="(\w+)"} (\S+)', told))
    return {kind for kind in MODELS if float(spent.get(kind, 0)) > 0}


def test_after_a_kill_nothing_is_computed_again_and_a_damaged_entry_is_and_is_told(
    server: Server, txt2img: Graphs
) -> None:
    graph = twelve(txt2img)
    assert len(graph) == 12
    first = pictures(server, graph)
    assert executed(server) == set(MODELS)
    killed_and_started(server)
    assert pictures(server, graph) == first
    assert executed(server) == set()
    entries = sorted((server.home / "cache").glob("*/*.entry"))
    for entry in entries:
        data = bytearray(entry.read_bytes())
        data[len(data) // 2] ^= 1
        entry.write_bytes(data)
    killed_and_started(server)
    assert pictures(server, graph) == first
    assert executed(server) == set(MODELS)
    assert "the entry is removed and will be computed again" in (server.home / "server.log").read_text()
