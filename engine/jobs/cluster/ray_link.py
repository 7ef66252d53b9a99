"""Ray Core, and nothing else that knows it: joining a cluster, its machines, an actor on one of them.

Ray is imported when it is needed: it is the extra `cluster`.
"""

import asyncio
import logging
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from sigmagraph.engine.errors import ClusterUnusable
from sigmagraph.engine.jobs.cluster.device import METHODS_AT_ONCE, DeviceActor
from sigmagraph.engine.jobs.cluster.link import LinkLost, StoreFull

__all__ = ["Machine", "RayCluster", "RayDevice", "RayLink"]

INSTALL = "pip install 'sigmagraph[cluster]'"
START = "on the head: `ray start --head --ray-client-server-port=10001`"
PROBE_S = 5.0
LOCAL_STORE_BYTES = 512 << 20


def _ray() -> Any:
    try:
        return import_module("ray")
    except ModuleNotFoundError as error:
        raise ClusterUnusable("workers", f"Ray is not installed: {INSTALL}") from error


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine of the cluster that is up."""

    id: str
    host: str
    cpus: float
    gpus: float
    labels: Mapping[str, str]


class RayDevice(DeviceActor):
    """A device whose parcels go by Ray's object store."""

    def __init__(self) -> None:
        super().__init__(_put, _ray().get)


def _put(data: bytes) -> Any:
    """A reference to the bytes, or None where there is no room for them."""
    ray = _ray()
    try:
        return ray.put(data)
    except (ray.exceptions.ObjectStoreFullError, ray.exceptions.OutOfDiskError) as error:
        logging.getLogger("sigmagraph.jobs").warning("Ray's object store is full, values go in pieces: %s", error)
        return None


class RayCluster:
    """The connection of this process. Every method but `links` waits for the cluster: on a thread."""

    def __init__(self, address: str, local: Mapping[str, Any]) -> None:
        self._address, self._local = address, local

    def join(self) -> None:
        """Connect; raises `ClusterUnusable` with what to do."""
        ray = _ray()
        if self._address.startswith("ray://"):
            self._probe()
        with suppress(Exception):
            ray.shutdown()
        where: dict[str, Any] = {"address": self._address}
        if self._address == "local":
            where |= {"include_dashboard": False, "object_store_memory": LOCAL_STORE_BYTES, **self._local}
        if not self._address.startswith("ray://"):
            where |= {"configure_logging": False}
        try:
            ray.init(**where)
        except Exception as error:  # Ray raises what it likes here, and says in its text what differs
            raise ClusterUnusable(self._address, f"{_first_line(error)}; {self._advice(error)}") from error

    def leave(self) -> None:
        """Disconnect; our actors end with the connection."""
        with suppress(Exception):
            _ray().shutdown()

    def machines(self) -> list[Machine]:
        """Those that are up. Raises `LinkLost` when nobody answers."""
        try:
            nodes = _ray().nodes()
        except Exception as error:
            raise LinkLost(f"the cluster at {self._address} does not answer: {_first_line(error)}") from error
        return [
            Machine(
                node["NodeID"],
                node["NodeManagerHostname"],
                node["Resources"].get("CPU", 0.0),
                node["Resources"].get("GPU", 0.0),
                node.get("Labels") or {},
            )
            for node in nodes
            if node["Alive"]
        ]

    def actor(self, machine: Machine, gpus: float) -> "RayLink":
        """A new actor on this machine."""
        ray = _ray()
        affinity = import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
        made = ray.remote(RayDevice).options(
            num_gpus=gpus,
            num_cpus=0 if gpus else 1,
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=METHODS_AT_ONCE,
            scheduling_strategy=affinity(machine.id, soft=False),
        )
        try:
            return RayLink(made.remote())
        except Exception as error:
            raise LinkLost(f"no actor can be made on {machine.host}: {_first_line(error)}") from error

    def request(self, bundles: list[dict[str, float]]) -> None:
        """Tell the autoscaler what there should be room for."""
        with suppress(Exception):  # a cluster without one
            import_module("ray.autoscaler.sdk").request_resources(bundles=bundles)

    def _probe(self) -> None:
        """Say soon what Ray's client would say after half a minute."""
        parts = urlsplit(self._address)
        try:
            with socket.create_connection((parts.hostname or "", parts.port or 10001), PROBE_S):
                pass
        except OSError as error:
            reason = f"nobody answers there ({error.strerror or error}); {START}"
            raise ClusterUnusable(self._address, reason) from error

    @staticmethod
    def _advice(error: Exception) -> str:
        if "version" in str(error).lower():
            return "install the same Python and the same Ray on every machine and here"
        return START


class RayLink:
    """One actor of Ray's."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def call(self, method: str, *arguments: Any) -> Any:
        try:
            return await _answer(getattr(self._actor, method).remote(*arguments))
        except Exception as error:
            raise _lost(error) from error

    async def fetch(self, reference: Any) -> bytes:
        exceptions = _ray().exceptions
        try:
            data: bytes = await _answer(reference)
        except (exceptions.ObjectStoreFullError, exceptions.OutOfDiskError) as error:
            raise StoreFull(str(error)) from error
        except Exception as error:
            raise _lost(error) from error
        return data

    async def offer(self, data: bytes) -> Any:
        reference = await asyncio.to_thread(_put, data)
        if reference is None:
            raise StoreFull(f"no room for {len(data)} bytes")
        return [reference]  # inside a list it is passed on, not awaited and unpacked

    def kill(self) -> None:
        with suppress(Exception):
            _ray().kill(self._actor, no_restart=False)

    def end(self) -> None:
        with suppress(Exception):
            _ray().kill(self._actor, no_restart=True)


async def _answer(reference: Any) -> Any:
    """What a reference stands for. Whoever waits may stop: the reference's own future goes on to its end."""
    future = asyncio.wrap_future(reference.future())
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(future)


def _lost(error: Exception) -> LinkLost:
    """What became of the actor, in our words."""
    exceptions = _ray().exceptions
    text = str(error)
    match error:
        case exceptions.ActorUnavailableError():
            return LinkLost("died: its process ended", is_temporary=True)
        case exceptions.ActorDiedError() if "node" in text and "died" in text.partition("node")[2]:
            return LinkLost("is gone: its machine left the cluster", is_from_outside=True, is_final=True)
        case exceptions.RayActorError():
            return LinkLost(f"died: {_first_line(error)}", is_final=True)
        case exceptions.RayTaskError():
            return LinkLost(f"failed: {text.strip().splitlines()[-1]}")
        case _:
            return LinkLost(f"cannot be reached: {_first_line(error)}", is_from_outside=True)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
