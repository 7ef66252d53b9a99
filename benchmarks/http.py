"""What HTTP costs: prompts trivial and cached, submissions per second, event latency, bytes, start, memory, readers.

    python -m benchmarks.http [jobs]

Starts `sigmagraph serve` in a folder of its own; the worker is a process, as in service. Prints medians.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from tests.serving import Server


def chain(length: int, tag: int) -> dict[str, Any]:
    """`length` nodes that do next to nothing, the last one an output."""
    nodes: dict[str, Any] = {"0": {"class_type": "PassText", "inputs": {"value": f"text {tag}"}}}
    for i in range(1, length - 1):
        nodes[str(i)] = {"class_type": "PassText", "inputs": {"value": [str(i - 1), 0]}}
    nodes["end"] = {"class_type": "ShowText", "inputs": {"value": [str(length - 2), 0]}}
    return nodes


class Client:
    """One connected client."""

    def __init__(self, session: aiohttp.ClientSession, ws: aiohttp.ClientWebSocketResponse, url: str) -> None:
        self.session, self.ws, self.url, self.received = session, ws, url, 0

    async def submit(self, graph: dict[str, Any]) -> str:
        """Queue a prompt."""
        body = {"prompt": graph, "client_id": "bench"}
        async with self.session.post(f"{self.url}/prompt", json=body) as response:
            answer = await response.json()
            if response.status != 200:
                raise SystemExit(json.dumps(answer))
            return str(answer["prompt_id"])

    async def until_over(self, prompt_id: str) -> None:
        """Read messages to the end of a prompt."""
        async for message in self.ws:
            self.received += len(message.data)
            if message.type is aiohttp.WSMsgType.TEXT:
                body = json.loads(message.data)
                is_end = body["type"] == "executing" and body["data"]["node"] is None
                if is_end and body["data"]["prompt_id"] == prompt_id:
                    return

    async def round_trip(self, graph: dict[str, Any]) -> float:
        """Milliseconds from the request to the end as the socket tells it."""
        begun = time.perf_counter()
        await self.until_over(await self.submit(graph))
        return (time.perf_counter() - begun) * 1000


async def median(rounds: int, measure: Callable[[int], Awaitable[float]]) -> str:
    """Median and 90th percentile of some rounds."""
    times = sorted([await measure(i) for i in range(rounds)])
    return f"p50 {statistics.median(times):8.2f} ms   p90 {times[int(rounds * 0.9)]:8.2f} ms"


async def latency(client: Client) -> str:
    """Milliseconds from a node's event to its arrival as a server-sent event, stored meanwhile; over 30 small jobs."""
    times = []
    for tag in range(30):
        prompt_id = await client.submit(chain(12, 5000 + tag))
        async with client.session.get(f"{client.url}/jobs/{prompt_id}/events") as response:
            async for line in response.content:
                if line.startswith(b"data: ") and (event := json.loads(line[6:]))["kind"].startswith("Node"):
                    times.append((time.time() - event["at"]) * 1000)
        await client.until_over(prompt_id)
    times.sort()
    return f"p50 {statistics.median(times):8.2f} ms   p90 {times[int(len(times) * 0.9)]:8.2f} ms"


async def throughput(client: Client, total: int, workers: int) -> float:
    """Submissions per second by several clients at once."""
    todo = iter(range(total))

    async def submit() -> None:
        for i in todo:
            await client.submit(chain(2, 10_000 + i))

    begun = time.perf_counter()
    await asyncio.gather(*(submit() for _ in range(workers)))
    return total / (time.perf_counter() - begun)


def resident(server: Server) -> float:
    """Resident memory of the front in MB."""
    assert server.process is not None
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6


async def idle(client: Client) -> None:
    """Wait until nothing is left."""
    while True:
        async with client.session.get(f"{client.url}/prompt") as response:
            if not (await response.json())["exec_info"]["queue_remaining"]:
                return
        await asyncio.sleep(0.2)


async def readers(server: Server, url: str, count: int) -> str:
    """Resident memory before and beside so many readers of a job's events, in MB."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        rest = {"class_type": "Rest", "inputs": {"value": "", "seconds": 25.0}}
        graph = {"0": rest, "end": {"class_type": "ShowText", "inputs": {"value": ["0", 0]}}}
        async with session.post(f"{url}/prompt", json={"prompt": graph}) as response:
            prompt_id = (await response.json())["prompt_id"]
        before = resident(server)
        reading = [await session.get(f"{url}/jobs/{prompt_id}/events") for _ in range(count)]
        await asyncio.gather(*(response.content.readline() for response in reading))  # each has heard something
        beside = resident(server)
        for response in reading:
            response.close()
        async with session.post(f"{url}/interrupt") as response:
            response.raise_for_status()
    return f"{before:12.1f} MB -> {beside:.1f} MB"


async def measure(server: Server, jobs: int) -> None:
    """Every figure, in turn."""
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.url}/ws?clientId=bench") as ws:
        client = Client(session, ws, server.url)
        print("trivial prompt to end      ", await median(50, lambda i: client.round_trip(chain(2, i))))
        print("cached 12 nodes to end     ", await median(50, lambda _: client.round_trip(chain(12, 0))))
        before = client.received
        large = await client.round_trip(chain(1000, 5))
        print(f"1,000 nodes cold           {large:12.1f} ms   {(client.received - before) / 1e6:.3f} MB on the socket")
        print("event: stored log to reader", await latency(client))
        reader = asyncio.create_task(client.until_over("never"))
        print(f"submissions, 8 clients     {await throughput(client, 200, 8):12.1f} per second")
        await idle(client)
        start = resident(server)
        for done in range(0, jobs, 500):
            await throughput(client, min(500, jobs - done), 8)
            await idle(client)
        print(f"memory after {jobs:6} jobs  {start:12.1f} MB -> {resident(server):.1f} MB")
        print("memory, 500 event readers  ", await readers(server, server.url, 500))
        reader.cancel()


def main() -> None:
    """Start, measure, stop."""
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        packs = str(Path(__file__).with_name("packs"))
        server = Server(Path(folder), "--custom-nodes", packs).start(path="/health")
        print(f"/health after              {(time.perf_counter() - begun) * 1000:12.1f} ms")
        server.until("/ready")
        asyncio.run(measure(server, jobs))
        server.stop()


if __name__ == "__main__":
    main()
