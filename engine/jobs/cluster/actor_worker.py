"""`ActorWorker`: the front's side of an actor on another machine. Listens, speaks, and begins anew when it is lost."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from blake3 import blake3

from sigmagraph.engine.errors import EngineError, WriteFailed
from sigmagraph.engine.jobs.cluster.depot import Depot, SentFile
from sigmagraph.engine.jobs.cluster.link import ActorLink, LinkLost, StoreFull
from sigmagraph.engine.jobs.cluster.mailbox import INLINE_BYTES, joined
from sigmagraph.engine.jobs.cluster.settings import ActorSettings
from sigmagraph.engine.jobs.cluster.versions import differences, environment
from sigmagraph.engine.jobs.job import Failure, State
from sigmagraph.engine.jobs.protocol import WorkerStatus
from sigmagraph.engine.jobs.workers.conversation import Conversation
from sigmagraph.engine.jobs.workers.ipc import unpacked
from sigmagraph.engine.jobs.workers.worker import JobAttempt, Listener
from sigmagraph.engine.units import DAY_S

__all__ = ["ActorWorker"]

LOG = logging.getLogger("sigmagraph.jobs")
FIRST_WAIT_S = 0.2
STEADY_S = 60.0
AGAIN_S = 0.5
TRIES = 3
ASK_AGAIN_S = DAY_S / 2
"""After which it is asked again whether a machine has a file: it removes what is not asked for."""
MOST_HAD = 10_000
T = TypeVar("T")
Place = tuple[str, str, str]
"""Kind, subfolder and name of a file as its machine has it."""


class ActorWorker(Conversation):
    """One actor. `connect` gives a link to it, or to one that takes its place."""

    def __init__(self, settings: ActorSettings, connect: Callable[[], Awaitable[ActorLink]], depot: Depot) -> None:
        super().__init__(settings.name, settings.slots)
        self.settings, self._connect, self._depot = settings, connect, depot
        self._link: ActorLink | None = None
        self._lease = ""
        self._outgoing: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._owners: dict[str, str] = {}
        self._placed: dict[str, dict[Place, str]] = {}
        self._spoiled: dict[str, dict[Place, Failure]] = {}
        self._has: dict[tuple[str, str, str], tuple[str, float]] = {}
        self._models: frozenset[str] | None = None
        self._killed = asyncio.Event()
        self._life: asyncio.Task[None] | None = None
        self._pid: int | None = None
        self._starts = self._failed_starts = 0
        self._last_error = ""
        self.takes_no_more = False
        """Set by who is about to let it go: what it has goes on, nothing new begins."""

    @property
    def free_slots(self) -> int:
        return 0 if self.takes_no_more else super().free_slots

    @property
    def model_files(self) -> frozenset[str] | None:
        return self._models

    def start(self, listener: Listener) -> None:
        self._listener = listener
        self._life = asyncio.create_task(self._live(), name=f"worker {self.name}")

    def run(self, task: JobAttempt) -> None:
        self._owners[task.job_id] = task.owner
        super().run(task)

    def kill(self, reason: str) -> None:
        self._reason = reason
        self._killed.set()
        if self._link is not None:
            self._link.kill()

    async def stop(self) -> None:
        self._is_stopping, self._is_ready = True, False
        if self._life is not None:
            self._life.cancel()
            await asyncio.wait([self._life])
        if self._link is not None:
            await asyncio.to_thread(self._link.end)

    def status(self) -> WorkerStatus:
        pid = self._pid if self._is_ready else None
        return WorkerStatus(
            self.name, self._is_ready, self._starts, tuple(self._jobs), pid, self._stats, self._last_error
        )

    # -- one lease after another ---------------------------------------------------------------------------------

    async def _live(self) -> None:
        """Greet the actor, serve it until it is lost, begin anew."""
        wait_s = FIRST_WAIT_S
        clock = asyncio.get_running_loop().time
        while not self._is_stopping:
            began, self._reason, self._has_started, is_from_outside = clock(), "", False, False
            try:
                await self._one_lease()
            except LinkLost as lost:
                self._reason, is_from_outside = self._reason or lost.reason, lost.is_from_outside
                if lost.is_final and (link := self._link) is not None:
                    self._link = None
                    await asyncio.to_thread(link.end)  # or the cluster might start it again beside its successor
            except Exception as error:
                LOG.exception("worker %s said something that cannot be read", self.name)
                self._reason = f"said something that cannot be read: {type(error).__name__}: {error}"
            self._mourn(is_from_outside)
            wait_s = FIRST_WAIT_S if clock() - began > STEADY_S else min(self.settings.max_restart_wait_s, wait_s * 2)
            await asyncio.sleep(wait_s)

    async def _one_lease(self) -> None:
        self._killed.clear()
        if self._link is None:
            self._link = await self._connect()
        link, self._lease, self._outgoing = self._link, uuid.uuid4().hex, asyncio.Queue()
        try:
            async with asyncio.timeout(self.settings.start_deadline_s):
                ready = await self._greet(link)
        except TimeoutError:
            link.kill()
            raise LinkLost(f"was not ready within {self.settings.start_deadline_s:g} s") from None
        self._starts += 1
        self._has.clear()
        self._became_ready(self._listener, ready)
        doing = [asyncio.create_task(work) for work in (self._listen(link), self._speak(link), self._killed.wait())]
        try:
            done, _ = await asyncio.wait(doing, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            raise LinkLost("was killed")
        finally:
            self._is_ready = False
            for task in doing:
                task.cancel()
            await asyncio.gather(*doing, return_exceptions=True)

    async def _greet(self, link: ActorLink) -> Mapping[str, Any]:
        """Whether the machine can work for us, and what it says when it can."""
        about = await self._about(link)
        must, ought = differences(environment(), about["environment"])
        if must:
            raise LinkLost(f"cannot work for this server: {about['machine']} has {', '.join(must)}: install the same")
        if ought:
            LOG.warning("%s: %s has %s: results may differ in the last bits", self.name, about["machine"], ought)
        how = self.settings
        greeting = {"factory": how.factory, "options": dict(how.options), "slots": how.slots, "beat_s": how.beat_s}
        ready = await link.call("hello", self._lease, {**greeting, "name": how.name, "front": how.front})
        if ready["say"] == "failed":
            raise LinkLost(f"cannot start: {ready['reason']}")
        self._pid, models = about["pid"], ready["models"]
        self._models = frozenset(models) if models is not None else None
        machine = {name: about[name] for name in ("machine", "system", "memory")}
        return {**ready, "stats": {**ready["stats"], **machine}}

    async def _about(self, link: ActorLink) -> Mapping[str, Any]:
        """Its machine, once the cluster has started it."""
        while True:
            try:
                about: Mapping[str, Any] = await link.call("about")
            except LinkLost as lost:
                if not lost.is_temporary:
                    raise
                await asyncio.sleep(AGAIN_S)
            else:
                return about

    def _mourn(self, is_from_outside: bool) -> None:
        """Tell who waits for it."""
        jobs, self._last_error = self._end_of_life(), self._reason
        LOG.warning("%s %s", self.name, self._reason, extra={"worker": self.name, "jobs": list(jobs)})
        self._placed.clear()
        self._spoiled.clear()
        self._owners.clear()
        self._listener.is_lost(self, jobs, f"{self.name} {self._reason}", is_from_outside=is_from_outside)
        if self._has_started or is_from_outside:
            self._failed_starts = 0
            return
        self._failed_starts += 1
        if self._failed_starts == TRIES:
            reason = f"{self.name} did not start, {TRIES} times in a row: {self._reason}"
            self._listener.has_given_up(self, reason)

    # -- speaking ------------------------------------------------------------------------------------------------

    def _send(self, message: dict[str, Any]) -> None:
        self._outgoing.put_nowait(message)

    async def _speak(self, link: ActorLink) -> None:
        """Say what there is to say, in its order; what a task needs is there before it. A lease is time to take it."""
        while True:
            messages = [await self._outgoing.get()]
            while not self._outgoing.empty():
                messages.append(self._outgoing.get_nowait())
            for message in messages:
                await self._provide(link, message)
            try:
                async with asyncio.timeout(self.settings.lease_s):
                    taken = await link.call("say", self._lease, messages)
            except TimeoutError:
                raise LinkLost(f"took no message for {self.settings.lease_s:g} s, though it speaks") from None
            if taken is None:
                raise LinkLost("does not know us any more")

    async def _provide(self, link: ActorLink, message: Mapping[str, Any]) -> None:
        """Bring the files a message is about."""
        if message["do"] == "run":
            task = message["task"]
            job_id, owner, prompt = task["job_id"] if task["attempt"] > 1 else None, task["owner"], task["prompt"]
        elif message["do"] == "ask" and message["question"] == "check":
            job_id, owner, prompt = None, message["values"]["owner"], message["values"]["prompt"]
        else:
            return
        for file in await asyncio.to_thread(self._depot.outgoing, job_id, owner, prompt):
            await self._bring(link, file)

    async def _bring(self, link: ActorLink, file: SentFile) -> None:
        place = file.owner, file.folder, file.name
        digest, asked_at = self._has.get(place, ("", 0.0))
        now = asyncio.get_running_loop().time()
        if digest == file.digest and now - asked_at < ASK_AGAIN_S:
            return
        if len(self._has) >= MOST_HAD:
            self._has.clear()
        if not await link.call("place", self._lease, file.about()):
            try:
                file, data = await asyncio.to_thread(_as_it_is, file)
            except OSError:  # it was removed meanwhile, as the node will say that wants it
                return
            await self._send_file(link, file, data)
        self._has[place] = file.digest, now

    async def _send_file(self, link: ActorLink, file: SentFile, data: bytes) -> None:
        """The content, whole by the object store, in pieces where that has no room."""
        whole: Any = None
        if len(data) > INLINE_BYTES:
            with suppress(StoreFull):
                whole = await link.offer(data)
        step = len(data) if whole is not None else INLINE_BYTES
        for start in range(0, max(1, len(data)), max(1, step)):
            payload = whole if whole is not None else data[start : start + step]
            await link.call("receive", self._lease, file.about(), start, payload)

    # -- listening -----------------------------------------------------------------------------------------------

    async def _listen(self, link: ActorLink) -> None:
        """Hear what it says, in its order; silence longer than the lease ends it."""
        after, pieces = 0, list[bytes]()
        while True:
            try:
                async with asyncio.timeout(self.settings.lease_s):
                    heard = await link.call("hear", self._lease, after, self.settings.beat_s)
            except TimeoutError:
                raise self._silent() from None
            if heard is None:
                raise LinkLost("does not know us any more")
            after, parcels = heard
            for goes_on, payload in parcels:
                pieces.append(payload if isinstance(payload, bytes) else await self._alive(link, link.fetch(payload)))
                if not goes_on:
                    await self._take(link, *unpacked(joined(pieces)))
                    pieces.clear()

    def _silent(self) -> LinkLost:
        return LinkLost(f"said nothing for {self.settings.lease_s:g} s: its machine is frozen or cannot be reached")

    async def _take(self, link: ActorLink, message: dict[str, Any], data: bytes) -> None:
        match message["say"]:
            case "file":
                await self._fetch(link, message)
            case "kept":
                jobs = [job_id for job_id in self._jobs if self._owners.get(job_id) == message["owner"]]
                await asyncio.to_thread(self._depot.keep, jobs, message["name"], message["at"], data)
            case "kept_no_more":
                await asyncio.to_thread(self._depot.keep_no_more, message["name"])
            case "event":
                placed = self._placed.get(message["job_id"])
                if placed and message["body"].get("ui"):
                    message["body"]["ui"] = _renamed(message["body"]["ui"], placed)
                self._heard(self._listener, message, data)
            case "finished":
                await self._finish(message)
            case _:
                self._heard(self._listener, message, data)

    async def _finish(self, message: dict[str, Any]) -> None:
        job_id = message["job_id"]
        placed, problems = self._placed.pop(job_id, {}), self._spoiled.pop(job_id, {})
        spoiled = next(iter(problems.values()), None)
        if message["outcome"] is not None and placed:
            outputs = message["outcome"]["outputs"]
            message["outcome"]["outputs"] = {node_id: _renamed(ui, placed) for node_id, ui in outputs.items()}
        if spoiled is not None and message["state"] == State.SUCCEEDED.value:
            message |= {"state": State.FAILED.value, "failure": {"code": spoiled.code, "message": spoiled.message}}
            message["tail"] = []
        self._owners.pop(job_id, None)
        await asyncio.to_thread(self._depot.forget, job_id)
        self._send({"do": "forget", "job_id": job_id})
        self._heard(self._listener, message, b"")

    async def _fetch(self, link: ActorLink, file: Mapping[str, Any]) -> None:
        """Have an output where it belongs before the event that names it is told."""
        job_id, digest = file["job_id"], file["digest"]
        place = file["kind"], file["subfolder"], file["filename"]
        data = await asyncio.to_thread(self._depot.known, digest)
        if data is None:
            data = await self._value(link, digest, file["size"])
        if job_id not in self._jobs:
            return
        try:
            if data is None:  # if it was written again, that was announced too, and is fetched next
                raise WriteFailed(file["filename"], "changed on its machine before it was brought here")
            name = await asyncio.to_thread(self._depot.place, self._owners[job_id], file, data)
        except EngineError as error:
            self._spoiled.setdefault(job_id, {})[place] = Failure(error.code, str(error))
            return
        self._spoiled.get(job_id, {}).pop(place, None)
        self._placed.setdefault(job_id, {})[place] = name

    async def _value(self, link: ActorLink, digest: str, size: int) -> bytes | None:
        """The content, whole by the object store, in pieces where that has no room; None where it is not there."""
        first = await self._alive(link, link.call("value", self._lease, digest, 0, True))
        if first is None:
            raise LinkLost("does not know us any more")
        data: bytes = first if isinstance(first, bytes) else b""
        if not isinstance(first, bytes):
            with suppress(StoreFull):
                data = await self._alive(link, link.fetch(first))
        while len(data) < size:
            piece = await self._alive(link, link.call("value", self._lease, digest, len(data), False))
            if piece is None:
                raise LinkLost("does not know us any more")
            if not piece:
                return None
            data += piece
        return data if blake3(data).hexdigest() == digest else None

    async def _alive(self, link: ActorLink, asked: Coroutine[Any, Any, T]) -> T:
        """What was asked for. It may take longer than a lease, if the machine answers to something else meanwhile."""
        answer = asyncio.create_task(asked)
        try:
            while not (await asyncio.wait({answer}, timeout=self.settings.lease_s))[0]:
                async with asyncio.timeout(self.settings.lease_s):
                    await link.call("about")
            return answer.result()
        except TimeoutError:
            raise self._silent() from None
        finally:
            answer.cancel()


def _as_it_is(file: SentFile) -> tuple[SentFile, bytes]:
    """The file, which may have been written again since it was looked at, and its content."""
    data = file.path.read_bytes()
    return replace(file, digest=blake3(data).hexdigest(), size=len(data)), data


def _renamed(ui: Mapping[str, Any], placed: Mapping[Place, str]) -> dict[str, Any]:
    """A node's record with the names its files have here."""

    def entry(value: Any) -> Any:
        if not isinstance(value, Mapping) or "filename" not in value:
            return value
        place = str(value.get("type", "output")), str(value.get("subfolder", "")), str(value["filename"])
        return {**value, "filename": placed[place]} if place in placed else value

    return {name: [entry(v) for v in group] if isinstance(group, list) else group for name, group in ui.items()}
