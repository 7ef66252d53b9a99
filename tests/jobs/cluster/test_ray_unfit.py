"""Machines of a real cluster that are unfit: other versions, no models, no room in the object store. Run by ray.sh."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from sigmagraph.engine.jobs.job import State
from tests.jobs.cluster.links import submitted, until
from tests.jobs.cluster.nodes import expected
from tests.jobs.cluster.ray_nodes import (
    STORE_BYTES,
    RayStart,
    content,
    fleet,
    free_port,
    front,
    on_machines,
    run,
    started_head,
)

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore")]
HIDDEN = 'mount -t tmpfs none "$0" && exec "$@"'


def installed(folder: Path, **versions: str) -> str:
    """A folder for Python's path, beside what it is now, that says other versions of packages are installed."""
    for name, version in versions.items():
        about = folder / f"{name}-{version}.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))


@contextmanager
def machines(address: str, *given: tuple[tuple[str, ...], dict[str, str]]) -> Iterator[None]:
    """Machines that join, each with what comes before its command and with its environment."""
    words = [f"--address={address}", "--num-cpus=1", f"--object-store-memory={STORE_BYTES}"]
    with ExitStack() as stack:
        for before, environment in given:
            stack.callback(RayStart(*words, before=before, **environment).stop)
            time.sleep(3)  # two at once would want the same ports
        yield


@asynccontextmanager
async def cluster_of(*given: tuple[tuple[str, ...], dict[str, str]], **words: Any) -> AsyncIterator[str]:
    """A head, and machines as `machines` makes them; its address."""
    cluster = await on_machines(partial(started_head, **words), port := free_port())
    try:
        starting = machines(cluster.address, *given)
        await on_machines(starting.__enter__)
        try:
            yield f"ray://127.0.0.1:{port}"
        finally:
            await on_machines(partial(starting.__exit__, None, None, None))
    finally:
        await on_machines(cluster.shutdown)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hide a folder from one machine")
def test_machines_that_differ_are_named_and_the_others_work(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other, newer = installed(tmp_path / "other", sigmagraph="0.0.1"), installed(tmp_path / "newer", torch="99.0")
    (tmp_path / "models").mkdir()

    async def case() -> None:
        given = ((), {"PYTHONPATH": other}), (("unshare", "-m", "sh", "-c", HIDDEN, str(tmp_path)), {})
        async with (
            cluster_of(((), {"PYTHONPATH": newer}), *given) as address,
            front(tmp_path, fleet(tmp_path, address), 1) as jobs,
        ):
            async with asyncio.timeout(60):
                await until(lambda: sum(bool(status.last_error) for status in jobs.workers()) == 2)
            done = [await jobs.wait((await submitted(jobs, seed=seed, count=2)).id) for seed in range(4)]
            assert [content(tmp_path, job) for job in done] == [expected(seed, 2) for seed in range(4)]
            (fit,) = (status.name for status in jobs.workers() if status.is_ready)
            assert {(job.state, job.worker, job.attempt) for job in done} == {(State.SUCCEEDED, fit, 1)}
            said = sorted(status.last_error for status in jobs.workers() if status.last_error)
            assert "sigmagraph 0.0.1 where the front has" in said[1]
            assert said[1].endswith("install the same")
            assert f"has no folder {tmp_path / 'models'}: put the models there" in said[0]

    run(case())
    assert any("torch 99.0 where the front has" in line and "last bits" in line for line in caplog.messages)


MOST_TAKEN = 500


class Hoard:
    """Takes all the room of its machine's object store."""

    def __init__(self) -> None:
        self._taken: list[Any] = []

    def fill(self) -> int:
        """Until nothing more fits; how much it took."""
        ray, size = import_module("ray"), 8 << 20
        while size > 1 << 10:
            assert len(self._taken) < MOST_TAKEN, "the store does not fill"
            try:
                self._taken.append(ray.put(os.urandom(size)))
            except (ray.exceptions.ObjectStoreFullError, ray.exceptions.OutOfDiskError):
                size //= 2
        return len(self._taken)


def test_jobs_end_while_every_object_store_is_full(tmp_path: Path) -> None:
    """Ray would move what fills it to the disk: it may not, and to Ray that is full, too."""
    ray = import_module("ray")
    affinity = import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy

    async def case() -> None:
        full = {"automatic_object_spilling_enabled": False, "local_fs_capacity_threshold": 0.001}
        config = {**full, "object_store_full_delay_ms": 10}
        async with (
            cluster_of(((), {}), _system_config=config) as address,
            front(tmp_path, fleet(tmp_path, address), 1) as jobs,
        ):

            def fill() -> list[Any]:
                places = [affinity(node["NodeID"], soft=False) for node in ray.nodes()]
                hoards = [ray.remote(Hoard).options(num_cpus=0, scheduling_strategy=at).remote() for at in places]
                assert min(ray.get([hoard.fill.remote() for hoard in hoards])) > 5
                return hoards

            hoards = await asyncio.to_thread(fill)
            sent = [await submitted(jobs, seed=seed, count=3, width=300_000, record=200_000) for seed in range(3)]
            done = [await jobs.wait(job.id) for job in sent]
            assert [job.attempt for job in done] == [1, 1, 1]
            assert [content(tmp_path, job) for job in done] == [expected(seed, 3, 300_000) for seed in range(3)]
            assert len(hoards) == 2

    run(case())
