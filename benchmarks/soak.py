"""A server under hostile and honest load at once: how long the honest wait, and whether its memory comes back.

    python -m benchmarks.soak                # ten minutes
    python -m benchmarks.soak --seconds 40   # the short form

One honest key makes small pictures, asks for them and looks at the queue. One hostile key asks for previews of slow and
huge pictures and for every list, stores deep settings and opens sockets it never reads; somebody without a key sends
packed bodies and half requests. Held to: honest p99 under 2 s, the front under 400 MB at its peak and, half a minute
after the end, within 20 % of what it was before.
"""

import argparse
import asyncio
import gzip
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

from tests.server.decoding.hostile_pictures import flat_png, many_scans
from tests.serving import CHECKOUT, Server

GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}
P99_S, PEAK_MB, GROWTH = 2.0, 400.0, 1.2
CALM_S = 35.0
Trouble = (aiohttp.ClientError, TimeoutError, ConnectionError)


class Load:
    """Everything that is sent, and how long the honest waited."""

    def __init__(self, url: str, port: int, keys: dict[str, str]) -> None:
        self.url, self.port, self.keys = url, port, keys
        self.waited: dict[str, list[float]] = defaultdict(list)
        self.refused: list[str] = []
        self.attacks: dict[str, int] = defaultdict(int)

    def session(self, owner: str = "") -> aiohttp.ClientSession:
        """A client with a key, or without one."""
        headers = {"x-api-key": self.keys[owner]} if owner else {}
        return aiohttp.ClientSession(self.url, headers=headers, timeout=aiohttp.ClientTimeout(60))

    async def honest(self, until: float) -> None:
        """Make a picture, look at it, look round; at a person's pace."""
        async with self.session("honest") as client:
            while time.monotonic() < until:
                GRAPH["1"]["inputs"]["color"] = random.randrange(1 << 24)  # type: ignore[index]
                queued = await self._timed(client, "submit", "POST", "/prompt", json={"prompt": GRAPH})
                await asyncio.sleep(0.3)
                entry = (await self._timed(client, "history", "GET", f"/history/{queued.get('prompt_id')}")) or {}
                for shown in next(iter(entry.values()), {}).get("outputs", {}).get("2", {}).get("images", []):
                    query = {"filename": shown["filename"], "type": shown["type"], "preview": "webp;80"}
                    await self._timed(client, "preview", "GET", "/view", params=query)
                await self._timed(client, "queue", "GET", "/queue")
                await asyncio.sleep(0.2)

    async def _timed(self, client: aiohttp.ClientSession, what: str, method: str, path: str, **options: Any) -> Any:
        began = time.monotonic()
        try:
            async with client.request(method, path, **options) as reply:
                data = await reply.read()
                if reply.status != 200:
                    self.refused.append(f"{what}: {reply.status} {data[:80]!r}")
        except Trouble as error:
            data = b""
            self.refused.append(f"{what}: {error!r}")
        self.waited[what].append(time.monotonic() - began)
        return json.loads(data) if data[:1] in (b"{", b"[") else {}

    async def hostile(self, name: str, attack: Callable[[], Awaitable[None]], until: float, pause_s: float) -> None:
        """One kind of attack, over and over."""
        while time.monotonic() < until:
            with suppress(*Trouble):
                await attack()
            self.attacks[name] += 1
            await asyncio.sleep(pause_s)

    async def previews(self) -> None:
        """Eight slow or huge pictures at once."""
        async with self.session("hostile") as client:
            names = ["slow.jpg", "huge.png"] * 4
            await asyncio.gather(
                *(self._get(client, f"/view?type=input&filename={name}&preview=webp") for name in names)
            )

    async def everything(self) -> None:
        """The longest lists there are, and settings of great depth."""
        async with self.session("hostile") as client:
            await client.post("/settings", data=b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}")
            await asyncio.gather(*(self._get(client, path) for path in ("/history", "/queue", "/object_info") * 4))

    async def jobs(self) -> None:
        """More than the queue should take."""
        async with self.session("hostile") as client:
            for _ in range(20):
                async with client.post("/prompt", json={"prompt": GRAPH}) as reply:
                    await reply.read()

    async def packed(self) -> None:
        """Packed bodies without a key."""
        body = gzip.compress(bytes(90 << 20))
        async with self.session() as client:
            headers = {"Content-Encoding": "gzip", "Content-Type": "application/x-www-form-urlencoded"}
            async with client.post("/login", data=body, headers=headers) as reply:
                await reply.read()

    async def halves(self) -> None:
        """Requests that never end, without a key."""
        ends = [await asyncio.open_connection("127.0.0.1", self.port) for _ in range(20)]
        for _, writer in ends:
            writer.write(b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n")
        await asyncio.sleep(20)
        for _, writer in ends:
            writer.close()

    async def deaf(self) -> None:
        """A socket that is never read."""
        async with self.session("hostile") as client, client.ws_connect("/ws"):
            await asyncio.sleep(20)

    @staticmethod
    async def _get(client: aiohttp.ClientSession, path: str) -> None:
        async with client.get(path) as reply:
            await reply.read()

    def all_of_it(self, until: float) -> list[Awaitable[None]]:
        """The honest and the hostile."""
        attacks = {
            self.previews: 0.5,
            self.everything: 1.0,
            self.jobs: 2.0,
            self.packed: 0.5,
            self.halves: 1.0,
            self.deaf: 1.0,
        }
        hostile = [self.hostile(attack.__name__, attack, until, pause) for attack, pause in attacks.items()]
        return [*hostile, *(self.honest(until) for _ in range(2))]


def made_key(home: Path, name: str) -> str:
    """A key of its own for each."""
    command = [
        sys.executable,
        "-m",
        "sigmagraph",
        "keys",
        "create",
        name,
        "--scopes",
        "read,submit",
        "--home",
        str(home),
    ]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return next(word for word in done.stdout.split() if len(word) > 20)


def resident_mb(pid: int) -> float:
    """What the process holds now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6


async def soak(server: Server, load: Load, seconds: float) -> dict[str, float]:
    """Run it; the front's memory before, at its peak and after."""
    assert server.process is not None
    pid, until = server.process.pid, time.monotonic() + seconds
    await asyncio.gather(*load.all_of_it(time.monotonic() + 3))  # what is loaded once is loaded
    await asyncio.sleep(CALM_S)
    load.waited.clear()
    load.refused.clear()
    found = {"before": resident_mb(pid), "peak": 0.0}
    until = time.monotonic() + seconds

    async def watch() -> None:
        while time.monotonic() < until:
            found["peak"] = max(found["peak"], resident_mb(pid))
            await asyncio.sleep(0.05)

    await asyncio.gather(watch(), *load.all_of_it(until))
    await asyncio.sleep(CALM_S)
    return found | {"after": resident_mb(pid)}


async def upload(load: Load) -> None:
    """The hostile key brings its pictures as anybody would."""
    async with load.session("hostile") as client:
        for name, data in (("slow.jpg", many_scans(4000, 2000)), ("huge.png", flat_png(11_000))):
            form = aiohttp.FormData()
            form.add_field("image", data, filename=name)
            async with client.post("/upload/image", data=form) as reply:
                assert reply.status == 200, await reply.text()


def report(load: Load, memory: dict[str, float]) -> bool:
    """Print the figures; whether all is within bounds."""
    print(f"{'honest':10} {'calls':>6} {'p50 s':>8} {'p99 s':>8} {'worst s':>8}")
    everything = sorted(second for seconds in load.waited.values() for second in seconds)
    for name, seconds in {**load.waited, "all": everything}.items():
        ordered = sorted(seconds)
        p50, p99 = (ordered[int(len(ordered) * part)] for part in (0.5, 0.99))
        print(f"{name:10} {len(ordered):6} {p50:8.3f} {p99:8.3f} {ordered[-1]:8.3f}")
    print(f"honest calls refused: {len(load.refused)}", *load.refused[:5], sep="\n  ")
    print("attacks:", dict(load.attacks))
    print("front, MB:", {name: round(value) for name, value in memory.items()})
    p99 = everything[int(len(everything) * 0.99)]
    return p99 < P99_S and memory["peak"] < PEAK_MB and memory["after"] < GROWTH * memory["before"]


def main() -> int:
    """Exit code 1 where a bound is broken."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--seconds", type=float, default=600.0)
    seconds = asked.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        server = Server(home)
        load = Load(server.url, server.port, {name: made_key(home, name) for name in ("honest", "hostile")})
        try:
            server.start("/health")

            async def run() -> dict[str, float]:
                async with load.session("honest") as client:
                    while (await client.get("/ready")).status != 200:
                        await asyncio.sleep(0.2)
                await upload(load)
                return await soak(server, load, seconds)

            return 0 if report(load, asyncio.run(run())) else 1
        finally:
            server.stop()


if __name__ == "__main__":
    sys.exit(main())
