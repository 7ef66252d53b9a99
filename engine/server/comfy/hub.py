"""Who is connected, and who gets what: the job layer's events fan out to sockets, each behind its own outbox.

An owner's events reach that owner's sockets only. Nothing here waits for a client.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count

from aiohttp import web

from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.jobs.events import JobEvent, Preview, Started, is_last
from sigmagraph.engine.jobs.protocol import Jobs
from sigmagraph.engine.server.comfy import socket_messages
from sigmagraph.engine.server.comfy.missed_messages import NOTHING, Away, Mark, messages_of, retold
from sigmagraph.engine.server.comfy.outbox import Outbox, UnsentBudget
from sigmagraph.engine.server.context import JOBS

__all__ = ["HUB", "ConnectedClient", "Hub", "run_hub"]

LOG = logging.getLogger("sigmagraph.comfy")


@dataclass(eq=False)
class ConnectedClient:
    """One connected socket."""

    owner: str
    sid: str
    takes_metadata: bool = False
    takes_bare_previews: bool = False
    is_numbered: bool = False
    budget: UnsentBudget = field(default_factory=UnsentBudget)
    told: dict[str, tuple[int, int]] = field(default_factory=dict)
    held: list[tuple[str, socket_messages.Sent, Mark]] | None = None

    def __post_init__(self) -> None:
        self.outbox = Outbox(self.budget, self.owner)

    def tell(self, job_id: str, sent: socket_messages.Sent, mark: Mark) -> None:
        """Queue a message of a job; one that is still being told what it missed gets it after that."""
        if self.held is not None:
            self.held.append((job_id, sent, mark))
            return
        self.told.setdefault(job_id, NOTHING)
        if not isinstance(sent, socket_messages.Message):
            self.send(sent)
            return
        place = f"{job_id}:{mark.number}.{mark.place}"
        text, replaces = (sent.numbered(place), None) if self.is_numbered else (sent.text, sent.replaces)
        self.outbox.put(text, replaces, partial(self._is_told, job_id, mark))

    def catch_up(self, missed: Mapping[str, tuple[int, int]]) -> None:
        """Tell what was held back, as far as it is news."""
        held, self.held = self.held or [], None
        for job_id, sent, mark in held:
            if mark.position > missed.get(job_id, NOTHING):
                self.tell(job_id, sent, mark)

    def _is_told(self, job_id: str, mark: Mark) -> None:
        """It is on its way; of a job that has ended nothing more can be missed."""
        self.told[job_id] = mark.position
        if mark.is_end:
            del self.told[job_id]

    def send(self, sent: socket_messages.Sent) -> None:
        """Queue a message in the form this client reads."""
        if isinstance(sent, socket_messages.Message):
            self.outbox.put(sent.text, sent.replaces)
        elif sent.is_result or self.takes_metadata or self.takes_bare_previews:
            key = None if sent.is_result else f"preview {sent.meta['prompt_id']}"
            self.outbox.put(sent.frame(takes_metadata=self.takes_metadata), key)


class Hub:
    """Connected clients by owner and id, and the jobs that are being told about."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.budget = UnsentBudget()
        self._clients: dict[tuple[str, str], ConnectedClient] = {}
        self._narrators: dict[str, socket_messages.Narrator] = {}
        self._client_ids: dict[str, str | None] = {}
        self.log_readers: set[ConnectedClient] = set()
        self._away = Away()
        self._incoming: asyncio.Queue[tuple[JobEvent | Preview, int]] = asyncio.Queue()

    def __len__(self) -> int:
        return len(self._clients)

    # -- clients -------------------------------------------------------------------------------------------------

    async def join(self, client: ConnectedClient, after: Mapping[str, tuple[int, int]] | None = None) -> None:
        """Register a socket and greet it; it takes the place of an older one with the same id.

        It hears first what it missed of its jobs: since it left, or `after` what it says it has heard.
        """
        older = self._clients.get((client.owner, client.sid))
        told = older.told if older is not None else self._away.back(client.owner, client.sid)
        client.held = []
        self._clients[client.owner, client.sid] = client
        client.send(socket_messages.status((await self.jobs.counts(client.owner)).remaining, client.sid))
        await self._retell(client, told | dict(after or {}))
        for narrator in self._narrators.values():
            if (narrator.owner, narrator.client_id) == (client.owner, client.sid):
                narrator.catch_up()
                node_id = narrator.progress.running
                if node_id is not None:
                    client.send(socket_messages.Message("executing", {"node": node_id}))

    async def _retell(self, client: ConnectedClient, heard: dict[str, tuple[int, int]]) -> None:
        """From the stored events, then what came meanwhile."""
        missed = [message async for message in retold(self.jobs, client.owner, client.sid, heard)]
        held, client.held = client.held, None
        for job_id, sent, mark in missed:
            heard[job_id] = mark.position
            client.tell(job_id, sent, mark)
        client.held = held
        client.catch_up(heard)

    def leave(self, client: ConnectedClient) -> None:
        """Forget a socket, unless a newer one has taken its id."""
        client.outbox.close()
        self.log_readers.discard(client)
        if self._clients.get((client.owner, client.sid)) is client:
            del self._clients[client.owner, client.sid]
            self._away.left(client.owner, client.sid, client.told)

    def follow_logs(self, owner: str, sid: str, is_on: bool) -> None:
        """Send this client new log lines, or no more."""
        client = self._clients.get((owner, sid))
        if client is not None:
            (self.log_readers.add if is_on else self.log_readers.discard)(client)

    def logged(self, entry: dict[str, str]) -> None:
        """A new log line."""
        message = socket_messages.Message("logs", {"entries": [entry], "size": None})
        for client in self.log_readers:
            client.send(message)

    def expect(self, job_id: str, client_id: str | None) -> None:
        """A job is about to be submitted for this client."""
        self._client_ids[job_id] = client_id

    def forget(self, job_id: str) -> None:
        """The job was refused."""
        self._client_ids.pop(job_id, None)

    async def deleted(self, owner: str, job_ids: Sequence[str] | None) -> None:
        """Every page of an owner hears which jobs are gone; None: all that had ended."""
        message = socket_messages.deleted((await self.jobs.counts(owner)).remaining, job_ids)
        for client in self._of(owner):
            client.send(message)

    # -- events --------------------------------------------------------------------------------------------------

    def put(self, event: JobEvent | Preview) -> None:
        """Take what happened, and how many jobs its owner has at that; called by the job layer."""
        self._incoming.put_nowait((event, self.jobs.told_open(event.owner)))

    async def pump(self) -> None:
        """Tell clients what happens, for as long as the server runs."""
        for turn in count():
            event, open_jobs = await self._incoming.get()
            try:
                await self._tell(event, open_jobs)
            except Exception:  # one event that cannot be told must not silence every page for good
                LOG.exception("an event was not told", extra={"job": event.job_id})
            if turn % 16 == 0:  # a full queue must not keep the writers from writing
                await asyncio.sleep(0)

    async def _tell(self, event: JobEvent | Preview, open_jobs: int) -> None:
        if isinstance(event, Preview):
            self._preview(event)
        else:
            await self._event(event, open_jobs)

    def _preview(self, preview: Preview) -> None:
        """A picture overtakes the events that wait for their commit: a result is kept until its node has begun."""
        narrator = self._narrators.get(preview.job_id)
        if narrator is None or not self._has_listener(narrator.owner):
            return
        narrator.catch_up()
        if preview.node_id in narrator.progress.nodes:
            for sent in narrator.show(preview):
                self._deliver(narrator, sent)
        elif preview.meta.get("is_result"):
            narrator.early.append(preview)

    async def _event(self, event: JobEvent, open_jobs: int) -> None:
        is_start = isinstance(event.body, Started)
        narrator = self._narrators.get(event.job_id)
        if narrator is None and (is_start or not is_last(event)):
            client_id = await self._client_id(event.job_id)
            narrator = self._narrators[event.job_id] = socket_messages.Narrator(event.job_id, event.owner, client_id)
        if socket_messages.changes_count(event):
            self._status(event.owner, open_jobs)
        if narrator is not None:
            self._narrate(narrator, event)
        if is_last(event):
            self._narrators.pop(event.job_id, None)
            self._client_ids.pop(event.job_id, None)

    def _narrate(self, narrator: socket_messages.Narrator, event: JobEvent) -> None:
        """Tell who is there; where nobody is, somebody may come yet."""
        if not self._has_listener(narrator.owner):
            narrator.pass_over(event)
            if narrator.client_id:
                self._away.missed(narrator.owner, narrator.client_id, narrator.job_id)
            return
        narrator.catch_up()
        for sent, mark in messages_of(narrator, event):
            self._deliver(narrator, sent, mark)
        early, narrator.early = narrator.early, []
        for preview in early:
            self._preview(preview)

    def _status(self, owner: str, open_jobs: int) -> None:
        message = socket_messages.status(open_jobs)
        for client in self._of(owner):
            client.send(message)

    def _deliver(
        self, narrator: socket_messages.Narrator, sent: socket_messages.Sent, mark: Mark | None = None
    ) -> None:
        if not narrator.client_id:
            for listener in self._of(narrator.owner) if sent.to == "client_or_all" else ():
                listener.send(sent)
            return
        client = self._clients.get((narrator.owner, narrator.client_id))
        if client is None:
            self._away.missed(narrator.owner, narrator.client_id, narrator.job_id)
        elif mark is None:
            client.send(sent)
        else:
            client.tell(narrator.job_id, sent, mark)

    def _has_listener(self, owner: str) -> bool:
        return any(client.owner == owner for client in self._clients.values())

    def _of(self, owner: str) -> list[ConnectedClient]:
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
