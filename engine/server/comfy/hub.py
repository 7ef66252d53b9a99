"""Who is connected, and who gets what: the job layer's events fan out to sockets, each behind its own outbox.

An owner's events reach that owner's sockets only. Nothing here waits for a client.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from itertools import count

from aiohttp import web

from engine.errors import EngineError
from engine.jobs.events import Ended, JobEvent, Preview, Started, is_last
from engine.jobs.protocol import Jobs
from engine.server.comfy import wire
from engine.server.comfy.outbox import Outbox
from engine.server.context import JOBS

__all__ = ["HUB", "Client", "Hub", "run_hub"]

LOG = logging.getLogger("sigmagraph.comfy")


@dataclass(eq=False)
class Client:
    """One connected socket."""

    owner: str
    sid: str
    takes_metadata: bool = False
    reads_logs: bool = False
    takes_bare_previews: bool = False
    outbox: Outbox = field(default_factory=Outbox)

    def send(self, sent: wire.Sent) -> None:
        """Queue a message in the form this client reads."""
        if isinstance(sent, wire.Message):
            self.outbox.put(sent.text, sent.replaces)
        elif sent.is_result or self.takes_metadata or self.takes_bare_previews:
            key = None if sent.is_result else f"preview {sent.meta['prompt_id']}"
            self.outbox.put(sent.frame(takes_metadata=self.takes_metadata), key)


class Hub:
    """Connected clients by owner and id, and the jobs that are being told about."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self._clients: dict[tuple[str, str], Client] = {}
        self._narrators: dict[str, wire.Narrator] = {}
        self._client_ids: dict[str, str | None] = {}
        self._incoming: asyncio.Queue[JobEvent | Preview] = asyncio.Queue()

    def __len__(self) -> int:
        return len(self._clients)

    # -- clients -------------------------------------------------------------------------------------------------

    async def join(self, client: Client) -> None:
        """Register a socket and greet it; it takes the place of an older one with the same id."""
        self._clients[client.owner, client.sid] = client
        client.send(wire.status((await self.jobs.counts(client.owner)).remaining, client.sid))
        for narrator in self._narrators.values():
            node_id = narrator.progress.running
            if (narrator.owner, narrator.client_id) == (client.owner, client.sid) and node_id is not None:
                client.send(wire.Message("executing", {"node": node_id}))

    def leave(self, client: Client) -> None:
        """Forget a socket, unless a newer one has taken its id."""
        client.outbox.close()
        if self._clients.get((client.owner, client.sid)) is client:
            del self._clients[client.owner, client.sid]

    def follow_logs(self, owner: str, sid: str, is_on: bool) -> None:
        """Send this client new log lines, or no more."""
        client = self._clients.get((owner, sid))
        if client is not None:
            client.reads_logs = is_on

    def logged(self, entry: dict[str, str]) -> None:
        """A new log line."""
        for client in self._clients.values():
            if client.reads_logs:
                client.send(wire.Message("logs", {"entries": [entry], "size": None}))

    def expect(self, job_id: str, client_id: str | None) -> None:
        """A job is about to be submitted for this client."""
        self._client_ids[job_id] = client_id

    def forget(self, job_id: str) -> None:
        """The job was refused."""
        self._client_ids.pop(job_id, None)

    # -- events --------------------------------------------------------------------------------------------------

    def put(self, event: JobEvent | Preview) -> None:
        """Take what happened; called by the job layer."""
        self._incoming.put_nowait(event)

    async def pump(self) -> None:
        """Tell clients what happens, for as long as the server runs."""
        for turn in count():
            event = await self._incoming.get()
            try:
                await self._tell(event)
            except Exception:  # one event that cannot be told must not silence every page for good
                LOG.exception("an event was not told", extra={"job": event.job_id})
            if turn % 16 == 0:  # a full queue must not keep the writers from writing
                await asyncio.sleep(0)

    async def _tell(self, event: JobEvent | Preview) -> None:
        if isinstance(event, Preview):
            self._preview(event)
        else:
            await self._event(event)

    def _preview(self, preview: Preview) -> None:
        """A picture overtakes the events that wait for their commit: a result is kept until its node has begun."""
        narrator = self._narrators.get(preview.job_id)
        if narrator is None:
            return
        if preview.node_id in narrator.progress.nodes:
            self._deliver(narrator, narrator.show(preview))
        elif preview.meta.get("is_result"):
            narrator.early.append(preview)

    async def _event(self, event: JobEvent) -> None:
        is_start = isinstance(event.body, Started)
        narrator = self._narrators.get(event.job_id)
        if narrator is None and (is_start or not is_last(event)):
            client_id = await self._client_id(event.job_id)
            narrator = self._narrators[event.job_id] = wire.Narrator(event.job_id, event.owner, client_id)
        if wire.changes_count(event):
            await self._status(event.owner)
        if narrator is not None:
            self._deliver(narrator, narrator.tell(event))
            early, narrator.early = narrator.early, []
            for preview in early:
                self._preview(preview)
            if isinstance(event.body, Ended):
                self._deliver(narrator, [wire.executing(event.job_id, None)] if narrator.has_begun else [])
        if is_last(event):
            self._narrators.pop(event.job_id, None)
            self._client_ids.pop(event.job_id, None)

    async def _status(self, owner: str) -> None:
        clients = self._of(owner)
        if not clients:
            return
        message = wire.status((await self.jobs.counts(owner)).remaining)
        for client in clients:
            client.send(message)

    def _deliver(self, narrator: wire.Narrator, messages: Iterable[wire.Sent]) -> None:
        client = self._clients.get((narrator.owner, narrator.client_id or ""))
        for sent in messages:
            if narrator.client_id:
                if client is not None:
                    client.send(sent)
            elif sent.to == "client_or_all":
                for each in self._of(narrator.owner):
                    each.send(sent)

    def _of(self, owner: str) -> list[Client]:
        return [client for client in self._clients.values() if client.owner == owner]

    async def _client_id(self, job_id: str) -> str | None:
        """The client a job was submitted for; after a restart the job itself tells."""
        if job_id not in self._client_ids:
            try:
                job = await self.jobs.get(job_id)
            except EngineError:  # forgotten meanwhile
                return None
            self._client_ids[job_id] = str(job.meta.get("client_id") or "") or None
        return self._client_ids[job_id]


HUB: web.AppKey[Hub] = web.AppKey("hub", Hub)


async def run_hub(app: web.Application) -> AsyncIterator[None]:
    """The hub's life inside the application."""
    hub = app[HUB]
    unlisten: Callable[[], None] = app[JOBS].listen(hub.put)
    task = asyncio.create_task(hub.pump())
    yield
    unlisten()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
