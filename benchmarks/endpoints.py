"""Published workflows with a stub graph: requests per second and latencies of v1 and v2, and v1 over the bare graph.

    python -m benchmarks.endpoints [--calls 200] [--poll-every 1] [--rounds 5]

Server, worker (a thread of it) and clients share one process and its event loop, so latencies are upper bounds and
rates lower ones. Pollers have a process of their own: what they cost the server is measured, not what they cost.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.inline import execute
from sigmagraph.engine.graph.plan import plan
from sigmagraph.engine.graph.validate import validate
from sigmagraph.engine.server.context import FOLDERS
from sigmagraph.engine.server.endpoints.endpoint import Endpoint
from sigmagraph.engine.server.endpoints.values import read_values
from tests.server.endpoints.conftest import LARGE, SMALL, Served, serving
from tests.server.endpoints.stub import NODES

Call = Callable[[int], Awaitable[None]]
V2 = LARGE.replace("/v1/", "/v2/")
POLLERS = 256


async def rates(name: str, call: Call, calls: int, counts: Sequence[int] = (1, 8, 64)) -> float:
    """One line per number of clients; the last rate."""
    rate = 0.0
    for clients in counts:
        seconds: list[float] = []
        waiting = iter(range(calls))

        async def client(rest: "list[float]", numbers: "object" = waiting) -> None:
            for number in numbers:  # type: ignore[attr-defined]  # one iterator, shared
                begun = time.perf_counter()
                await call(number)
                rest.append(time.perf_counter() - begun)

        begun, worked = time.perf_counter(), time.process_time()
        await asyncio.gather(*(client(seconds) for _ in range(clients)))
        total, busy_s = time.perf_counter() - begun, (time.process_time() - worked) / calls
        rate = calls / total
        cost = f"{busy_s * 1e3:6.2f} ms processor a call"
        print(f"{name:>4} {clients:>3} clients {rate:8.1f}/s  {quantiles(seconds)}  {cost}")
    return rate


@asynccontextmanager
async def polling(served: Served, every_s: float, headers: dict[str, str]) -> AsyncIterator[list[float]]:
    """`POLLERS` clients in a process of their own that each ask again and again for an ended request's status.

    Yields their answering times, which are there once the block is over.
    """
    async with served.client.post(V2, json={**SMALL, "seed": 5_000_000}, headers=headers) as response:
        request_id = (await response.json())["request_id"]
    await served.jobs.wait(request_id)
    url = str(served.client.make_url(f"/v2/requests/{request_id}/status"))
    command = (sys.executable, "-m", "benchmarks.pollers", url, str(POLLERS), str(every_s), json.dumps(headers))
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    seconds: list[float] = []
    try:
        await process.stdout.readline()  # all are under way
        yield seconds
    finally:
        process.stdin.close()
        seconds += json.loads(await process.stdout.read())
        await process.wait()


async def beside_pollers(served: Served, call: Call, calls: int, every_s: float, rounds: int, headers: Any) -> None:
    """The rate of v2 with and without pollers, by turns, because a machine that others use is never the same twice."""
    kept, polls = [], []
    for at in range(rounds):
        before = await rates("v2", call, calls, (64,))
        async with polling(served, every_s, headers) as seconds:
            beside = await rates("v2", call, calls, (64,))
        after = await rates("v2", call, calls, (64,))
        kept.append(beside / statistics.mean((before, after)))
        polls += seconds
        print(f"  round {at + 1}: {POLLERS} pollers leave {kept[-1]:.0%} ({len(seconds)} polls)")
    each = ", ".join(f"{part:.0%}" for part in sorted(kept))
    print(f"  {POLLERS} pollers, one question per {every_s:g} s each, leave {statistics.median(kept):.0%} ({each})")
    print(f"  polls {quantiles(polls)}")


def quantiles(seconds: list[float]) -> str:
    """Median and 99th percentile in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100)
    return f"p50 {statistics.median(seconds) * 1e3:7.2f} ms  p99 {cuts[98] * 1e3:7.2f} ms"


def bare(endpoint: Endpoint, served: Served, calls: int) -> tuple[float, float]:
    """The same graph in process, without jobs and HTTP; the median in seconds, and processor seconds of one call."""
    services, cache, seconds = served.client.app[FOLDERS]("local"), MemoryCache(1 << 20), []  # type: ignore[index]
    worked = time.process_time()
    for number in range(calls):
        begun = time.perf_counter()
        values = read_values(endpoint, {**SMALL, "seed": 1_000_000 + number}, {})
        graph = validate(endpoint.bind(values.all, f"bare-{number}"), NODES, services)
        execute(plan(graph, services), services, cache, lambda event: None).or_raise()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds), (time.process_time() - worked) / calls


async def main(calls: int, every_s: float, rounds: int) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        async with serving(Path(folder), local_per_minute=1e9) as served:
            headers: dict[str, str] = {}
            seeds = itertools.count(10_000)

            async def v1(number: int) -> None:
                async with served.client.post(LARGE, json={**SMALL, "seed": number}) as response:
                    assert response.status == 200
                    await response.read()

            async def v2(number: int) -> None:
                seed = next(seeds)
                async with served.client.post(V2, json={**SMALL, "seed": seed}, headers=headers) as response:
                    body = await response.json()
                await served.jobs.wait(body["request_id"])
                path = f"/v2/requests/{body['request_id']}"
                async with served.client.get(path, headers=headers) as response:
                    assert (await response.json())["status"] == "COMPLETED"

            await v1(-1 + 2**32)
            alone: list[float] = []
            worked = time.process_time()
            for number in range(calls):
                begun = time.perf_counter()
                await v1(2_000_000 + number)
                alone.append(time.perf_counter() - begun)
            busy_s = (time.process_time() - worked) / calls
            graph_s, graph_busy_s = await asyncio.to_thread(
                bare, next(iter(served.published.endpoints.values())), served, calls
            )
            over = (statistics.median(alone) - graph_s) * 1e3
            print(f"bare graph p50 {graph_s * 1e3:.2f} ms; v1 adds {over:.2f} ms at p50 (budget 10 ms)")
            print(f"processor time a call: graph {graph_busy_s * 1e3:.2f} ms, v1 with its client {busy_s * 1e3:.2f} ms")
            await rates("v1", v1, calls)
            await rates("v2", v2, calls)
            await beside_pollers(served, v2, calls, every_s, rounds, {})
            headers = await served.key(credits=1e6, requests_per_minute=1e9)
            print("with keys:")
            await beside_pollers(served, v2, calls, every_s, rounds, headers)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--poll-every", type=float, default=1.0, help="seconds between two questions of a poller")
    parser.add_argument("--rounds", type=int, default=5, help="with and without pollers")
    given = parser.parse_args()
    asyncio.run(main(given.calls, given.poll_every, given.rounds))
