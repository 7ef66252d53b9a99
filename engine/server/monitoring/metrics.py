"""`/metrics` in Prometheus' text form. One registry per application, so that two of them never share a counter."""

import time
from collections.abc import AsyncIterator, Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from sigmagraph.engine.execution.events import NodeFinished
from sigmagraph.engine.jobs.events import Ended, JobEvent, Preview
from sigmagraph.engine.server.access.auth import require
from sigmagraph.engine.server.comfy.hub import HUB
from sigmagraph.engine.server.context import JOBS

__all__ = ["METRICS", "Metrics", "count_jobs", "count_requests", "metrics"]

MOST_SERIES = 1024
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The counters of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "sigmagraph_http_requests",
            "Requests by route and status",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "sigmagraph_http_seconds",
            "Time to the end of an answer",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.ended = Counter("sigmagraph_jobs_ended", "Jobs by end state", ("state",), registry=self.registry)
        self.nodes = Counter("sigmagraph_nodes", "Nodes by how they got results", ("source",), registry=self.registry)
        self.node_seconds = Counter(
            "sigmagraph_node_seconds", "Time nodes took, by class", ("class_type",), registry=self.registry
        )
        self.jobs = Gauge("sigmagraph_jobs", "Jobs that wait or run", ("state",), registry=self.registry)
        self.sockets = Gauge("sigmagraph_sockets", "Connected WebSocket clients", registry=self.registry)
        self.ready = Gauge("sigmagraph_workers_ready", "Workers that can take a job", registry=self.registry)
        self.starts = Gauge(
            "sigmagraph_worker_starts", "Starts of worker processes", ("worker",), registry=self.registry
        )
        self.networks = Gauge(
            "sigmagraph_worker_networks",
            "Networks a worker process made (loads) and let go (evictions)",
            ("worker", "what"),
            registry=self.registry,
        )
        self.compiled = Gauge(
            "sigmagraph_worker_compiled",
            "Graphs torch.compile made in a worker process, and recompiles, of which there should be none",
            ("worker", "what"),
            registry=self.registry,
        )
        self._requests = lru_cache(MOST_SERIES)(self.requests.labels)
        self._seconds = lru_cache(MOST_SERIES)(self.seconds.labels)
        self._ended, self._nodes = lru_cache(self.ended.labels), lru_cache(self.nodes.labels)
        self._node_seconds = lru_cache(MOST_SERIES)(self.node_seconds.labels)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer, and its time."""
        self._requests(method, route, str(status)).inc()
        if status != HTTPStatus.SWITCHING_PROTOCOLS:  # a socket lasts as long as its page
            self._seconds(route).observe(seconds)

    def told(self, worker: str, stats: Mapping[str, Any]) -> None:
        """What a worker said of its networks."""
        for what in ("loads", "evictions"):
            self.networks.labels(worker, what).set(stats.get(what, 0))
        for what in ("graphs", "recompiles"):
            self.compiled.labels(worker, what).set(stats.get("compiled", {}).get(what, 0))

    def heard(self, event: JobEvent | Preview) -> None:
        """Count what happened to a job."""
        if isinstance(event, Preview):
            return
        if isinstance(event.body, Ended):
            self._ended(str(event.body.state)).inc()
        elif isinstance(event.body, NodeFinished):
            self._nodes(event.body.source).inc()
            self._node_seconds(event.body.class_type).inc(event.body.milliseconds / 1000)


METRICS: web.AppKey[Metrics] = web.AppKey("metrics", Metrics)


@web.middleware
async def count_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count and time every request under the pattern of its route, never under its path."""
    begun, status = time.perf_counter(), 500
    try:
        response = await handler(request)
        status = response.status
    except web.HTTPException as error:
        status = error.status
        raise
    else:
        return response
    finally:
        resource = request.match_info.route.resource
        route = (resource.canonical if resource is not None else "unknown").removeprefix("/api") or "/"
        request.app[METRICS].answered(request.method, route, status, time.perf_counter() - begun)


async def count_jobs(app: web.Application) -> AsyncIterator[None]:
    """Listen to the job layer while the server runs."""
    unlisten = app[JOBS].listen(app[METRICS].heard)
    yield
    unlisten()


async def metrics(request: web.Request) -> web.Response:
    """`GET /metrics`: everybody's numbers, so with keys in use an administrator's."""
    require(request, "admin")
    counters, jobs = request.app[METRICS], request.app[JOBS]
    counts = await jobs.counts()
    counters.jobs.labels("queued").set(counts.queued)
    counters.jobs.labels("running").set(counts.running)
    counters.sockets.set(len(request.app[HUB]))
    workers = jobs.workers()
    counters.ready.set(sum(worker.is_ready for worker in workers))
    for worker in workers:
        counters.starts.labels(worker.name).set(worker.starts)
        counters.told(worker.name, worker.stats)
    return web.Response(body=generate_latest(counters.registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
