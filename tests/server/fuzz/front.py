"""A whole front as a process of its own, with a worker process of stub nodes, to throw requests at.

`python -m tests.server.fuzz.front HOME` prints one line of JSON: its port, its routes, its process id.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from aiohttp import web
from PIL import Image

from sigmagraph.engine.compose.owners import folders_of
from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.graph.node import Node, Range, node
from sigmagraph.engine.jobs.service import JobService
from sigmagraph.engine.jobs.settings import JobSettings, ProcessSettings, StoreSettings
from sigmagraph.engine.jobs.workers.process import ProcessWorker
from sigmagraph.engine.jobs.workers.worker import Setup
from sigmagraph.engine.server.app import make_app
from sigmagraph.engine.server.endpoints.endpoint import load_endpoints
from tests.server import stubs
from tests.server.endpoints import stub
from tests.server.endpoints.conftest import ENDPOINTS, parts_of

Side = Annotated[int, Range(1, 64)]


@node("EmptyImage", category="image", outputs=("IMAGE",))
def small_image(*, width: Side = 8, height: Side = 8, color: Annotated[int, Range(0, 0xFFFFFF)] = 0) -> Any:
    """One flat colour: what is fuzzed is the front, so nothing here may take long."""
    return Image.new("RGB", (width, height), color)


def nodes() -> Mapping[str, Node]:
    """The stubs of both suites, none of which waits or makes anything large."""
    quick = {name: made for name, made in stubs.NODES.items() if name not in ("Slow", "EmptyImage")}
    return {**stub.NODES, **quick, "EmptyImage": small_image}


def folders(home: Path) -> Folders:
    return Folders(home / "models", home / "input", home / "output", home / "temp")


def build(options: Mapping[str, Any]) -> Setup:
    """The worker's composition."""
    places = folders_of(folders(Path(options["home"])))
    return Setup(nodes(), places, MemoryCache(16 << 20), encode_preview=stubs.encode_preview)


async def serve(home: Path) -> None:
    stub.make_home(home)
    store = StoreSettings(f"sqlite:///{home / 'user' / 'jobs.sqlite'}", survives_power_cut=False)
    worker = ProcessWorker(ProcessSettings("tests.server.fuzz.front:build", {"home": str(home)}))
    places = folders_of(folders(home))
    jobs = JobService(JobSettings(store), [worker], places)
    await jobs.start()
    await jobs.ready()
    parts = parts_of(home, jobs, places, load_endpoints(ENDPOINTS), local_per_minute=1e9)
    app = make_app(parts)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    routes = sorted({(route.method, route.resource.canonical) for route in app.router.routes() if route.resource})
    sys.stdout.write(json.dumps({"port": port, "pid": os.getpid(), "routes": routes}) + "\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)  # until who started it is gone
    await jobs.stop(0.0)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
