"""One task from prompt to end, where the nodes are. The same in every kind of worker."""

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from threading import Event, Lock, Thread
from typing import Any

from sigmagraph.engine.errors import Cancelled, EngineError, InvalidWorkflow
from sigmagraph.engine.execution import events as run_events
from sigmagraph.engine.execution.lanes.scheduler import Scheduler
from sigmagraph.engine.execution.lanes.ticket import Ticket
from sigmagraph.engine.execution.result import RunResult
from sigmagraph.engine.graph.graph import Graph
from sigmagraph.engine.graph.node import Services
from sigmagraph.engine.graph.plan import plan
from sigmagraph.engine.graph.problems import Problem
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.source import PACKS
from sigmagraph.engine.graph.validate import validate
from sigmagraph.engine.jobs.event_json import plain
from sigmagraph.engine.jobs.events import Body
from sigmagraph.engine.jobs.job import Failure, Outcome, State
from sigmagraph.engine.jobs.workers.checked_graphs import CheckedGraphs
from sigmagraph.engine.jobs.workers.declare import declarations
from sigmagraph.engine.jobs.workers.worker import Finished, JobAttempt, Picture, Setup

__all__ = ["Runner"]

LOG = logging.getLogger("sigmagraph.jobs")
MOST_JOBS = 256
"""More than any front hands over: how many run at once is its `slots`."""
GATHER_S = 0.001
"""What a run says within it goes out together: a thread that wakes for each word keeps the others from working."""
Tell = Callable[[Body, Picture | None], None]
Say = Callable[[Callable[[], None]], None]


class Runner:
    """The nodes of one setup, ready to run tasks and to answer questions.

    All tasks share one scheduler. What runs say goes out on a thread of its own: pictures are encoded there, and a
    front that reads slowly does not stop the lanes. `flush` is called whenever nothing more is to be told. How a run
    ended is told by the thread that ran it (`say`), after all that it said and, where that is news still, together
    with it: a short run wakes no other thread for its words.
    """

    def __init__(self, setup: Setup, flush: Callable[[], None] = lambda: None) -> None:
        self.setup, self._flush = setup, flush
        self._scheduler = Scheduler(
            cache=setup.cache,
            host_threads=setup.host_threads,
            batch_evaluations=setup.batch_evaluations,
            most_jobs=MOST_JOBS,
            around=setup.around,
            free=setup.relieve,
        )
        self._checked = CheckedGraphs()
        self._lock = Lock()
        self._tickets: dict[str, Ticket] = {}
        self._to_stop: set[str] = set()
        self._outbox: deque[Callable[[], None]] = deque()
        self._sending, self._has_news, self._is_closing = Lock(), Event(), Event()
        self._sender = Thread(target=self._send_all, name="sender", daemon=True)
        self._sender.start()

    def run(self, task: JobAttempt, tell: Tell) -> Finished:
        """Run a task to its end; `tell` hears, later, of all but the last event, which is part of the result."""
        run = _Run(self.setup, tell, self._later, self.say)
        try:
            result = self._execute(task, run)
        except EngineError as error:  # not a node's failure: the workflow no longer fits the nodes, say
            return run.finished(State.FAILED, Failure(error.code, str(error)))
        finally:
            with self._lock:
                self._tickets.pop(task.job_id, None)
                self._to_stop.discard(task.job_id)
        return run.ended(result)

    def say(self, call: Callable[[], None]) -> None:
        """Tell something after what was said so far, now."""
        self._outbox.append(call)
        self._send()

    def stop_job(self, job_id: str) -> None:
        """Stop a task at its next step, or before its first if it was only announced."""
        with self._lock:
            self._to_stop.add(job_id)
            ticket = self._tickets.get(job_id)
        if ticket is not None:
            self._scheduler.withdraw(ticket)

    def forget(self, job_id: str) -> None:
        """A task is over: a stop that came too late is none for its next attempt."""
        with self._lock:
            self._to_stop.discard(job_id)

    def waiting(self) -> list[str]:
        """The tasks that say nothing because others are having their turn."""
        waiting = set(self._scheduler.waiting())
        with self._lock:
            return [job_id for job_id, ticket in self._tickets.items() if ticket in waiting]

    def close(self) -> None:
        """Cancel what runs, stop the threads, write the cache."""
        self._scheduler.close()
        self._is_closing.set()
        self._has_news.set()
        self._sender.join()

    def answer(self, question: str, values: Mapping[str, Any]) -> Any:
        """What only node code knows, as JSON values."""
        match question:
            case "nodes":
                return declarations(self.setup.nodes.values(), self.setup.services(values["owner"]))
            case "check":
                return self._check(**values)
            case "show":
                return self._show(**values)
            case "free":
                return self.setup.free(values["unload_models"], values["free_memory"])
            case "stats":
                return plain({**self.setup.stats(), **self.setup.counts()})
            case "counts":
                return plain(self.setup.counts())
        raise AssertionError(f"no such question: {question!r}")

    def _execute(self, task: JobAttempt, run: "_Run") -> RunResult:
        services = self.setup.services(task.owner)
        graph = self._checked.take(task) or self._graph(task.prompt, services, task.targets or None)
        made = plan(graph, services)
        ticket = self._scheduler.submit(
            made,
            run.hear,
            priority=task.priority,
            extra_data=task.extra_data,
            services=services,
            reuses_outputs=task.reuses_outputs,
        )
        with self._lock:
            self._tickets[task.job_id] = ticket
            is_to_stop = task.job_id in self._to_stop
        if is_to_stop:
            self._scheduler.withdraw(ticket)
        return ticket.wait()

    def _later(self, call: Callable[[], None]) -> None:
        """Have something told after what was said so far, before long."""
        self._outbox.append(call)
        self._has_news.set()

    def _send_all(self) -> None:
        """The sender's work: what a run says goes out a moment later, unless its end took it along."""
        while not self._is_closing.is_set():
            self._has_news.wait()
            self._is_closing.wait(GATHER_S)
            self._send()

    def _send(self) -> None:
        """Tell what is there to be told, in order, whichever thread."""
        with self._sending:
            self._has_news.clear()
            while self._outbox:
                try:
                    self._outbox.popleft()()
                except Exception:  # a preview nobody can encode, a front that is gone: whatever it is, the next is told
                    LOG.exception("what a run said could not be sent")
            self._flush()

    def _check(
        self, prompt: Mapping[str, Any], targets: Sequence[str] | None, owner: str, job_id: str | None = None
    ) -> dict[str, Any]:
        """The roots and problems; of a job that is to follow, the graph is kept for it."""
        try:
            graph = self._graph(prompt, self.setup.services(owner), targets)
        except InvalidWorkflow as problem:
            problems = [found for found in problem.problems if isinstance(found, Problem)]
            return {"roots": [], "problems": [_problem(problem) for problem in problems]}
        if job_id is not None:
            self._checked.keep(job_id, owner, prompt, graph)
        return {"roots": list(graph.roots), "problems": [_problem(problem) for problem in graph.problems]}

    def _show(self, prompt: Mapping[str, Any], owner: str, most_s: float) -> dict[str, Any]:
        """What the output nodes of a graph show, outside of any job; of one that failed, or took too long, why."""
        services = self.setup.services(owner)
        made = plan(self._graph(prompt, services, None), services)
        ticket = self._scheduler.submit(made, lambda event: None, services=services)
        try:
            result = ticket.wait(most_s)
        except TimeoutError:
            self._scheduler.withdraw(ticket)
            return {"problem": f"it takes longer than {most_s:g} s: only a job may", "shown": {}}
        if result.error is not None:
            return {"problem": str(result.error), "shown": {}}
        return {"problem": None, "shown": {node_id: _shown(ui) for node_id, ui in result.ui.items()}}

    def _graph(self, prompt: Mapping[str, Any], services: Services | None, targets: Sequence[str] | None) -> Graph:
        return validate(parse_workflow(dict(prompt)), self.setup.nodes, services, targets)


class _Run:
    """What one run said so far."""

    def __init__(self, setup: Setup, tell: Tell, later: Say, now: Say) -> None:
        self._setup, self._tell, self._later, self._now = setup, tell, later, now
        self._tail: list[Body] = []
        self._shown: dict[str, str] = {}
        self._parents: dict[str, str] = {}

    def hear(self, event: run_events.Event) -> None:
        """Pass an event on, later and elsewhere; keep the last one back."""
        match event:
            case run_events.RunSucceeded() | run_events.RunFailed() | run_events.RunCancelled():
                self._tail.append(event)
                return
            case run_events.NodeStarted() | run_events.NodeFinished():
                self._shown[event.node_id] = event.display_id
            case run_events.NodeExpanded():
                self._parents.update(dict.fromkeys(event.new_ids, event.node_id))
            case _:
                pass
        say = self._now if self._may_end_the_process(event) else self._later
        say(lambda: self._tell(event, self._picture(event)))

    def _may_end_the_process(self, event: run_events.Event) -> bool:
        """A node of others begins: should the process not outlive it, the front has to know which it was."""
        node = self._setup.nodes.get(event.class_type) if isinstance(event, run_events.NodeStarted) else None
        return node is not None and node.module.startswith(PACKS)

    def ended(self, result: RunResult) -> Finished:
        """The end as the run gave it."""
        if result.error is None:
            return self.finished(State.SUCCEEDED, None, result)
        if isinstance(result.error, Cancelled):
            return self.finished(State.CANCELLED, None, result)
        failed = next((event for event in self._tail if isinstance(event, run_events.RunFailed)), None)
        if failed is None:
            return self.finished(State.FAILED, Failure(result.error.code, str(result.error)), result)
        cause = result.error.__cause__
        code = cause.code if isinstance(cause, EngineError) else result.error.code
        failure = Failure(code, str(result.error), failed.node_id, failed.class_type, failed.exception_type)
        return self.finished(State.FAILED, failure, result)

    def finished(self, state: State, failure: Failure | None, result: RunResult | None = None) -> Finished:
        """The end, with what was shown."""
        outcome = self._outcome(result) if result is not None else None
        return Finished(state, failure, outcome, tuple(self._tail))

    def _picture(self, event: run_events.Event) -> Picture | None:
        if not isinstance(event, run_events.NodeProgress) or event.preview is None:
            return None
        return self._setup.encode_preview(event.preview)

    def _outcome(self, result: RunResult) -> Outcome:
        nodes = {
            node_id: {
                "class_type": report.class_type,
                "outcome": report.outcome,
                "milliseconds": report.milliseconds,
                "display_id": self._shown.get(node_id, node_id),
                "parent_id": self._parents.get(node_id),
            }
            for node_id, report in result.nodes.items()
        }
        return Outcome({node_id: _shown(ui) for node_id, ui in result.ui.items()}, nodes)


def _shown(ui: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name): plain(value) for name, value in ui.items()}


def _problem(problem: Problem) -> dict[str, Any]:
    names = ("code", "message", "node_id", "class_type", "input", "received", "allowed", "nearest", "declared", "extra")
    return {name: plain(getattr(problem, name)) for name in names}
