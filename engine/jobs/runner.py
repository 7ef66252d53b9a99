"""One task from prompt to end, where the nodes are. The same in every kind of worker."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.errors import Cancelled, EngineError, InvalidWorkflow
from engine.execution import events as run_events
from engine.execution.instances import Instances
from engine.execution.result import RunResult
from engine.execution.run import execute
from engine.graph.document import parse_workflow
from engine.graph.plan import plan
from engine.graph.problems import Problem
from engine.graph.validate import validate
from engine.jobs.declare import declarations
from engine.jobs.events import Body
from engine.jobs.job import Failure, Outcome, State
from engine.jobs.records import plain
from engine.jobs.worker import Finished, Picture, Setup, Task

__all__ = ["Runner"]

Tell = Callable[[Body, Picture | None], None]
LAST = run_events.RunSucceeded | run_events.RunFailed | run_events.RunCancelled


class Runner:
    """The nodes of one setup, ready to run tasks and to answer questions."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._instances = Instances()

    def run(self, task: Task, tell: Tell, is_cancelled: Callable[[], bool]) -> Finished:
        """Run a task; `tell` hears of everything but the last event, which is part of the result."""
        run = _Run(self.setup, tell)
        try:
            result = self._execute(task, run, is_cancelled)
        except EngineError as error:  # not a node's failure: the workflow no longer fits the nodes, say
            return run.finished(State.FAILED, Failure(error.code, str(error)))
        return run.ended(result)

    def answer(self, question: str, values: Mapping[str, Any]) -> Any:
        """What only node code knows, as JSON values."""
        match question:
            case "nodes":
                return declarations(self.setup.nodes.values(), self.setup.services(values["owner"]))
            case "check":
                return self._check(values["prompt"], values["targets"], values["owner"])
            case "free":
                return self.setup.free(values["unload_models"], values["free_memory"])
            case "stats":
                return plain(self.setup.stats())
        raise AssertionError(f"no such question: {question!r}")

    def _execute(self, task: Task, run: "_Run", is_cancelled: Callable[[], bool]) -> RunResult:
        services = self.setup.services(task.owner)
        graph = validate(parse_workflow(dict(task.prompt)), self.setup.nodes, services, task.targets or None)
        return execute(
            plan(graph, services),
            services,
            self.setup.cache,
            run.hear,
            cancelled=is_cancelled,
            extra_data=task.extra_data,
            instances=self._instances,
            around=self.setup.around,
        )

    def _check(self, prompt: Mapping[str, Any], targets: Sequence[str] | None, owner: str) -> dict[str, Any]:
        try:
            graph = validate(parse_workflow(dict(prompt)), self.setup.nodes, self.setup.services(owner), targets)
        except InvalidWorkflow as problem:
            problems = [each for each in problem.problems if isinstance(each, Problem)]
            return {"roots": [], "problems": [_problem(each) for each in problems]}
        return {"roots": list(graph.roots), "problems": [_problem(each) for each in graph.problems]}


class _Run:
    """What one run said so far."""

    def __init__(self, setup: Setup, tell: Tell) -> None:
        self._setup, self._tell = setup, tell
        self._tail: list[Body] = []
        self._shown: dict[str, str] = {}
        self._parents: dict[str, str] = {}

    def hear(self, event: run_events.Event) -> None:
        """Pass an event on; keep the last one back."""
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
        self._tell(event, self._picture(event))

    def ended(self, result: RunResult) -> Finished:
        """The end as the run gave it."""
        if result.error is None:
            return self.finished(State.SUCCEEDED, None, result)
        if isinstance(result.error, Cancelled):
            return self.finished(State.CANCELLED, None, result)
        failed = next((each for each in self._tail if isinstance(each, run_events.RunFailed)), None)
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
