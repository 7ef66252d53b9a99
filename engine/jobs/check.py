"""Validation in the front: against declarations sent by a worker, and by asking one where only it can tell.

That is node code that checks its own inputs, and what weight files need beside them: their headers are read there.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from sigmagraph.engine.errors import EngineError, InvalidWorkflow, NotAccepting, WorkerLost
from sigmagraph.engine.execution.folders import HOLD_ENCODERS
from sigmagraph.engine.graph.graph import Graph
from sigmagraph.engine.graph.node import Node, Services
from sigmagraph.engine.graph.problems import Problem
from sigmagraph.engine.graph.replacements import Replacement, replaced, replacements_of
from sigmagraph.engine.graph.validate import validate
from sigmagraph.engine.graph.workflow import Workflow
from sigmagraph.engine.jobs.job import LOCAL
from sigmagraph.engine.jobs.protocol import Checked
from sigmagraph.engine.jobs.workers.declare import declared
from sigmagraph.engine.jobs.workers.worker import Worker

__all__ = ["Checker"]

SHOW_S = 10.0  # a graph that is shown without a job may have to open a model first
SMALL = 64  # so many nodes are checked in less time than a thread takes to be asked
HEADERS_DEADLINE_S = 3.0  # for what the worker says again when it runs the job
MOST_COMPLETE = 1024

Needs = tuple[frozenset[tuple[str, int, int]], frozenset[str]]
"""Weight files that may hold text encoders, as they are now (path, bytes, time of change), and the graph's classes."""


class Checker:
    """The nodes as data, once a worker has told them; kept while workers come and go."""

    def __init__(
        self,
        workers: Sequence[Worker],
        services: Callable[[str], Services | None],
        deadline_s: float,
        hung_s: float = 900.0,
    ) -> None:
        self._workers, self._services, self._deadline_s, self._hung_s = workers, services, deadline_s, hung_s
        self._silent_since: dict[Worker, float] = {}
        self._complete: dict[Needs, None] = {}
        self._nodes: Mapping[str, Node] = {}
        self._replacements: Mapping[str, Replacement] = {}
        self._reads_files: frozenset[str] = frozenset()
        self._is_declared = asyncio.Event()

    def declare(self, records: Iterable[Mapping[str, Any]]) -> None:
        """A worker sent its declarations."""
        self._silent_since.clear()
        self._nodes = declared(records)
        self._replacements = replacements_of(self._nodes)
        self._reads_files = frozenset(
            name for name, node in self._nodes.items() if any(socket.file is not None for socket in node.inputs)
        )
        self._is_declared.set()

    async def nodes(self, wait_s: float) -> Mapping[str, Node]:
        """The declarations, waiting for the first worker if there was none so far."""
        try:
            await asyncio.wait_for(self._is_declared.wait(), wait_s)
        except TimeoutError as error:
            reasons = (
                "; ".join(f"{worker.name} {worker.status().last_error}" for worker in self._workers) or "there is none"
            )
            raise NotAccepting(f"no worker has told its nodes within {wait_s:g} s: {reasons}") from error
        return self._nodes

    async def current(self, workflow: Workflow, wait_s: float) -> Workflow:
        """The workflow with classes that are gone replaced, where there is something that stands in for them."""
        await self.nodes(wait_s)
        return replaced(workflow, self._replacements)

    async def refresh(self) -> None:
        """Ask again, for nodes whose declarations change; without a worker the old ones stay."""
        worker = self._ready()
        if worker is not None:
            self.declare(await worker.ask("nodes", {"owner": LOCAL}, self._deadline_s))

    async def check(
        self,
        workflow: Workflow,
        targets: Collection[str] | None,
        owner: str,
        wait_s: float,
        job_id: str | None = None,
    ) -> Checked:
        """Validate; raises `InvalidWorkflow` where nothing can run. A job of that id is to follow."""
        nodes = await self.nodes(wait_s)
        written = {node.class_type for node in workflow.nodes.values()}
        if any(name in nodes and nodes[name].validator is not None for name in written):
            return await self._ask(workflow, targets, owner, job_id)
        services = self._services(owner)
        if len(workflow.nodes) <= SMALL and self._reads_files.isdisjoint(written):
            graph = validate(workflow, nodes, services, targets)
            return Checked(tuple(graph.roots), tuple(graph.problems))
        # on a thread: large graphs take their time, and lists of files are read from disk
        graph = await asyncio.to_thread(validate, workflow, nodes, services, targets)
        needs = await asyncio.to_thread(_needs, graph, services)
        if needs is not None and needs not in self._complete and self._ready() is not None:
            with suppress(NotAccepting):  # a worker that is silent now says it when it runs the job
                checked = await self._ask(workflow, targets, owner, job_id, HEADERS_DEADLINE_S)
                if not checked.problems:
                    self._note_complete(needs)
                return checked
        return Checked(tuple(graph.roots), tuple(graph.problems))

    def _note_complete(self, needs: Needs) -> None:
        """The same files under the same classes need no second look; the oldest are forgotten."""
        self._complete[needs] = None
        if len(self._complete) > MOST_COMPLETE:
            del self._complete[next(iter(self._complete))]

    async def show(self, workflow: Workflow, owner: str, wait_s: float) -> Mapping[str, Mapping[str, Any]]:
        """What the output nodes show; raises `InvalidWorkflow`, also where it does not run, or `NotAccepting`."""
        checked = await self.check(workflow, None, owner, wait_s)
        if checked.problems:
            raise InvalidWorkflow(checked.problems)
        worker = self._ready()
        if worker is None:
            raise NotAccepting("no worker is ready to ask")
        try:
            asked = {"prompt": workflow.prompt(), "owner": owner, "most_s": SHOW_S}
            answer = await worker.ask("show", asked, SHOW_S + self._deadline_s)
        except WorkerLost as error:
            raise NotAccepting(f"the worker did not answer: {error}") from error
        if answer["problem"] is not None:
            raise InvalidWorkflow([answer["problem"]])
        shown: Mapping[str, Mapping[str, Any]] = answer["shown"]
        return shown

    async def _ask(
        self,
        workflow: Workflow,
        targets: Collection[str] | None,
        owner: str,
        job_id: str | None,
        deadline_s: float | None = None,
    ) -> Checked:
        """The worker validates the whole, and keeps what it found for the job."""
        worker = self._ready()
        if worker is None:
            raise NotAccepting("the workflow has nodes that check their own inputs, and no worker is ready to ask")
        listed = list(targets) if targets is not None else None
        asked = {"prompt": workflow.prompt(), "targets": listed, "owner": owner, "job_id": job_id}
        asked_at = asyncio.get_running_loop().time()
        try:
            answer = await worker.ask("check", asked, deadline_s or self._deadline_s)
        except WorkerLost as error:
            if isinstance(error.__cause__, TimeoutError):
                self._was_silent(worker, asked_at)
            raise NotAccepting(f"the workflow could not be checked: {error}") from error
        self._silent_since.pop(worker, None)
        problems = [Problem(**problem) for problem in answer["problems"]]
        if not answer["roots"]:
            raise InvalidWorkflow(problems)
        return Checked(tuple(answer["roots"]), tuple(problems))

    def _was_silent(self, worker: Worker, since: float) -> None:
        """A check that hangs keeps every later one waiting, and no job's deadline is missed: it is started anew."""
        since = self._silent_since.setdefault(worker, since)
        if asyncio.get_running_loop().time() - since > self._hung_s:
            del self._silent_since[worker]
            worker.kill(f"answered no question for {self._hung_s:g} s")

    def _ready(self) -> Worker | None:
        return next((worker for worker in self._workers if worker.status().is_ready), None)


def _needs(graph: Graph, services: Services | None) -> Needs | None:
    """What has to be looked at once; None for a graph without files that may hold text encoders."""
    files: set[tuple[str, int, int]] = set()
    for vertex in graph.nodes.values():
        for name, socket in vertex.node.declared.items():
            value = vertex.inputs.get(name)
            if services is None or socket.file is None or socket.file.folder not in HOLD_ENCODERS:
                continue
            with suppress(EngineError, OSError, TypeError):  # the loader says what is wrong with a file
                path = services.path(socket.file.folder, str(value))
                facts = path.stat()
                files.add((str(path), facts.st_size, facts.st_mtime_ns))
    if not files:
        return None
    return frozenset(files), frozenset(vertex.node.class_type for vertex in graph.nodes.values())
