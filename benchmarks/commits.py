"""Rates of v1, v2 and /prompt here and at another commit, by turns, so that a busy machine is as busy for both.

    python -m benchmarks.commits CHECKOUT [--rounds 5]

CHECKOUT is a work tree of the other commit with a `.venv` of its own (`git worktree add --detach CHECKOUT COMMIT`).
Server, worker (a thread of it) and clients share one process for each, as in benchmarks.endpoints; of two rates that
differ by the turn, the processor time of a call is the more trustworthy.
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
PHASES = [(kind, clients, calls) for kind in ("v1", "v2", "prompt") for clients, calls in ((1, 60), (64, 128))]
Call = Callable[[], Awaitable[None]]


def graph(seed: int) -> dict[str, Any]:
    """A text-to-image graph of the stub nodes that published workflows are tested with."""
    sampler = {"seed": seed, "steps": 2, "cfg": 4.0, "sampler_name": "euler", "scheduler": "sgm_uniform"}
    wires = {"model": ["1", 0], "positive": ["3", 0], "negative": ["3", 0], "latent_image": ["2", 0], "denoise": 1.0}
    nodes = {
        "1": ("CheckpointLoaderSimple", {"ckpt_name": "sd3.5_large.safetensors"}),
        "2": ("EmptySD3LatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        "3": ("CLIPTextEncode", {"text": f"a lighthouse {seed}", "clip": ["1", 1]}),
        "4": ("KSampler", sampler | wires),
        "5": ("VAEDecode", {"samples": ["4", 0], "vae": ["1", 2]}),
        "6": ("SaveImage", {"images": ["5", 0], "filename_prefix": "bench"}),
    }
    return {node_id: {"class_type": kind, "inputs": inputs} for node_id, (kind, inputs) in nodes.items()}


def calls_of(served: Any, large: str, small: dict[str, Any]) -> dict[str, Call]:
    """One call of each kind, from the request to the result as its client fetches it."""
    client, seeds = served.client, itertools.count(1)

    async def v1() -> None:
        async with client.post(large, json={**small, "seed": next(seeds)}) as response:
            assert response.status == 200, await response.text()
            await response.read()

    async def v2() -> None:
        async with client.post(large.replace("/v1/", "/v2/"), json={**small, "seed": next(seeds)}) as response:
            request_id = (await response.json())["request_id"]
        await served.jobs.wait(request_id)
        async with client.get(f"/v2/requests/{request_id}") as response:
            assert (await response.json())["status"] == "COMPLETED"

    async def prompt() -> None:
        async with client.post("/prompt", json={"prompt": graph(next(seeds))}) as response:
            prompt_id = (await response.json())["prompt_id"]
        await served.jobs.wait(prompt_id)
        async with client.get(f"/history/{prompt_id}") as response:
            assert (await response.json())[prompt_id]["status"]["status_str"] == "success"

    return {"v1": v1, "v2": v2, "prompt": prompt}


async def phase(call: Call, clients: int, calls: int) -> tuple[float, float]:
    """Calls a second, and processor milliseconds of one."""
    todo = iter(range(calls))

    async def client() -> None:
        for _ in todo:
            await call()

    begun, worked = time.perf_counter(), time.process_time()
    await asyncio.gather(*(client() for _ in range(clients)))
    return calls / (time.perf_counter() - begun), (time.process_time() - worked) / calls * 1e3


async def serve() -> None:
    """In one checkout: do the phases that stdin names, and answer with what they took."""
    from tests.server.endpoints.conftest import LARGE, SMALL, serving  # the checkout's, whichever it is

    with tempfile.TemporaryDirectory() as folder:
        async with serving(Path(folder), local_per_minute=1e9) as served:
            calls = calls_of(served, LARGE, dict(SMALL))
            for call in calls.values():
                await call()
            while line := await asyncio.to_thread(sys.stdin.readline):
                kind, clients, count = json.loads(line)
                print(json.dumps(await phase(calls[kind], clients, count)), flush=True)


class Checkout:
    """A server from one checkout, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        command = [folder / ".venv/bin/python", "-P", __file__, "--serve"]  # -P: a file here is called http
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment
        )

    def ask(self, *what: Any) -> list[float]:
        """Have a phase done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        found: list[float] = json.loads(self._process.stdout.readline())
        return found

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def compare(other: Path, rounds: int) -> None:
    """One line for each kind of call and number of clients."""
    both = [Checkout(other), Checkout(HERE)]
    try:
        for kind, clients, calls in PHASES:
            found: list[list[list[float]]] = [[], []]
            for turn in range(rounds):
                for at in (0, 1) if turn % 2 else (1, 0):
                    found[at].append(both[at].ask(kind, clients, calls))
            before, now = ([statistics.median(column) for column in zip(*runs, strict=True)] for runs in found)
            print(
                f"{kind:>6} {clients:>2} clients  {before[0]:6.1f} -> {now[0]:6.1f}/s ({now[0] / before[0]:.2f})"
                f"  {before[1]:5.2f} -> {now[1]:5.2f} ms processor ({now[1] / before[1]:.2f})",
                flush=True,
            )
    finally:
        for checkout in both:
            checkout.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path, nargs="?", help="a work tree of the other commit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve())
    else:
        compare(given.checkout.resolve(), given.rounds)
