"""A whole HTTP server to kill, one of several: `python -m tests.jobs.shared_front DATABASE HOME PORT [CLUSTER]`.

Nodes are the stubs of this folder, and every job costs a credit. With the address of a Ray cluster it works there, with
the nodes of the tests of clusters.
"""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from aiohttp import web

from sigmagraph.engine.compose.owners import folders_of
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.jobs.job import Accepted, Submission
from sigmagraph.engine.jobs.service import JobService
from sigmagraph.engine.jobs.settings import JobSettings, StoreSettings
from sigmagraph.engine.server.access.keys import StoredKeys
from sigmagraph.engine.server.app import ServerParts, make_app
from sigmagraph.engine.server.settings import Settings
from sigmagraph.engine.units import CREDIT
from tests.jobs.cluster import ray_nodes
from tests.jobs.serving import child


class Priced(JobService):
    """As the service, but nothing is free."""

    async def submit(self, submission: Submission) -> Accepted:
        return await super().submit(replace(submission, cost=CREDIT))


async def serve(url: str, home: Path, port: int, cluster: str = "") -> None:
    places = Folders(*(home / name for name in ("models", "input", "output", "temp")))
    for name in ("models", "input", "output", "temp", "user", "workflows"):
        (home / name).mkdir(parents=True, exist_ok=True)
    folders = folders_of(places)
    settings = JobSettings(StoreSettings(url, has_peers=True), max_deaths=1000)
    fleet = ray_nodes.fleet(home, cluster, lease_s=5.0, front=str(port)) if cluster else None
    jobs = Priced(settings, [] if cluster else [child()], folders, fleet=fleet)
    await jobs.start()
    keys = StoredKeys(jobs.accounts, is_open=False)
    parts = ServerParts(jobs, folders, keys, Settings(), home / "user", home / "workflows")
    runner = web.AppRunner(make_app(parts))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]))
