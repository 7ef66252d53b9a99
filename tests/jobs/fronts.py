"""Two servers of one database as processes that are killed, and clients who ask whichever of them answers."""

import asyncio
import json
import random
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from sigmagraph.engine.graph.workflow import Workflow


@dataclass
class Fronts:
    """Two servers, of which one is killed and started again, over and over."""

    url: str
    home: Path
    more: tuple[str, ...] = ()
    ports: list[int] = field(default_factory=list)
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    kills: Counter[int] = field(default_factory=Counter)

    def begin(self) -> None:
        for number in range(2):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.ports.append(free.getsockname()[1])
            self.processes.append(self._started(number))

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def _started(self, number: int) -> "subprocess.Popen[bytes]":
        words = [sys.executable, "-m", "tests.jobs.shared_front", self.url, str(self.home), str(self.ports[number])]
        words += self.more
        with (self.home / f"front{number}.log").open("ab") as lines:
            return subprocess.Popen(words, stdout=lines, stderr=lines)

    async def kill_at_random(self, chance: random.Random, most: int) -> None:
        """While clients call; now and then both are down."""
        while self.kills.total() < most:
            await asyncio.sleep(chance.uniform(1.0, 3.0))
            await self.kill(chance.randrange(2), chance.uniform(0.0, 1.0))

    async def kill(self, number: int, down_s: float) -> None:
        """One of them, which is started again after so long."""
        self.processes[number].send_signal(signal.SIGKILL)
        await asyncio.to_thread(self.processes[number].wait)
        self.kills[number] += 1
        await asyncio.sleep(down_s)
        self.processes[number] = self._started(number)


@dataclass
class Client:
    """An owner who asks whichever server answers, and notes whatever was shown."""

    key: str
    fronts: Fronts
    session: aiohttp.ClientSession
    chance: random.Random
    shown: set[str] = field(default_factory=set)

    async def ask(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        """Until a server has an answer."""
        headers = {"Authorization": f"Bearer {self.key}"}
        while True:
            url = f"http://127.0.0.1:{self.chance.choice(self.fronts.ports)}{path}"
            with suppress(aiohttp.ClientError, TimeoutError, json.JSONDecodeError):
                timeout = aiohttp.ClientTimeout(20)
                async with self.session.request(method, url, headers=headers, timeout=timeout, **more) as answer:
                    body = json.loads(await answer.text() or "null")
                    if answer.status not in (429, 503):
                        return answer.status, body
            await asyncio.sleep(0.1)

    async def work(self, graphs: Mapping[str, Workflow]) -> None:
        """Each job, by its id, sent until a server says that it has it, then all awaited; lists are read in between."""
        for job_id, graph in graphs.items():
            status, said = await self.ask("POST", "/prompt", json={"prompt": graph.prompt(), "prompt_id": job_id})
            assert status == 200 or "already" in json.dumps(said), said
            await self.look()
        while True:
            await self.look()
            _, found = await self.ask("GET", "/jobs?limit=100")
            if sum(job["status"] == "completed" for job in found["jobs"]) == len(graphs):
                return
            assert all(job["status"] in ("pending", "in_progress", "completed") for job in found["jobs"]), found
            await asyncio.sleep(0.3)

    async def look(self) -> None:
        """What a client of ComfyUI sees."""
        _, queue = await self.ask("GET", "/queue")
        self.shown |= {entry[1] for entries in queue.values() for entry in entries}
        _, history = await self.ask("GET", "/history")
        self.shown |= set(history)
        _, found = await self.ask("GET", "/jobs?limit=100")
        self.shown |= {job["id"] for job in found["jobs"]}
