"""Traces of jobs, as a collector gets them over the wire, and of attempts that were lost."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.execution import events as run
from sigmagraph.engine.jobs.events import Body, Ended, JobEvent, Queued, Requeued, Started
from sigmagraph.engine.jobs.job import Failure, State
from sigmagraph.engine.server.context import SETTINGS
from sigmagraph.engine.server.monitoring import traces
from sigmagraph.engine.server.monitoring.tracing import JobTraces, trace_id_of
from sigmagraph.engine.server.settings import Settings
from tests.server.conftest import Serving
from tests.server.stubs import picture_graph

NAME = "0f8fad5b-d9cb-469f-a165-70867728950e"
SHOWN = {
    "1": {"class_type": "Slow", "inputs": {"seconds": 0.04, "steps": 4, "turn": 0}},
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}


@pytest.fixture(autouse=True)
def sent_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are sent after a moment, not after five seconds."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")


@asynccontextmanager
async def collector() -> AsyncIterator[tuple[str, list[Any]]]:
    """An OTLP/HTTP collector that keeps every span it gets."""
    spans: list[Any] = []

    async def take(request: web.Request) -> web.Response:
        said = ExportTraceServiceRequest.FromString(await request.read())
        for group in said.resource_spans:
            names = {fact.key: fact.value.string_value for fact in group.resource.attributes}
            assert names["service.name"] == "sigmagraph"
            spans.extend(span for scope in group.scope_spans for span in scope.spans)
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    async with TestServer(app) as server:
        yield str(server.make_url("/")), spans


async def test_a_collector_gets_a_job_its_nodes_and_their_steps(serving: Serving) -> None:
    async with collector() as (url, spans), serving(traces=url) as api:
        name = await api.queue(SHOWN)
        await api.ended(name)
        broken = await api.queue(
            picture_graph(3, f={"class_type": "Fail", "inputs": {"images": ["5", 0], "how": "now"}})
        )
        await api.ended(broken)
        while not any(span.name == "job" and span.trace_id == uuid.UUID(broken).bytes for span in spans):
            await asyncio.sleep(0.05)
    own = [span for span in spans if span.trace_id == uuid.UUID(name).bytes]
    by_id = {span.span_id: span for span in own}
    [job] = [span for span in own if not span.parent_span_id]
    nodes = {span.name: span for span in own if span.parent_span_id == job.span_id}
    assert set(nodes) == {"Slow", "PreviewImage"}
    steps = sorted((span for span in own if span.name == "step"), key=lambda span: span.start_time_unix_nano)
    assert len(steps) == 4
    assert {by_id[step.parent_span_id].name for step in steps} == {"Slow"}
    times = [nodes["Slow"].start_time_unix_nano, *(step.end_time_unix_nano for step in steps)]
    assert [step.start_time_unix_nano for step in steps] == times[:-1]  # no gap between steps
    for span in own:
        above = by_id.get(span.parent_span_id, job)
        assert above.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= above.end_time_unix_nano
    [failed] = [span for span in spans if span.trace_id == uuid.UUID(broken).bytes and span.name == "Fail"]
    assert (failed.status.code, failed.status.message) == (2, "failed now")
    assert [event.name for event in failed.events] == ["exception"]


def traced(*bodies: Body, job_id: str = NAME) -> Sequence[ReadableSpan]:
    """The spans of one job's events, a second apart."""
    kept = InMemorySpanExporter()
    told = JobTraces(SimpleSpanProcessor(kept))
    for at, body in enumerate(bodies, start=1):
        told.heard(JobEvent(job_id, "ann", at, float(at), body))
    told.stop()
    return kept.get_finished_spans()


def test_a_lost_attempt_ends_its_nodes_with_an_error_and_the_job_goes_on() -> None:
    begun = run.NodeStarted("7", "KSampler", "7")
    done = run.NodeFinished("7", "KSampler", "7", "executed", 1000.0)
    first, second, job = traced(
        Queued(1.0), Started(1, "a"), begun, run.NodeProgress("7", 2, 4), Requeued(1, "killed"),
        Started(2, "b"), begun, done, Ended(State.SUCCEEDED),
    )[1:]  # fmt: skip
    assert (first.status.description, first.start_time, first.end_time) == (
        "attempt 1 was lost: killed",
        3_000_000_000,
        5_000_000_000,
    )
    assert second.status.is_ok
    assert second.attributes is not None
    assert second.attributes["sigmagraph.node.attempt"] == 2
    assert [event.name for event in job.events] == ["queued", "started", "requeued", "started"]
    assert (job.start_time, job.end_time) == (1_000_000_000, 9_000_000_000)


@pytest.mark.parametrize(
    ("state", "ok"), [(State.SUCCEEDED, True), (State.CANCELLED, True), (State.FAILED, False), (State.EXPIRED, True)]
)
def test_a_server_that_was_restarted_traces_the_rest_of_a_job(state: State, ok: bool) -> None:
    failure = Failure("node_failed", "it broke") if state is State.FAILED else None
    [job] = traced(Requeued(1, "the server stopped"), Started(2, "a"), Ended(state, failure), job_id="mine")
    assert job.attributes is not None
    assert dict(job.attributes) == {
        "sigmagraph.job.id": "mine",
        "sigmagraph.job.owner": "ann",
        "sigmagraph.job.state": str(state),
        "sigmagraph.job.attempts": 2,
    }
    assert (job.status.is_ok, job.status.description) == (ok, None if ok else "it broke")
    assert job.context is not None
    assert job.context.trace_id == trace_id_of("mine") != trace_id_of("other")


async def test_without_the_extra_a_named_collector_is_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(traces, "find_spec", lambda name: None)
    app = web.Application()
    app[SETTINGS] = Settings.model_validate({"traces": "http://c:4318"})
    with pytest.raises(BadValue, match=r"traces: 'http://c:4318'.*pip install 'sigmagraph\[otel\]'"):
        await anext(traces.trace_jobs(app))
