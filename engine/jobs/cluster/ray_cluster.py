"""`RayCluster`: this process's connection to a cluster of Ray's: joining it, its machines, an actor on one of them."""

import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from sigmagraph.engine.errors import ClusterUnusable
from sigmagraph.engine.jobs.cluster.device import METHODS_AT_ONCE
from sigmagraph.engine.jobs.cluster.link import LinkLost
from sigmagraph.engine.jobs.cluster.ray_link import RayDevice, RayLink, first_line, ray

__all__ = ["Machine", "RayCluster"]

START = "on the head: `ray start --head --ray-client-server-port=10001`"
PROBE_S = 5.0
REQUEST_S = 30.0
TRIES = 2
"""A head that has just been started may fail to answer the first time."""
LOCAL_STORE_BYTES = 512 << 20
THREADS = 32
"""So many calls may be on their way to the head at once; each waits until the head has it."""
SILENT_HEAD_MS = 20_000
"""A head that does not answer gRPC's ping for so long is gone. Ray itself would wait for ten minutes."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine of the cluster that is up."""

    id: str
    host: str
    cpus: float
    gpus: float
    labels: Mapping[str, str]


class RayCluster:
    """The connection of this process. Every method waits for the cluster: on a thread."""

    def __init__(self, address: str, local: Mapping[str, Any]) -> None:
        self._address, self._local = address, local
        self._threads = ThreadPoolExecutor(THREADS, "ray")

    def join(self) -> None:
        """Connect; raises `ClusterUnusable` with what to do."""
        if self._address.startswith("ray://"):
            self._probe()
            _have_silence_noticed()
        self.leave()
        where: dict[str, Any] = {"address": self._address}
        if self._address == "local":
            where |= {"include_dashboard": False, "object_store_memory": LOCAL_STORE_BYTES, **self._local}
        if not self._address.startswith("ray://"):
            where |= {"configure_logging": False}
        for tries_left in reversed(range(TRIES)):
            try:
                ray().init(**where)
            except Exception as error:  # Ray raises what it likes here, and says in its text what differs
                self.leave()
                if _is_about_versions(error) or not tries_left:
                    raise ClusterUnusable(self._address, _refusal(error)) from error
            else:
                return

    def leave(self) -> None:
        """Disconnect; our actors end with the connection.

        A late call over a lost connection can make Ray forget that it is connected anew: it would refuse both to
        disconnect and to connect. So its client is told too.
        """
        with suppress(Exception):
            ray().shutdown()
        with suppress(Exception):
            import_module("ray.util.client").ray.disconnect()
        with suppress(Exception):
            import_module("ray.util.client").ray.get_context().disconnect()

    def machines(self) -> list[Machine]:
        """Those that are up. Raises `LinkLost` when nobody answers."""
        try:
            nodes = ray().nodes()
        except Exception as error:
            raise LinkLost(f"the cluster at {self._address} does not answer: {first_line(error)}") from error
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
        affinity = import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
        made = (
            ray()
            .remote(RayDevice)
            .options(
                num_gpus=gpus,
                num_cpus=0 if gpus else 1,
                max_restarts=-1,
                max_task_retries=0,
                max_concurrency=METHODS_AT_ONCE,
                scheduling_strategy=affinity(machine.id, soft=False),
            )
        )
        try:
            return RayLink(made.remote(), self._threads)
        except Exception as error:
            raise LinkLost(f"no actor can be made on {machine.host}: {first_line(error)}") from error

    def request(self, bundles: list[dict[str, float]]) -> None:
        """Tell the autoscaler what there should be room for: by a task inside the cluster, as Ray's client cannot."""
        try:
            asked = ray().remote(_request).options(num_cpus=0).remote(bundles)
            ray().get(asked, timeout=REQUEST_S)
        except Exception as error:
            raise LinkLost(f"the cluster's autoscaler cannot be asked: {first_line(error)}") from error

    def _probe(self) -> None:
        """Say soon what Ray's client would say after half a minute."""
        parts = urlsplit(self._address)
        try:
            with socket.create_connection((parts.hostname or "", parts.port or 10001), PROBE_S):
                pass
        except OSError as error:
            reason = f"nobody answers there ({error.strerror or error}); {START}"
            raise ClusterUnusable(self._address, reason) from error


def _request(bundles: list[dict[str, float]]) -> None:
    import_module("ray.autoscaler.sdk").request_resources(bundles=bundles)


def _refusal(error: Exception) -> str:
    """What Ray says and what to do; which versions there are where stands in lines of their own."""
    text = str(error)
    if _is_about_versions(error):
        return f"{' '.join(text.split())[:500]}; install the same Python and the same Ray on every machine and here"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = first_line(error) if len(lines) < 2 else f"{first_line(error)} {lines[-1]}"
    return f"{said}; {START}"


def _is_about_versions(error: Exception) -> bool:
    return "version" in str(error).lower()


def _have_silence_noticed() -> None:
    """Have Ray's client notice within a minute that the head is silent: its waiting calls end then."""
    with suppress(ImportError, AttributeError):
        options = import_module("ray.util.client.common").GRPC_OPTIONS
        name = "grpc.keepalive_timeout_ms"
        options[:] = [*(pair for pair in options if pair[0] != name), (name, SILENT_HEAD_MS)]
