"""What Ray's errors mean to a worker, and what a head that hangs does to the server. Ray is a fake here."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sigmagraph.engine.errors import ClusterUnusable
from sigmagraph.engine.jobs.cluster import ray_cluster, ray_link
from sigmagraph.engine.jobs.cluster.actor_worker import ActorWorker
from sigmagraph.engine.jobs.cluster.depot import Depot
from sigmagraph.engine.jobs.cluster.link import ActorLink, LinkLost, StoreFull
from sigmagraph.engine.jobs.cluster.ray_cluster import RayCluster
from sigmagraph.engine.jobs.cluster.ray_link import RayLink
from sigmagraph.engine.jobs.cluster.settings import ActorSettings
from sigmagraph.engine.jobs.job import State
from tests.jobs.cluster.fake_ray import FakeActor, FakeRay, Reference
from tests.jobs.cluster.links import Place, served, submitted
from tests.jobs.cluster.nodes import folders

Runs = Callable[[Coroutine[Any, Any, Any]], Any]
UNPLACED = "The node specified via NodeAffinitySchedulingStrategy doesn't exist any more or is infeasible"


def link(actor: Any) -> RayLink:
    return RayLink(actor, ThreadPoolExecutor(2))


@pytest.mark.parametrize(
    ("name", "text", "reason", "meaning"),
    [
        ("ActorUnavailableError", "rpc", "died: its process ended, or its machine is gone", "temporary"),
        ("OutOfMemoryError", "Task was killed", "died: its machine ran out of memory", "temporary"),
        ("ActorUnschedulableError", UNPLACED, "is gone: its machine left the cluster", "outside final"),
        ("NodeDiedError", "", "is gone: its machine left the cluster", "outside final"),
        ("ActorDiedError", "The actor died.\n its node has died", "is gone: its machine left", "outside final"),
        ("ActorDiedError", "dead because its owner has died", "is gone: our connection to the", "outside final"),
        ("ActorDiedError", "killed by `ray.kill`", "died: killed by `ray.kill`", "final"),
        ("RayActorError", "\n it was that", "died: it was that", "final"),
        ("RayTaskError", "Traceback\n  line\nValueError: no", "failed: ValueError: no", ""),
        ("ObjectLostError", "an object", "cannot be reached: an object", "outside"),
    ],
)
def test_what_an_error_of_rays_means(run: Runs, ray: FakeRay, name: str, text: str, reason: str, meaning: str) -> None:
    async def case() -> LinkLost:
        def fails(method: str) -> Any:
            raise ray.error(name, text)

        with pytest.raises(LinkLost) as lost:
            await link(FakeActor(fails)).call("about")
        return lost.value

    lost = run(case())
    assert lost.reason.startswith(reason)
    assert (lost.is_temporary, lost.is_from_outside, lost.is_final) == tuple(
        word in meaning for word in ("temporary", "outside", "final")
    )


def test_an_actor_that_ray_will_not_place_again_gives_way_to_another(run: Runs, ray: FakeRay, tmp_path: Path) -> None:
    """A new machine that Ray does not know well yet refuses its first actor for good, and takes the second."""

    def refused(method: str) -> Any:
        raise ray.error("ActorUnschedulableError", UNPLACED)

    lost = FakeActor(refused)
    offers: list[ActorLink] = [Place("a", models=str(tmp_path / "models")), link(lost)]

    async def connect() -> ActorLink:
        return offers.pop()

    async def case() -> None:
        options = {"models": str(tmp_path / "models")}
        how = ActorSettings("tests.jobs.cluster.nodes:build", options, "a", beat_s=0.05, max_restart_wait_s=0.1)
        worker = ActorWorker(how, connect, Depot(folders(tmp_path), tmp_path / "carried"))
        async with served(tmp_path, [worker]) as jobs:
            assert await jobs.ready(5), jobs.workers()
            done = await jobs.wait((await submitted(jobs, count=1)).id)
            assert (done.state, done.attempt) == (State.SUCCEEDED, 1)

    run(case())
    assert ray.killed == [(lost, True)], "the first keeps nothing from the second"


def test_a_head_that_hangs_holds_up_nothing_but_calls_to_it(
    run: Runs, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_link, "END_S", 0.1)

    def hangs(*arguments: Any) -> Any:
        ray.answers.wait()
        return Reference(lambda: "late")

    async def case() -> None:
        ray.answers.clear()
        hung = link(SimpleNamespace(about=SimpleNamespace(remote=hangs)))
        calling = asyncio.create_task(hung.call("about"))
        began = time.monotonic()
        await asyncio.sleep(0.01)
        hung.kill()
        await asyncio.to_thread(hung.end)
        assert time.monotonic() - began < 2
        assert not calling.done()
        ray.answers.set()
        assert await calling == "late"

    run(case())


def test_a_full_object_store_is_told_apart_from_a_lost_actor(run: Runs, ray: FakeRay) -> None:
    async def case() -> None:
        found = link(None)
        (reference,) = await found.offer(b"picture")
        assert await found.fetch(reference) == b"picture"
        ray.is_full = True
        with pytest.raises(StoreFull, match="no room for 7 bytes"):
            await found.offer(b"picture")

        def full() -> Any:
            raise ray.error("OutOfDiskError", "spilled")

        with pytest.raises(StoreFull, match="spilled"):
            await found.fetch(Reference(full))

        def gone() -> Any:
            raise ray.error("ObjectLostError", "its node died")

        with pytest.raises(LinkLost, match="cannot be reached: its node died"):
            await found.fetch(Reference(gone))

    run(case())


OLDER = """Version mismatch: The cluster was started with:
    Ray: 2.40.0
    Python: 3.10.4
This process on Ray Client was started with:
    Ray: 2.60.0
    Python: 3.11.7
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            OLDER,
            "Version mismatch: The cluster was started with: Ray: 2.40.0 Python: 3.10.4 This process on Ray Client "
            "was started with: Ray: 2.60.0 Python: 3.11.7; "
            "install the same Python and the same Ray on every machine and here",
        ),
        ("no answer", "no answer; on the head: `ray start --head --ray-client-server-port=10001`"),
        (
            "Initialization failure:\n Traceback\nRuntimeError: see its log\n",
            "Initialization failure: RuntimeError: see its log; "
            "on the head: `ray start --head --ray-client-server-port=10001`",
        ),
    ],
)
def test_a_cluster_that_refuses_is_named_with_what_to_do(
    ray: FakeRay, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.setattr(RayCluster, "_probe", lambda cluster: None)
    ray.refuses = RuntimeError(text)
    with pytest.raises(ClusterUnusable) as refused:
        RayCluster("ray://head:10001", {}).join()
    assert str(refused.value) == f"cluster ray://head:10001: {said}"


def test_a_lost_connection_is_no_reason_to_start_a_cluster_here(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ENABLE_AUTO_CONNECT", raising=False)
    ray.refuses = ConnectionError("disconnected")
    with pytest.raises(LinkLost, match="the cluster at ray://head:1 does not answer: disconnected"):
        RayCluster("ray://head:1", {}).machines()
    assert ray_link.os.environ["RAY_ENABLE_AUTO_CONNECT"] == "0"


def test_a_silent_head_is_noticed_before_ray_would(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [("grpc.keepalive_time_ms", 30_000), ("grpc.keepalive_timeout_ms", 600_000)]
    modules = {"ray.util.client.common": SimpleNamespace(GRPC_OPTIONS=options)}
    monkeypatch.setattr(ray_cluster, "import_module", modules.__getitem__)
    monkeypatch.setattr(RayCluster, "_probe", lambda cluster: None)
    RayCluster("ray://head:1", {}).join()
    assert dict(options) == {"grpc.keepalive_time_ms": 30_000, "grpc.keepalive_timeout_ms": 20_000}


def test_joining_again_ends_a_connection_that_ray_forgot(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    """`shutdown` does nothing then, and `init` refuses while either of two lists has a connection."""
    monkeypatch.setattr(RayCluster, "_probe", lambda cluster: None)
    ray.refuses = RuntimeError("Ray Client is already connected")
    ended: list[str] = []

    def end(what: str) -> None:
        ended.append(what)
        if {*ended} == {"every context", "this context"}:
            ray.refuses = None

    context = SimpleNamespace(disconnect=lambda: end("this context"))
    client = SimpleNamespace(get_context=lambda: context, disconnect=lambda: end("every context"))
    monkeypatch.setattr(ray_cluster, "import_module", {"ray.util.client": SimpleNamespace(ray=client)}.__getitem__)
    monkeypatch.setattr(ray_cluster, "_have_silence_noticed", lambda: None)
    RayCluster("ray://head:1", {}).join()
    assert ray.joined == [{"address": "ray://head:1"}]


def test_the_autoscaler_is_asked_by_a_task_inside_the_cluster(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's client has no way to it: it says that Ray is not initialised, or reaches no head."""
    tasks: list[Any] = []

    def remote(function: Any) -> Any:
        return SimpleNamespace(
            options=lambda **how: SimpleNamespace(remote=lambda *given: (function.__name__, how, given))
        )

    def get(task: Any, timeout: float) -> None:
        tasks.append(task)
        if ray.refuses is not None:
            raise ray.refuses

    monkeypatch.setattr(ray, "remote", remote, raising=False)
    monkeypatch.setattr(ray, "get", get, raising=False)
    cluster = RayCluster("ray://head:1", {})
    cluster.request([{"GPU": 1.0}])
    assert tasks == [("_request", {"num_cpus": 0}, ([{"GPU": 1.0}],))]
    ray.refuses = RuntimeError("no head")
    with pytest.raises(LinkLost, match="autoscaler cannot be asked: no head"):
        cluster.request([])
