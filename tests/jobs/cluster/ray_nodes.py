"""Real Ray clusters of several nodes on this machine, and a server that works with them."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import pytest

from sigmagraph.engine.jobs.cluster.depot import Depot
from sigmagraph.engine.jobs.cluster.fleet import RayFleet
from sigmagraph.engine.jobs.cluster.settings import ActorSettings, FleetSettings
from sigmagraph.engine.jobs.events import JobEvent, Requeued
from sigmagraph.engine.jobs.job import Job
from sigmagraph.engine.jobs.protocol import WorkerStatus
from sigmagraph.engine.jobs.service import JobService
from tests.jobs.cluster.links import served, until
from tests.jobs.cluster.nodes import folders

T = TypeVar("T")
NEEDS_TUN = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/dev/net/tun", os.W_OK), reason="needs root and /dev/net/tun"
)
STORE_BYTES = 80 << 20
START_S = 120.0
MOST_S = 240.0
MACHINES = ThreadPoolExecutor(1, "machines")
"""Starts every machine. Linux ends a machine's processes when the thread that started them ends, and asyncio ends its
threads with every loop: a machine that one test added would be gone in the next."""


async def on_machines(work: Callable[..., Any], *arguments: Any) -> Any:
    """Do something to a cluster."""
    return await asyncio.get_running_loop().run_in_executor(MACHINES, work, *arguments)


def started_cluster(port: int, nodes: int) -> Any:
    """A head that only listens, and machines with a worker each."""
    made = started_head(port)
    made.front_address = f"ray://127.0.0.1:{port}"
    for _ in range(nodes):
        add(made)
    return made


def started_head(port: int, **words: Any) -> Any:
    """A cluster of a head alone, whose client server listens."""
    cluster_utils = import_module("ray.cluster_utils")
    import_module("ray._private.utils").set_sigterm_handler = lambda handler: None  # machines are added on threads
    given = {"num_cpus": 0, "ray_client_server_port": port, "include_dashboard": False, **words}
    given["object_store_memory"] = STORE_BYTES
    made = patiently(lambda: cluster_utils.Cluster(initialize_head=True, head_node_args=dict(given)))
    until_listens(port, words.get("node_ip_address", "127.0.0.1"))
    return made


def patiently(start: Callable[[], T]) -> T:
    """Start processes of Ray's: three tries, as a busy machine may not have them up in Ray's own half minute."""
    for tries_left in (2, 1, 0):
        before = children()
        try:
            return start()
        except Exception:
            for left in children() - before:  # half a machine, which would hold the ports
                with suppress(ProcessLookupError):
                    os.kill(left, signal.SIGKILL)
            if not tries_left:
                raise
    raise AssertionError("the last try returns or raises")


def children() -> set[int]:
    """The processes that this one has started, by any of its threads."""
    found = set[int]()
    for thread in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):  # one that has just ended
            found.update(map(int, (thread / "children").read_text().split()))
    return found


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def add(cluster: Any) -> Any:
    """One more machine."""
    return patiently(lambda: cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES))


def kill(cluster: Any, node: Any) -> None:
    """All processes of a machine at once, as when its power goes."""
    cluster.remove_node(node, allow_graceful=False)


def fleet(home: Path, address: str, *, lease_s: float = 20.0, front: str = "", **settings: Any) -> RayFleet:
    options = {"models": str(home / "models")}
    name = front or str(home)
    actor = ActorSettings("tests.jobs.cluster.nodes:build", options, front=name, beat_s=0.5, lease_s=lease_s)
    how = {"gpus": 0.0, "look_every_s": 0.5, **settings}
    return RayFleet(FleetSettings(address, **how), actor, Depot(folders(home), home / "carried"))


def run(case: Coroutine[Any, Any, None], most_s: float = MOST_S) -> None:
    """To its end, which comes in minutes or not at all."""
    asyncio.run(asyncio.wait_for(case, most_s))


@asynccontextmanager
async def front(home: Path, fleet: RayFleet, workers: int) -> AsyncIterator[JobService]:
    """A server on a home, once so many workers are ready."""
    async with served(home, [], fleet=fleet) as jobs:
        async with asyncio.timeout(START_S):
            await until(lambda: ready(jobs) >= workers)
        yield jobs


def ready(jobs: JobService) -> int:
    """How many workers are."""
    return sum(status.is_ready for status in jobs.workers())


async def until_ready(jobs: JobService, workers: int, within_s: float = 60.0) -> None:
    """Go on as soon as just so many are."""
    async with asyncio.timeout(within_s):
        await until(lambda: ready(jobs) == workers)


def worker_of(jobs: JobService, job: Job) -> WorkerStatus:
    """Who works on it."""
    return next(status for status in jobs.workers() if job.id in status.jobs)


async def until_answer(ask: Callable[[], T], wanted: T, within_s: float) -> None:
    """Go on as soon as that is what Ray answers."""
    async with asyncio.timeout(within_s):
        while await asyncio.to_thread(ask) != wanted:
            await asyncio.sleep(0.2)


def report(record_property: Callable[[str, object], None], name: str, figures: str) -> None:
    """What a run was like: for its report, and for who reads its log."""
    record_property(name, figures)
    print(figures)  # noqa: T201


def content(home: Path, job: Job, folder: str = "output") -> bytes:
    assert job.outcome is not None, job.failure
    return (home / folder / job.outcome.outputs["end"]["images"][0]["filename"]).read_bytes()


def reasons(events: list[JobEvent]) -> list[str]:
    return [event.body.reason for event in events if isinstance(event.body, Requeued)]


def node_of(cluster: Any, pid: int | None) -> Any:
    """The machine that a process of an actor belongs to; None where that process is gone."""
    try:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except FileNotFoundError:
        return None
    processes = ((node, started) for node in cluster.worker_nodes for started in node.all_processes.values())
    return next((node for node, started in processes if parent in [each.process.pid for each in started]), None)


class RayStart:
    """`ray start --block` with these words, and its end with everything it started."""

    def __init__(self, *words: str, before: Sequence[str] = (), **environment: str) -> None:
        told = [*before, sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
        self._process = subprocess.Popen(
            [*told, *words], env=os.environ | environment, stdout=subprocess.DEVNULL, start_new_session=True
        )

    def stop(self) -> None:
        """Ask, then insist."""
        for how in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(self._process.pid, how)
                self._process.wait(10)


def until_listens(port: int, host: str = "127.0.0.1") -> None:
    """Until a head's client server is there; it begins some time after the head."""
    end = time.monotonic() + START_S
    while not listens(host, port):
        assert time.monotonic() < end, f"Ray's client server does not listen on port {port} after {START_S:g} s"
        time.sleep(0.1)


@contextmanager
def laid(name: str, delay_s: float, loss: float) -> Iterator[None]:
    """A network of that name behind a wire that delays and loses packets each way."""
    words = [sys.executable, "-m", "tests.jobs.cluster.wire", name, str(delay_s), str(loss)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield  # its end closes the process's standard input, and with it the wire


def listens(host: str, port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as tried:
        tried.settimeout(0.5)
        return tried.connect_ex((host, port)) == 0
