"""Where the time of one trivial prompt goes, from the request to the end on the client's socket: a table of stages.

    python -m benchmarks.trivial_prompt [prompts]

Starts `sigmagraph serve` with a clock at the places below, sends prompts one after another (two nodes that do next to
nothing, never the same), and prints medians, of all and of the fastest quarter. All processes read one clock,
CLOCK_MONOTONIC. The two rows of "meanwhile" go on at once: the run begins while its row is written.
"""

import asyncio
import atexit
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.http import Client, chain
from tests.serving import Server

MARKS = "SIGMAGRAPH_MARKS"
STAGES = (
    ("sent", "handler", "client's request, aiohttp's reading and routing"),
    ("handler", "checked", "body to graph, graph checked against the nodes"),
    ("checked", "handed over", "request put together, slot taken, message to the worker"),
    ("handed over", "row: written", "meanwhile: row and first events, one commit, waits for the disk"),
    ("handed over", "finished", "meanwhile: worker's turn: message, plan, two nodes, messages back"),
    ("row: written", "answer made", "the loop wakes, submit returns"),
    ("answer made", "answered", "aiohttp's writing, client's reading"),
    ("finished", "end: begun", "the end follows its row into the writer's thread"),
    ("end: begun", "end: written", "end, events and outcome, one commit, waits for the disk"),
    ("end: written", "told", "the loop wakes; messages to the socket, 0.4 ms after the answer at the soonest"),
    ("told", "heard", "client's reading"),
    ("sent", "heard", "all of it"),
)


def serve() -> None:
    """`sigmagraph serve`, with a clock: each mark is noted with its time, and written to a file at the end."""
    from sigmagraph.engine.cli.app import main
    from sigmagraph.engine.jobs.broadcast import Broadcast
    from sigmagraph.engine.jobs.dispatch import Dispatcher
    from sigmagraph.engine.jobs.events import Ended, JobEvent
    from sigmagraph.engine.jobs.service import JobService
    from sigmagraph.engine.jobs.store.database import Database
    from sigmagraph.engine.server.comfy import prompt

    marks: list[tuple[str, float]] = []

    def mark(name: str) -> None:
        marks.append((name, time.perf_counter()))

    def around(owner: Any, name: str, before: str | None, after: str | None) -> None:
        """Marks at the call of a method or function, and at its return."""
        call: Callable[..., Any] = getattr(owner, name)

        def marked(*given: Any, **named: Any) -> Any:
            if before is not None:
                mark(before)
            result = call(*given, **named)
            if after is not None:
                mark(after)
            return result

        setattr(owner, name, marked)

    def committed(self: Database, engine: Any, batch: Any) -> None:
        mark("begun")
        commit(self, engine, batch)
        mark("written")

    def published(self: Broadcast, what: Any) -> None:
        publish(self, what)
        if isinstance(what, JobEvent) and isinstance(what.body, Ended):
            mark("told")

    commit, publish = Database._commit, Broadcast._tell
    Database._commit = committed  # type: ignore[method-assign]
    Broadcast._tell = published  # type: ignore[method-assign]
    around(prompt, "_submission", "handler", None)
    around(JobService, "_store_and_begin", "checked", None)
    around(Dispatcher, "begun", None, "handed over")
    around(Dispatcher, "has_finished", "finished", None)
    around(prompt, "shown_number", "answer made", None)
    atexit.register(lambda: Path(os.environ[MARKS]).write_text(json.dumps(marks)))
    sys.argv = ["sigmagraph", "serve", *sys.argv[2:]]
    main()


async def prompts(server: Server, count: int) -> list[dict[str, float]]:
    """When each was sent, answered, and heard to be over."""
    found = []
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.url}/ws?clientId=bench") as ws:
        client = Client(session, ws, server.url)
        for tag in range(count):
            seen = {"sent": time.perf_counter()}
            job = await client.submit(chain(2, tag))
            seen["answered"] = time.perf_counter()
            await client.until_over(job)
            seen["heard"] = time.perf_counter()
            found.append(seen)
            await asyncio.sleep(0.01)
    return found


def joined(seen: dict[str, float], marks: list[tuple[str, float]]) -> dict[str, float]:
    """The marks that belong to one prompt: the first of each kind, and of commits the row's and the end's.

    Where both are one commit, there is none of the end's.
    """
    for name, at in marks:
        if seen["sent"] <= at <= seen["heard"]:
            is_commit = name in ("begun", "written")
            where = f"{'end' if f'row: {name}' in seen else 'row'}: {name}" if is_commit else name
            seen.setdefault(where, at)
    return seen


def median(rows: list[dict[str, float]], begin: str, end: str) -> float:
    """Milliseconds between two marks."""
    return statistics.median((row[end] - row[begin]) * 1000 for row in rows if begin in row and end in row)


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), "--custom-nodes", str(Path(__file__).with_name("packs")))
        server.command = [sys.executable, "-m", "benchmarks.trivial_prompt", "serve"]
        server.start(**{MARKS: f"{folder}/marks"})
        found = asyncio.run(prompts(server, count))
        server.stop()
        marks = json.loads(Path(folder, "marks").read_text())
    rows = [joined(seen, marks) for seen in found][count // 10 :]
    quick = sorted(rows, key=lambda row: row["heard"] - row["sent"])[: len(rows) // 4]
    print(" all of them  fastest quarter")
    for begin, end, what in STAGES:
        shown = [median(chosen, begin, end) for chosen in (rows, quick)]
        print(f"{shown[0]:7.2f} ms {shown[1]:7.2f} ms   {begin:>12} to {end:<12}  {what}")


if __name__ == "__main__":
    serve() if sys.argv[1:2] == ["serve"] else main()
