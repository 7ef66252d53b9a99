"""Whether jobs are traced, and how long: tracing itself needs an extra, and is imported only where it is asked for."""

import asyncio
from collections.abc import AsyncIterator
from importlib.util import find_spec

from aiohttp import web

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.server.context import JOBS, SETTINGS

__all__ = ["trace_jobs"]

NEEDED = "opentelemetry.exporter.otlp.proto.http"
EXTRA = "an installation with the extra for traces: pip install 'sigmagraph[otel]'"


async def trace_jobs(app: web.Application) -> AsyncIterator[None]:
    """Trace jobs while the server runs, where the operator named a collector; without the extra that is an error."""
    address = app[SETTINGS].traces
    if address is None:
        yield
        return
    if find_spec("opentelemetry") is None or find_spec(NEEDED) is None:
        raise BadValue("traces", address, EXTRA)
    from sigmagraph.engine.server.monitoring.tracing import JobTraces, by_otlp  # an extra

    traces = JobTraces(by_otlp(address))
    unlisten = app[JOBS].listen(traces.heard)
    yield
    unlisten()
    await asyncio.to_thread(traces.stop)
