"""A server of published workflows in this process: the real job service, an in-process worker, stub nodes."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from sigmagraph.engine.compose.owners import folders_of, output_dirs
from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.jobs.service import JobService
from sigmagraph.engine.jobs.settings import JobSettings, StoreSettings
from sigmagraph.engine.jobs.workers.inprocess import InProcessWorker
from sigmagraph.engine.jobs.workers.worker import Setup
from sigmagraph.engine.server.access.keys import StoredKeys
from sigmagraph.engine.server.app import ServerParts, make_app
from sigmagraph.engine.server.endpoints.context import Published
from sigmagraph.engine.server.endpoints.endpoint import Endpoint, load_endpoints
from sigmagraph.engine.server.settings import Settings
from tests.server.endpoints.stub import NODES, make_home

ROOT = Path(__file__).resolve().parents[3]
ENDPOINTS = ROOT / "workflows" / "endpoints"
LARGE = "/v1/stable-diffusion-3.5-large-txt2img"
TURBO = "/v1/stable-diffusion-3.5-turbo-txt2img"
BODY: Mapping[str, Any] = {"prompt": "a lighthouse", "sampler": "euler", "scheduler": "sgm_uniform"}
SMALL: Mapping[str, Any] = {**BODY, "width": 64, "height": 64}

Client = TestClient[web.Request, web.Application]


@dataclass
class Served:
    """A running server: its client, job service and clock."""

    client: Client
    jobs: JobService
    published: Published
    home: Path

    async def key(self, credits: float = 100.0, **wishes: Any) -> dict[str, str]:
        """The header of a new key."""
        secret, _ = await self.jobs.accounts.create("tester", credits=round(credits * 1e6), **wishes)
        self.keys.forget()
        return {"x-api-key": secret}

    keys: Any = None


class ForgetfulKeys(StoredKeys):
    """Keys whose memory a test can empty."""

    def forget(self) -> None:
        """Ask the store again."""
        self._asked_at = float("-inf")


def parts_of(
    home: Path, jobs: JobService, folders: Any, endpoints: Mapping[str, Endpoint], **rules: Any
) -> ServerParts:
    keys = ForgetfulKeys(jobs.accounts)
    settings = Settings(home=home, **rules.pop("settings", {}))
    parts = ServerParts(jobs, folders, keys, settings, home / "user", ROOT / "workflows", warms_up=False)
    rules = {"output_dirs": partial(output_dirs, home / "output"), **rules}
    parts.published = Published(endpoints, keys, b"secret", **rules)
    return parts


def service_of(home: Path, slots: int = 4, **more: Any) -> tuple[JobService, Callable[[str], Folders]]:
    folders = folders_of(Folders(home / "models", home / "input", home / "output", home / "temp"))
    worker = InProcessWorker(Setup(NODES, folders, MemoryCache(1 << 20)), slots=slots)
    store = StoreSettings(f"sqlite:///{home / 'user' / 'jobs.sqlite'}", survives_power_cut=False)
    return JobService(JobSettings(store=store, **more), workers=[worker], services=folders), folders


@asynccontextmanager
async def serving(
    home: Path, change: Callable[[Endpoint], Endpoint] | None = None, **rules: Any
) -> AsyncIterator[Served]:
    """A server in `home`; `change` alters each endpoint, `rules` are fields of `Published`, `jobs` or `settings`."""
    make_home(home)
    endpoints = load_endpoints(ENDPOINTS)
    if change is not None:
        endpoints = {slug: change(endpoint) for slug, endpoint in endpoints.items()}
    jobs, folders = service_of(home, **rules.pop("jobs", {}))
    await jobs.start()
    parts = parts_of(home, jobs, folders, endpoints, **rules)
    assert parts.published is not None
    try:
        async with TestClient(TestServer(make_app(parts))) as client:
            yield Served(client, jobs, parts.published, home, parts.keys)
    finally:
        await jobs.stop(0.0)


def changed(**fields: Any) -> Callable[[Endpoint], Endpoint]:
    """A function that gives an endpoint another manifest."""
    return lambda endpoint: replace(endpoint, manifest=endpoint.manifest.model_copy(update=fields))


def local(url: str) -> str:
    """An absolute URL of the server as the test client takes it."""
    return str(URL(url).relative())
