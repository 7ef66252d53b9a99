"""Machines that come and go, a head that is restarted or silent, a cluster that grows. The cluster is objects here."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from sigmagraph.engine.errors import ClusterUnusable
from sigmagraph.engine.jobs.cluster.depot import Depot
from sigmagraph.engine.jobs.cluster.fleet import RayFleet, devices
from sigmagraph.engine.jobs.cluster.link import LinkLost
from sigmagraph.engine.jobs.cluster.ray_cluster import Machine
from sigmagraph.engine.jobs.cluster.settings import ActorSettings, FleetSettings
from sigmagraph.engine.jobs.job import State
from sigmagraph.engine.jobs.service import JobService
from sigmagraph.engine.jobs.settings import StoreSettings
from tests.jobs.cluster.links import Place, served, submitted, until
from tests.jobs.cluster.nodes import expected, folders
from tests.jobs.serving import ends, log, started

Runs = Callable[[Coroutine[Any, Any, Any]], Any]


class Machines:
    """In the place of `RayCluster`: which machines are up, by names of one letter, and what is wrong with the head."""

    def __init__(self, models: Path, names: str) -> None:
        self._models = models
        self.up: dict[str, Place] = {}
        self.is_down = False
        self.answers = Event()
        self.answers.set()
        self.joins = 0
        self.asked: list[int] = []
        for name in names:
            self.add(name)

    def add(self, name: str) -> Place:
        self.up[name] = Place(name, models=str(self._models))
        return self.up[name]

    def lose(self, name: str) -> None:
        self.up.pop(name).is_cut = True

    def join(self) -> None:
        self.joins += 1
        if self.is_down:
            raise ClusterUnusable("ray://head", "nobody answers there; start it")

    def leave(self) -> None: ...

    def machines(self) -> list[Machine]:
        self.answers.wait(10)
        if self.is_down:
            raise LinkLost("the cluster at ray://head does not answer: gone")
        return [Machine(name, name, 1.0, 0.0, {}) for name in self.up]

    def actor(self, machine: Machine, gpus: float) -> Place:
        place = self.up[machine.id]
        return place if not place.is_cut else self.add(machine.id)  # its actor was ended, and this is another

    def request(self, bundles: list[dict[str, float]]) -> None:
        self.asked.append(len(bundles))


@asynccontextmanager
async def front(
    home: Path, machines: Machines, *, lease_s: float = 20.0, store: StoreSettings | None = None, **settings: Any
) -> AsyncIterator[JobService]:
    how = {"beat_s": 0.05, "lease_s": lease_s, "max_restart_wait_s": 0.2, "front": str(home)}
    actor = ActorSettings("tests.jobs.cluster.nodes:build", {"models": str(home / "models")}, **how)
    fleet = RayFleet(
        FleetSettings("ray://head", 0.0, look_every_s=0.05, **settings), actor, Depot(folders(home), home / "carried")
    )
    fleet._cluster = machines  # type: ignore[assignment]
    async with served(home, [], store=store, fleet=fleet) as jobs:
        try:
            yield jobs
        finally:
            machines.answers.set()


def ready(jobs: JobService) -> set[str]:
    return {status.name for status in jobs.workers() if status.is_ready}


def test_workers_come_and_go_with_their_machines(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        machines = Machines(tmp_path / "models", "a")
        async with front(tmp_path, machines) as jobs:
            await until(lambda: ready(jobs) == {"a:0"})
            job = await submitted(jobs, seed=1, count=40, seconds=0.02)
            await started(jobs, job)
            machines.add("b")
            await until(lambda: ready(jobs) == {"a:0", "b:0"})
            machines.lose("a")
            done = await jobs.wait(job.id)
            assert (done.state, done.worker, done.attempt) == (State.SUCCEEDED, "b:0", 2)
            await until(lambda: [status.name for status in jobs.workers()] == ["b:0"])

    run(case())


def test_a_head_that_is_restarted_is_joined_again_and_no_job_is_lost(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        machines = Machines(tmp_path / "models", "a")
        async with front(tmp_path, machines) as jobs:
            job = await submitted(jobs, seed=2, count=40, seconds=0.02)
            await started(jobs, job)
            machines.is_down = True
            machines.lose("a")
            await until(lambda: jobs.trouble == "cluster ray://head: nobody answers there; start it")
            assert jobs.workers() == []
            waiting = await submitted(jobs, seed=3, count=2)
            machines.add("c")
            machines.is_down = False
            done = [await jobs.wait(each.id) for each in (job, waiting)]
            await until(lambda: jobs.trouble == "")
            assert [ends(await log(jobs, each)) for each in done] == [1, 1]
        assert [each.worker for each in done] == ["c:0", "c:0"]
        written = {path.read_bytes() for path in (tmp_path / "output").glob("*.bin")}
        assert written == {expected(2, 40), expected(3, 2)}

    run(case())


def test_a_head_that_says_nothing_for_a_lease_is_named_and_given_up(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        machines = Machines(tmp_path / "models", "a")
        async with front(tmp_path, machines, lease_s=0.5) as jobs:
            await until(lambda: ready(jobs) == {"a:0"})
            machines.answers.clear()
            await until(lambda: bool(jobs.trouble))
            assert jobs.trouble == "the cluster at ray://head says nothing for 0.5 s; joining again"
            machines.answers.set()
            await until(lambda: ready(jobs) == {"a:0"} and not jobs.trouble)
            assert machines.joins == 2

    run(case())


def test_a_queue_asks_for_machines_and_gives_idle_ones_back(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        machines = Machines(tmp_path / "models", "a")
        async with front(tmp_path, machines, most=3, idle_s=0.3) as jobs:
            await until(lambda: ready(jobs) == {"a:0"})
            assert machines.asked == [1]
            sent = [await submitted(jobs, seed=seed, count=20, seconds=0.02) for seed in range(6)]
            await until(lambda: machines.asked[-1] == 3)
            machines.add("b")
            machines.add("c")
            done = [await jobs.wait(job.id) for job in sent]
            assert {job.worker for job in done} == {"a:0", "b:0", "c:0"}
            await until(lambda: len(jobs.workers()) == 1)
            assert machines.asked[-1] == 1
            assert max(machines.asked) == 3, "no more than it may have"

    run(case())


def test_a_machine_whose_weights_no_other_has_is_given_back_last(tmp_path: Path) -> None:
    """Before it those whose weights others have, the one idle for longest first; none that works."""
    fleet = RayFleet(FleetSettings("ray://head"), ActorSettings("none"), Depot(folders(tmp_path), tmp_path))
    used = {"alone": ["rare"], "new": ["usual"], "old": ["usual", "rare"], "empty": [], "busy": ["other"]}
    busy_at = {"alone": 1.0, "new": 5.0, "old": 4.0, "empty": 6.0, "busy": 0.0}
    for name in used:
        status = SimpleNamespace(jobs=("job",) if name == "busy" else ())
        fleet._workers[name, 0] = SimpleNamespace(name=name, status=lambda status=status: status)  # type: ignore[assignment]
        fleet._busy_at[name, 0] = busy_at[name]
    hall = SimpleNamespace(used_by=used.__getitem__)
    assert [name for name, _ in fleet._idlest(hall)] == ["old", "new", "empty", "alone", "busy"]  # type: ignore[arg-type]


@pytest.mark.postgres
def test_servers_of_one_queue_share_the_machines_and_take_over_those_of_one_that_is_gone(
    run: Runs, tmp_path: Path, shared: StoreSettings
) -> None:
    """A server that joins gets its part without a job being begun again."""

    async def case() -> None:
        machines = Machines(tmp_path / "models", "abcd")
        async with front(tmp_path, machines, store=shared) as one:
            await until(lambda: ready(one) == {"a:0", "b:0", "c:0", "d:0"})
            sent = [await submitted(one, seed=seed, count=30, seconds=0.02) for seed in range(4)]
            async with front(tmp_path, machines, store=shared) as other:
                await until(lambda: len(ready(one)) == len(ready(other)) == 2)
                assert not ready(one) & ready(other)
                done = [await one.wait(job.id) for job in sent]
                more = [await submitted(other, seed=seed, count=10, seconds=0.02) for seed in range(4, 12)]
                late = [await other.wait(job.id) for job in more]
                assert {job.worker.partition("/")[0] for job in late} == {"1", "2"}
                assert one.trouble == other.trouble == ""
            assert {job.attempt for job in (*done, *late)} == {1}
            assert {ends(await log(one, job)) for job in (*done, *late)} == {1}
            await until(lambda: ready(one) == {"a:0", "b:0", "c:0", "d:0"})
            machines.lose("b")
            await until(lambda: ready(one) == {"a:0", "c:0", "d:0"})

    run(case())


@pytest.mark.postgres
def test_servers_whose_database_was_restarted_keep_their_workers(
    run: Runs, tmp_path: Path, shared: StoreSettings
) -> None:
    """All that was locked is free then, and whoever comes first could take what another works with."""

    async def case() -> None:
        machines = Machines(tmp_path / "models", "abcd")
        async with front(tmp_path, machines, store=shared) as one, front(tmp_path, machines, store=shared) as other:
            await until(lambda: len(ready(one)) == len(ready(other)) == 2)
            had = ready(one), ready(other)
            places = [jobs.store.database.place for jobs in (one, other)]
            assert all(place is not None for place in places)
            engine = create_engine(shared.url)
            with engine.begin() as connection:
                ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                connection.execute(text(f"{ends} AND backend_type = 'client backend'"))
            engine.dispose()
            for place in places:
                await until(lambda place=place: not place._claims)  # type: ignore[misc]
            for place in places:
                await until(lambda place=place: len(place._claims) == 2)  # type: ignore[misc]
            await asyncio.sleep(0.3)
            assert (ready(one), ready(other)) == had
            assert {status.starts for jobs in (one, other) for status in jobs.workers()} == {1}
            assert (await other.wait((await submitted(one, seed=1, count=2)).id)).state is State.SUCCEEDED

    run(case())


@pytest.mark.postgres
def test_a_server_for_which_no_machine_is_left_says_what_to_do(
    run: Runs, tmp_path: Path, shared: StoreSettings
) -> None:
    async def case() -> None:
        machines = Machines(tmp_path / "models", "a")
        async with front(tmp_path, machines, store=shared) as one, front(tmp_path, machines, store=shared) as other:
            await until(lambda: ready(one) == {"a:0"} and bool(other.trouble))
            assert other.trouble == (
                "2 servers share 1 workers, none is left for this one: start another machine, "
                "or let workers share a GPU (gpus_per_worker)"
            )
            assert one.trouble == ""
            machines.add("b")
            await until(lambda: len(ready(one)) == len(ready(other)) == 1 and not other.trouble)
            assert ready(one) | ready(other) == {"a:0", "b:0"}

    run(case())


@pytest.mark.postgres
def test_one_of_the_servers_asks_for_what_all_have_to_do(run: Runs, tmp_path: Path, shared: StoreSettings) -> None:
    """The cluster's autoscaler knows one request: two servers must not take turns to overwrite it."""

    async def case() -> None:
        asked = [Machines(tmp_path / "models", "ab") for _ in range(2)]
        fronts = [front(tmp_path, machines, store=shared, most=8) for machines in asked]
        async with fronts[0] as one, fronts[1] as other:
            await until(lambda: len(ready(one)) == len(ready(other)) == 1)
            sent = [await submitted(other, seed=seed, count=20, seconds=0.02) for seed in range(6)]
            await until(lambda: asked[0].asked[-1] == 6)
            for job in sent:
                await one.wait(job.id)
            assert asked[1].asked == []

    run(case())


@pytest.mark.parametrize("jump_s", [-1e6, 1e6])
def test_a_clock_that_jumps_costs_no_lease_and_no_job(
    run: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    async def case() -> None:
        machines = Machines(tmp_path / "models", "a")
        async with front(tmp_path, machines, lease_s=2.0) as jobs:
            job = await submitted(jobs, seed=4, count=40, seconds=0.02)
            await started(jobs, job)
            was = time.time
            monkeypatch.setattr(time, "time", lambda: was() + jump_s)
            done = await jobs.wait(job.id)
            after = await jobs.wait((await submitted(jobs, seed=5, count=2)).id)
            assert [(each.state, each.attempt) for each in (done, after)] == [(State.SUCCEEDED, 1)] * 2
            assert [status.starts for status in jobs.workers()] == [1]
            assert ends(await log(jobs, done)) == 1

    run(case())


def test_devices_are_gpus_shares_of_them_or_machines_where_there_are_none() -> None:
    plain, two = Machine("p", "p", 8, 0, {"pool": "x"}), Machine("t", "t", 8, 2, {})
    assert list(devices([plain, two], FleetSettings("", 1.0))) == [("t", 0), ("t", 1)]
    assert len(devices([two], FleetSettings("", 0.5))) == 4
    assert list(devices([plain, two], FleetSettings("", 1.0, ("pool=x",)))) == [("p", 0)]
    assert devices([plain, two], FleetSettings("", 1.0, ("pool=y",))) == {}
    assert devices([Machine("h", "h", 0, 0, {})], FleetSettings("", 1.0)) == {}, "a head that only listens"
