"""Traces of jobs by OpenTelemetry: job -> node -> step, made from the events of the job layer and sent by OTLP/HTTP.

Every span has the time its event was stored with, so a trace costs a run nothing. The trace of a job has the job's
UUID as its id: who knows the one finds the other.
"""

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Span, Status, StatusCode

from sigmagraph.engine.execution import events as run
from sigmagraph.engine.jobs.events import Ended, JobEvent, Preview, Queued, Requeued, Started
from sigmagraph.engine.jobs.job import State

__all__ = ["JobTraces", "by_otlp", "trace_id_of"]

PATH = "/v1/traces"
MOST_NODES = 100_000
"""Open nodes kept in mind, all jobs together; those of further ones are left out of their trace."""


def by_otlp(address: str) -> SpanProcessor:
    """Sends spans in batches to a collector's address, such as http://127.0.0.1:4318; OTEL_* variables count."""
    whole = address if address.endswith(PATH) else address.rstrip("/") + PATH
    return BatchSpanProcessor(OTLPSpanExporter(whole))


def trace_id_of(job_id: str) -> int:
    """The 128 bits of the job's UUID; of its digest where it is called otherwise. Never 0, which stands for none."""
    try:
        number = uuid.UUID(job_id).int
    except ValueError:
        number = int.from_bytes(hashlib.sha256(job_id.encode()).digest()[:16], "big")
    return number or 1


class _Ids(RandomIdGenerator):
    """Trace ids that were chosen, one after the other."""

    trace_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id or super().generate_trace_id()


@dataclass(slots=True)
class _Node:
    """A node under way: its span, and where its last step ended."""

    span: Span
    at_ns: int
    value: float = 0.0


@dataclass(slots=True)
class _Job:
    """A job under way."""

    span: Span
    attempt: int = 1
    nodes: dict[str, _Node] = field(default_factory=dict)


class JobTraces:
    """Hears the events of the job layer and keeps a span for all that is under way."""

    def __init__(self, processor: SpanProcessor) -> None:
        """`processor` takes the spans, which come when they end."""
        self._ids = _Ids()
        own = Resource.create({"service.name": "sigmagraph", "service.version": version("sigmagraph")})
        self._provider = TracerProvider(id_generator=self._ids, resource=own)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("sigmagraph.jobs")
        self._jobs: dict[str, _Job] = {}
        self._nodes = 0

    def stop(self) -> None:
        """Send what has ended and close; waits for the collector, so off the event loop."""
        self._provider.shutdown()

    def heard(self, event: JobEvent | Preview) -> None:
        """Begin or end what the event begins or ends."""
        if isinstance(event, Preview):
            return
        at_ns = round(event.at * 1e9)
        job = self._jobs.get(event.job_id)
        if job is None:  # its first event, or the first since this server started
            job = self._jobs[event.job_id] = self._begin_job(event, at_ns)
        match event.body:
            case Queued():
                job.span.add_event("queued", timestamp=at_ns)
            case Started(attempt=attempt, worker=worker):
                job.attempt = attempt
                job.span.add_event("started", {"attempt": attempt, "worker": worker}, at_ns)
            case Requeued(attempt=attempt, reason=reason):
                self._break_off(job, at_ns, f"attempt {attempt} was lost: {reason}")
                job.span.add_event("requeued", {"attempt": attempt, "reason": reason}, at_ns)
            case Ended(state=state, failure=failure):
                self._end(event.job_id, state, failure.message if failure is not None else "", at_ns)
            case _:
                self._ran(job, event.body, at_ns)

    def _ran(self, job: _Job, body: Any, at_ns: int) -> None:
        """What happened inside a run."""
        match body:
            case run.RunStarted(cached=cached) if cached:
                job.span.add_event("cached", {"nodes": list(cached)}, at_ns)
            case run.NodeStarted(node_id=name) if self._nodes < MOST_NODES:
                facts = {"node.id": name, "node.class_type": body.class_type, "node.attempt": job.attempt}
                span = self._begin(body.class_type, job.span, at_ns, facts)
                job.nodes[name] = _Node(span, at_ns)
                self._nodes += 1
            case run.NodeProgress(node_id=name) if name in job.nodes:
                self._stepped(job.nodes[name], body, at_ns)
            case run.NodeFinished(node_id=name) if name in job.nodes:
                node = self._take(job, name)
                node.span.set_attribute("sigmagraph.node.milliseconds", body.milliseconds)
                node.span.end(at_ns)
            case run.NodeFinished():
                job.span.add_event("cached", {"node": body.node_id, "source": body.source}, at_ns)
            case run.RunFailed(node_id=name):
                raised = {"exception.type": body.exception_type, "exception.message": body.message}
                if name in job.nodes:
                    job.nodes[name].span.add_event("exception", raised, at_ns)
                self._break_off(job, at_ns, body.message)
            case run.RunCancelled():
                self._break_off(job, at_ns, "cancelled")

    def _stepped(self, node: _Node, body: run.NodeProgress, at_ns: int) -> None:
        """A span from the last progress to this one; it covers several steps where not each was told."""
        if body.value > node.value:
            facts = {"step.from": node.value, "step.to": body.value, "step.of": body.maximum}
            self._begin("step", node.span, node.at_ns, facts).end(at_ns)
        node.value, node.at_ns = body.value, at_ns

    def _break_off(self, job: _Job, at_ns: int, why: str) -> None:
        """End the nodes under way with an error."""
        for name in list(job.nodes):
            span = self._take(job, name).span
            span.set_status(Status(StatusCode.ERROR, why))
            span.end(at_ns)

    def _end(self, job_id: str, state: State, why: str, at_ns: int) -> None:
        job = self._jobs.pop(job_id)
        self._break_off(job, at_ns, str(state))
        job.span.set_attributes({"sigmagraph.job.state": str(state), "sigmagraph.job.attempts": job.attempt})
        if state is State.FAILED:
            job.span.set_status(Status(StatusCode.ERROR, why))
        job.span.end(at_ns)

    def _take(self, job: _Job, name: str) -> _Node:
        self._nodes -= 1
        return job.nodes.pop(name)

    def _begin(self, name: str, parent: Span | None, at_ns: int, facts: Mapping[str, Any]) -> Span:
        attributes = {f"sigmagraph.{key}": value for key, value in facts.items()}
        within = trace.set_span_in_context(parent if parent is not None else trace.INVALID_SPAN)
        return self._tracer.start_span(name, within, attributes=attributes, start_time=at_ns)

    def _begin_job(self, event: JobEvent, at_ns: int) -> _Job:
        self._ids.trace_id = trace_id_of(event.job_id)
        facts = {"job.id": event.job_id, "job.owner": event.owner}
        return _Job(self._begin("job", None, at_ns, facts))
