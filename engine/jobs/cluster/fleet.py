"""`Fleet`: which actors there are. It looks at the cluster's machines, and has a worker for every device of each.

A machine that joins gets workers, one that goes takes its own with it. Where the cluster can grow (Ray's autoscaler),
it is told how many devices the queue has work for; workers that had none for long give their machines back.

Servers of one queue share the machines: each device is one server's while that lives, and each has its part of them.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from sigmagraph.engine.errors import ClusterUnusable, StoreFailed
from sigmagraph.engine.jobs.cluster.actor_worker import ActorWorker
from sigmagraph.engine.jobs.cluster.depot import Depot
from sigmagraph.engine.jobs.cluster.link import ActorLink, LinkLost
from sigmagraph.engine.jobs.cluster.ray_cluster import Machine, RayCluster
from sigmagraph.engine.jobs.cluster.settings import ActorSettings, FleetSettings
from sigmagraph.engine.jobs.workers.worker import Hall, Sharing

__all__ = ["RayFleet", "devices"]

LOG = logging.getLogger("sigmagraph.jobs")
SPLIT = "or let workers share a GPU (gpus_per_worker)"
Device = tuple[str, int]
"""A machine's id, and which of its devices."""


class RayFleet:
    """The workers of one Ray cluster."""

    def __init__(self, settings: FleetSettings, actor: ActorSettings, depot: Depot) -> None:
        self.settings, self._actor, self._depot = settings, actor, depot
        self._cluster = RayCluster(settings.address, settings.local)
        self._workers: dict[Device, ActorWorker] = {}
        self._busy_at: dict[Device, float] = {}
        self._resting: set[Device] = set()
        self._leaving: dict[Device, float] = {}
        self._asked = 0
        self._watching: asyncio.Task[None] | None = None
        self.trouble = ""

    async def connect(self) -> None:
        await asyncio.to_thread(self._cluster.join)

    async def start(self, hall: Hall, sharing: Sharing) -> None:
        self._sharing = sharing
        await asyncio.to_thread(self._depot.sweep)
        self._note(await self._look(hall))
        self._watching = asyncio.create_task(self._watch(hall))

    async def stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def close(self) -> None:
        await asyncio.to_thread(self._cluster.leave)

    async def _watch(self, hall: Hall) -> None:
        while True:
            await asyncio.sleep(self.settings.look_every_s)
            try:
                self._note(await self._look(hall))
            except LinkLost as lost:
                await self._begin_anew(hall, lost.reason)
            except Exception:  # whatever Ray says: the next look may go better
                LOG.exception("the cluster's machines could not be listed")

    async def _look(self, hall: Hall) -> str:
        """Compare the machines with the workers; what is wrong, if anything is."""
        there = devices(await self._machines(), self.settings)
        gone = [device for device in self._workers if device not in there]
        await self._let_go(hall, {device: f"{device[0][:8]}: its machine left the cluster" for device in gone})
        self._resting &= set(there)
        try:
            ours = await self._part(hall, there)
        except StoreFailed:  # nothing begins without the store either; what is ours is told by it once it is back
            return ""
        await self._scale(hall)
        for device in ours:
            if device not in self._workers and device not in self._resting:
                self._busy_at[device] = asyncio.get_running_loop().time()
                worker = self._workers[device] = self._worker(there[device])
                hall.join(worker)
        servers = self._sharing.count
        if ours or len(there) >= servers or not there:
            return ""
        return (
            f"{servers} servers share {len(there)} workers, none is left for this one: start another machine, {SPLIT}"
        )

    async def _part(self, hall: Hall, there: Mapping[Device, Machine]) -> set[Device]:
        """The devices that are this server's. Those above its share finish what they have, for a lease at most."""
        names = {f"{machine}/{place}": (machine, place) for machine, place in there}
        share = -(-len(names) // self._sharing.count)
        own_first = sorted(names, key=lambda name: names[name] not in self._workers)  # others may be used by theirs
        ours = {names[name] for name in await self._sharing.take(own_first, share)}
        lost = [device for device in self._workers if device not in ours]
        spare = [*(device for device in ours if device not in self._workers), *self._idlest(hall)]
        too_many = [*lost, *spare[: max(0, len(ours) - share)]]
        now = asyncio.get_running_loop().time()
        self._leaving = {device: self._leaving.get(device, now) for device in dict.fromkeys(too_many)}
        for device, worker in self._workers.items():
            worker.takes_no_more = device in self._leaving
        late = now - self._actor.lease_s
        over = [device for device, since in self._leaving.items() if since < late or not self._jobs_of(device)]
        self._resting.difference_update(over)
        await self._let_go(hall, {device: "is another server's now" for device in over if device in self._workers})
        for device in over:
            await self._sharing.give_back("/".join(map(str, device)))
        return ours.difference(over)

    def _jobs_of(self, device: Device) -> int:
        worker = self._workers.get(device)
        return len(worker.status().jobs) if worker is not None else 0

    def _idlest(self, hall: Hall) -> list[Device]:
        """Our devices, those first that can best be spared: whose weights another has too, then idle for longest."""
        latest = {device: tuple(hall.used_by(worker.name)[:1]) for device, worker in self._workers.items()}
        having = Counter(latest.values())

        def value(device: Device) -> tuple[bool, bool, float]:
            is_alone = bool(latest[device]) and having[latest[device]] == 1
            return bool(self._jobs_of(device)), is_alone, self._busy_at.get(device, 0.0)

        return sorted(self._workers, key=value)

    async def _machines(self) -> list[Machine]:
        """Those that are up. A head that says nothing for as long as a lease is as good as none."""
        try:
            async with asyncio.timeout(self._actor.lease_s):
                return await asyncio.to_thread(self._cluster.machines)
        except TimeoutError:
            reason = f"the cluster at {self.settings.address} says nothing for {self._actor.lease_s:g} s"
            raise LinkLost(reason) from None

    async def _let_go(self, hall: Hall, reasons: Mapping[Device, str]) -> None:
        """Workers that are gone for good, all at once: each may have to be waited for."""
        await asyncio.gather(*(hall.leave(self._workers.pop(device), reason) for device, reason in reasons.items()))

    def _worker(self, machine: Machine) -> ActorWorker:
        taken = {worker.name for worker in self._workers.values()}
        name = next(name for n in range(len(taken) + 1) if (name := f"{machine.host}:{n}") not in taken)

        async def connect() -> ActorLink:
            return await asyncio.to_thread(partial(self._cluster.actor, machine, _gpus(machine, self.settings)))

        return ActorWorker(replace(self._actor, name=name), connect, self._depot)

    async def _begin_anew(self, hall: Hall, reason: str) -> None:
        """The cluster is gone, its head was restarted say: so are its actors. Join again when it is back."""
        self._note(self.trouble or f"{reason}; joining again")
        await self._let_go(hall, dict.fromkeys(list(self._workers), reason))
        self._asked = 0  # a new head was asked for nothing yet
        try:
            await asyncio.to_thread(self._cluster.join)
        except ClusterUnusable as error:
            self._note(str(error))

    def _note(self, trouble: str) -> None:
        """What keeps the cluster from working; logged when it changes."""
        if trouble != self.trouble:
            LOG.warning("%s", trouble or f"the cluster at {self.settings.address} works again")
        self.trouble = trouble

    async def _scale(self, hall: Hall) -> None:
        """Ask for as many devices as there is work for; let those rest that had none for long."""
        if not self.settings.most:
            return
        now, jobs = asyncio.get_running_loop().time(), self._sharing.open_jobs()
        for device, worker in self._workers.items():
            if worker.status().jobs:
                self._busy_at[device] = now
        wanted = min(self.settings.most, max(1, jobs))
        wanted_here = -(-wanted // self._sharing.count)
        if wanted_here > len(self._workers):
            self._resting.clear()
        for device in self._idlest(hall)[: max(0, len(self._workers) - wanted_here)]:
            if now - self._busy_at.get(device, now) > self.settings.idle_s and not self._jobs_of(device):
                self._resting.add(device)
                await self._let_go(hall, {device: "had nothing to do"})
        asked = max(wanted, len(self._workers) - len(self._resting))
        if asked != self._asked and self._sharing.is_first:
            bundle = {"GPU": self.settings.gpus} if self.settings.gpus else {"CPU": 1.0}
            try:
                await asyncio.to_thread(self._cluster.request, [bundle] * asked)
                self._asked = asked
            except LinkLost as lost:  # the machines that are there go on, and the next look asks again
                LOG.warning("%s", lost.reason)


def devices(machines: list[Machine], settings: FleetSettings) -> dict[Device, Machine]:
    """The devices to have workers for: GPUs, or shares of them; where there are none at all, machines."""
    pairs = [pair.partition("=") for pair in settings.labels]
    fitting = [m for m in machines if all(m.labels.get(name) == value for name, _, value in pairs)]
    have_gpus = settings.gpus > 0 and any(machine.gpus for machine in fitting)
    found: dict[Device, Machine] = {}
    for machine in fitting:
        count = int(machine.gpus / settings.gpus + 1e-9) if have_gpus else int(machine.cpus >= 1)
        found |= {(machine.id, place): machine for place in range(count)}
    return found


def _gpus(machine: Machine, settings: FleetSettings) -> float:
    return settings.gpus if machine.gpus else 0.0
