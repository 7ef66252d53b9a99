"""How far a job is and what it has shown, from its events: a snapshot needs no more than the log."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sigmagraph.engine.execution import events as run
from sigmagraph.engine.graph.workflow import as_link
from sigmagraph.engine.jobs.events import JobEvent, Started
from sigmagraph.engine.jobs.job import Job
from sigmagraph.engine.jobs.protocol import Jobs

__all__ = ["Snapshot", "needed", "snapshot_of"]

MOST_EVENTS = 100_000
AT_ONCE = 1000


@dataclass
class Snapshot:
    """The state of one attempt. `shown` is what each node shows, in the order they ended."""

    nodes: frozenset[str]
    done: set[str] = field(default_factory=set)
    node: str | None = None
    node_class: str | None = None
    step: float = 0.0
    steps: float = 0.0
    shown: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, job: Job) -> "Snapshot":
        """The snapshot before any event."""
        request = job.request
        return cls(needed(request.prompt, request.targets) if request is not None else frozenset())

    def take(self, event: JobEvent) -> None:
        """Go on by one event; a new attempt begins anew."""
        match event.body:
            case Started():
                self.done, self.node, self.step, self.steps, self.shown = set(), None, 0.0, 0.0, {}
            case run.RunStarted(cached=cached):
                self.done |= self.nodes & set(cached)
            case run.NodeStarted(node_id=node_id, class_type=class_type, display_id=shown):
                self.node, self.node_class, self.step, self.steps = shown or node_id, class_type, 0.0, 0.0
            case run.NodeProgress(value=value, maximum=maximum):
                self.step, self.steps = value, maximum
            case run.NodeFinished(node_id=node_id, ui=ui):
                self.done |= self.nodes & {node_id}
                self.step = self.steps = 0.0
                if ui:
                    self.shown[node_id] = ui
            case _:
                pass

    def wire(self) -> dict[str, Any]:
        """The snapshot in the protocol's form: nodes done and the running one's share of the rest."""
        total, done = len(self.nodes), len(self.done)
        share = self.step / self.steps if self.steps else 0.0
        found: dict[str, Any] = {
            "value": min(1.0, max(0.0, (done + min(share, 1.0)) / total)) if total else 0.0,
            "nodes_done": done,
            "nodes_total": total,
        }
        if self.node is not None:
            found |= {"current_node": self.node, "current_node_class": self.node_class}
        if self.steps:
            step, steps = int(self.step), int(self.steps)
            found |= {"step": step, "steps": steps, "message": f"{self.node_class} {step}/{steps}"}
        return found


def needed(prompt: Mapping[str, Any], targets: Iterable[str]) -> frozenset[str]:
    """The nodes that the targets ask for."""
    found: set[str] = set()
    waiting = [target for target in targets if target in prompt]
    while waiting:
        node_id = waiting.pop()
        if node_id not in found:
            found.add(node_id)
            links = map(as_link, (prompt[node_id].get("inputs") or {}).values())
            waiting += [link.source for link in links if link is not None and link.source in prompt]
    return frozenset(found)


async def snapshot_of(jobs: Jobs, job: Job) -> Snapshot:
    """How far a job is, read from its log."""
    snapshot, after = Snapshot.of(job), 0
    while after < MOST_EVENTS:
        events = await jobs.events(job.id, job.owner, after=after, limit=AT_ONCE)
        for event in events:
            snapshot.take(event)
        if len(events) < AT_ONCE:
            break
        after = events[-1].number
    return snapshot
