"""A whole server in the test's process: real job service on SQLite, stub nodes on a thread, aiohttp's test client."""

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from aiohttp import ClientResponse, ClientWebSocketResponse, WSMsgType
from aiohttp.test_utils import TestClient, TestServer

from sigmagraph.engine.compose.owners import folders_of
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.jobs.service import JobService
from sigmagraph.engine.jobs.settings import JobSettings, StoreSettings
from sigmagraph.engine.jobs.workers.inprocess import InProcessWorker
from sigmagraph.engine.server.access.keys import KnownKeys, StoredKeys
from sigmagraph.engine.server.app import ServerParts, make_app
from sigmagraph.engine.server.settings import Settings
from tests.server.known_keys import NoKeys
from tests.server.stubs import setup

PATIENCE_S = 20.0


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run coroutine tests, each on its own loop and within a time no test needs."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    given = {name: pyfuncitem.funcargs[name] for name in names}
    asyncio.run(asyncio.wait_for(pyfuncitem.obj(**given), 2 * PATIENCE_S))
    return True


@dataclass
class Api:
    """A running server and its client."""

    client: TestClient[Any, Any]
    jobs: JobService
    root: Path

    async def get(self, path: str, **options: Any) -> ClientResponse:
        return await self.client.get(path, **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> ClientResponse:
        """POST JSON as `text/plain`, as the page does; `data=` sends something else."""
        if "data" not in options:
            options["data"] = b"" if body is None else json.dumps(body).encode()
        return await self.client.post(path, **options)

    async def json(self, path: str, **options: Any) -> Any:
        async with await self.get(path, **options) as response:
            assert response.status == 200, await response.text()
            assert response.headers["Content-Type"] == "application/json; charset=utf-8"
            return await response.json()

    async def queue(self, prompt: Any, **more: Any) -> str:
        """Submit a prompt that is accepted."""
        headers = more.pop("headers", None)
        async with await self.post("/prompt", {"prompt": prompt, **more}, headers=headers) as response:
            body = await response.json()
            assert response.status == 200, body
            return str(body["prompt_id"])

    async def ended(self, prompt_id: str) -> Any:
        """The history entry of a job, once it is there."""
        job = await self.jobs.wait(prompt_id, timeout_s=PATIENCE_S)
        assert job.state.is_end
        return (await self.json(f"/history/{prompt_id}")).get(prompt_id)

    async def running(self, prompt_id: str) -> None:
        """Wait until the job runs."""
        while str((await self.jobs.get(prompt_id)).state) != "running":
            await asyncio.sleep(0.01)

    @asynccontextmanager
    async def socket(self, sid: str | None = None, **options: Any) -> AsyncIterator["Socket"]:
        path = "/ws" if sid is None else f"/ws?clientId={sid}"
        async with self.client.ws_connect(path, **options) as ws:
            yield Socket(ws)


@dataclass
class Socket:
    """A client's end of a WebSocket."""

    ws: ClientWebSocketResponse

    async def next(self) -> Any:
        """The next message: parsed text, or the bytes of a binary one."""
        message = await self.ws.receive(PATIENCE_S)
        assert message.type in (WSMsgType.TEXT, WSMsgType.BINARY), message
        return json.loads(message.data) if message.type is WSMsgType.TEXT else message.data

    async def until(self, is_last: Callable[[Any], bool]) -> list[Any]:
        """Messages up to the first that fits, it included."""
        seen = []
        while True:
            seen.append(await self.next())
            if is_last(seen[-1]):
                return seen


def is_end(message: Any) -> bool:
    """The message that ends a prompt."""
    return isinstance(message, dict) and message["type"] == "executing" and message["data"]["node"] is None


Serving = Callable[..., AbstractAsyncContextManager[Api]]


@pytest.fixture
def serving(tmp_path: Path) -> Serving:
    """Starts servers on one home folder: `async with serving() as api`; options are settings.

    `keys` are accounts, or "stored" for those of the job service; `jobs` are settings of that. `packs` are the socket
    of packs' routes and what the worker tells of packs.
    """

    @asynccontextmanager
    async def serve(
        *, keys: KnownKeys | Literal["stored"] | None = None, warms_up: bool = False, **settings: Any
    ) -> AsyncIterator[Api]:
        for name in ("models/checkpoints", "models/embeddings", "input", "output", "temp", "user", "workflows"):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
        places = Folders(tmp_path / "models", tmp_path / "input", tmp_path / "output", tmp_path / "temp")
        places = replace(places, aliases=settings.pop("aliases", {}))
        folders = folders_of(places)
        store = StoreSettings(f"sqlite:///{tmp_path}/jobs.sqlite", survives_power_cut=False)
        more = settings.pop("jobs", {})
        socket, told = settings.pop("packs", (None, {}))
        made = setup(folders)
        worker = InProcessWorker(replace(made, counts=lambda: {**made.counts(), "packs": told}))
        jobs = JobService(JobSettings(store=store, **more), [worker], folders)
        frontend = settings.pop("frontend_root", None)
        known = Settings(**settings)
        known_keys = StoredKeys(jobs.accounts, is_open=known.no_keys) if keys == "stored" else keys or NoKeys()
        parts = ServerParts(jobs, folders, known_keys, known, tmp_path / "user", tmp_path / "workflows")
        parts.frontend, parts.warms_up, parts.pack_socket = frontend, warms_up, socket
        await jobs.start()
        try:
            async with TestClient(TestServer(make_app(parts))) as client:
                yield Api(client, jobs, tmp_path)
        finally:
            await jobs.cancel_all(queued=False)
            await jobs.stop(1.0)

    return serve
