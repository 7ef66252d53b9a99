"""A trivial prompt, the same prompt again, chains of nodes, and start to first picture, beside ComfyUI by turns.

    python -m benchmarks.beside_comfyui FOLDER PYTHON [--old CHECKOUT] [--rounds 6] [--starts 3]

FOLDER is a checkout of ComfyUI and PYTHON an interpreter that has what it needs; CHECKOUT is a work tree of another
commit of ours with a `.venv` of its own. Everyone is asked a block of prompts in turn, over HTTP and its own socket,
by one client; a busy machine is then as busy for all. The node pack of this folder is copied to ComfyUI's custom_nodes.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.http import Client, chain
from tests.serving import free_port

HERE = Path(__file__).resolve().parents[1]
PACK = HERE / "benchmarks/packs/trivial.py"
BLOCK = 20
LONG, LONG_BLOCK = 100, 1
"""A chain of so many nodes or more is asked for less often: ComfyUI takes seconds for one."""
PATIENCE_S = 120.0


class Peer:
    """A server to compare: how it is started, in a folder of its own."""

    def __init__(self, name: str, command: list[str | Path], folder: Path) -> None:
        self.name, self.port, self._folder = name, free_port(), folder
        self._command = [str(part) for part in command]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; nobody waits until it answers."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [*self._command, "--port", str(self.port)]
        self._process = subprocess.Popen(
            command, cwd=self._folder, stdout=self._log, stderr=self._log, env=environment, start_new_session=True
        )

    def ask(self, path: str, body: Any = None) -> Any:
        """Ask until it answers."""
        data = json.dumps(body).encode() if body is not None else None
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            asked = urllib.request.Request(self.url + path, data)
            with contextlib.suppress(OSError), urllib.request.urlopen(asked) as response:
                return json.load(response)
            assert self._process is not None
            if self._process.poll() is not None:
                break
            time.sleep(0.01)
        self._log.seek(0)
        raise SystemExit(f"{self.name} does not answer:\n{self._log.read().decode()[-2000:]}")

    def stop(self) -> None:
        """End it and what it started."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(30)
            self._process = None


def ours(name: str, checkout: Path, home: Path, *more: str) -> Peer:
    """A server of ours from some checkout."""
    (home / "models").mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [checkout / ".venv/bin/python", "-P", "-c"]
    command += ["from sigmagraph.engine.cli.app import main; main()", "serve", "--home", home]
    return Peer(name, [*command, *more], checkout)


@contextlib.contextmanager
def peers(given: argparse.Namespace) -> Iterator[list[Peer]]:
    """Everyone who takes part, not started."""
    pack = given.folder / "custom_nodes" / PACK.name
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(PACK, pack)
        database = f"sqlite:///{folder}/comfyui.sqlite"
        command = [given.python, "main.py", "--cpu", "--disable-api-nodes", "--database-url", database]
        found = [Peer("ComfyUI", command, given.folder)]
        checkouts = {"other": given.old, "here": HERE} if given.old is not None else {"here": HERE}
        for name, checkout in checkouts.items():
            found.append(ours(name, checkout, Path(folder, name), "--custom-nodes", str(PACK.parent)))
        try:
            yield found
        finally:
            for peer in found:
                peer.stop()
            pack.unlink()


@contextlib.asynccontextmanager
async def connected(peer: Peer) -> AsyncIterator[Client]:
    """A client of a server, with its socket."""
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{peer.url}/ws?clientId=bench") as ws:
        yield Client(session, ws, peer.url)


async def block(peer: Peer, length: int, tag: Callable[[], int], count: int) -> list[float]:
    """Milliseconds of some prompts, one after another. The socket is new: nobody reads it while others have a turn."""
    async with connected(peer) as client:
        return [await client.round_trip(chain(length, tag())) for _ in range(count)]


async def prompts(found: list[Peer], rounds: int) -> None:
    """Blocks of prompts by turns, each in the order that the round before did not have."""
    numbers = itertools.count()
    kinds: dict[str, tuple[int, Callable[[], int]]] = {
        "a trivial prompt": (2, lambda: next(numbers)),
        "the same prompt again": (2, lambda: -1),
        "12 nodes": (12, lambda: next(numbers)),
        "the same 12 nodes again": (12, lambda: -1),
        "a chain of 100": (100, lambda: next(numbers)),
        "a chain of 900": (900, lambda: next(numbers)),
    }
    for what, (length, tag) in kinds.items():
        count = BLOCK if length < LONG else LONG_BLOCK
        times: dict[str, list[float]] = {peer.name: [] for peer in found}
        for turn in range(rounds + 1):  # the first does not count
            for peer in found if turn % 2 else reversed(found):
                taken = await block(peer, length, tag, count)
                times[peer.name] += taken if turn else []
        report(what, times, "ms")


def first_picture(peer: Peer) -> float:
    """Seconds from the start of the process to a picture that can be fetched."""
    begun = time.perf_counter()
    peer.start()
    size = {"width": 64, "height": 64, "batch_size": 1, "color": 0}
    save = {"images": ["1", 0], "filename_prefix": "first"}
    graph = {"1": {"class_type": "EmptyImage", "inputs": size}, "2": {"class_type": "SaveImage", "inputs": save}}
    prompt_id = peer.ask("/prompt", {"prompt": graph})["prompt_id"]
    while not (record := peer.ask(f"/history/{prompt_id}").get(prompt_id)):
        time.sleep(0.005)
    image = record["outputs"]["2"]["images"][0]
    with urllib.request.urlopen(f"{peer.url}/view?filename={image['filename']}&type=output&subfolder=") as response:
        assert response.read()[:4] == b"\x89PNG"
    return time.perf_counter() - begun


def starts(found: list[Peer], rounds: int) -> None:
    """Starts by turns, after one of each that is not counted: files are then in the page cache for everybody."""
    times: dict[str, list[float]] = {peer.name: [] for peer in found}
    for turn in range(rounds + 1):
        for peer in found if turn % 2 else reversed(found):
            taken = first_picture(peer)
            peer.stop()
            times[peer.name] += [taken] if turn else []
    report("start to first picture", times, "s ")


def report(what: str, times: dict[str, list[float]], unit: str) -> None:
    """One line for each: median, 90th percentile, and the median as a multiple of ComfyUI's."""
    peer = statistics.median(times["ComfyUI"])
    for name, taken in times.items():
        middle, late = statistics.median(taken), sorted(taken)[int(len(taken) * 0.9)]
        print(
            f"{what:>24} {name:>8}  p50 {middle:7.2f} {unit}  p90 {late:7.2f} {unit}  {middle / peer:5.2f}", flush=True
        )


def main() -> None:
    """Prompts, then starts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a checkout of ComfyUI")
    parser.add_argument("python", type=Path, help="an interpreter with what ComfyUI needs")
    parser.add_argument("--old", type=Path, help="a work tree of another commit of ours")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--starts", type=int, default=3)
    given = parser.parse_args()
    with peers(given) as found:
        if given.rounds:
            for peer in found:
                peer.start()
                peer.ask("/object_info")
            asyncio.run(prompts(found, given.rounds))
            for peer in found:
                peer.stop()
        if given.starts:
            starts(found, given.starts)
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
