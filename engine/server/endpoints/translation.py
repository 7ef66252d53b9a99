"""What a graph refuses, in the words of the request that was put into it. Knows no HTTP."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sigmagraph.engine.errors import EngineError, InvalidWorkflow
from sigmagraph.engine.graph.problems import Problem
from sigmagraph.engine.server.endpoints.endpoint import Endpoint
from sigmagraph.engine.server.endpoints.values import Fault, InvalidValues

__all__ = ["GraphCannotRun", "MissingWeights", "translated"]


class MissingWeights(EngineError):
    """Weight files are not there; the message names each with the command that brings it."""

    code = "weights_missing"

    def __init__(self, commands: Mapping[str, str]) -> None:
        self.missing = list(commands)
        super().__init__("; ".join(f"{name} is missing; `{command}` brings it" for name, command in commands.items()))


class GraphCannotRun(EngineError):
    """The published graph itself is wrong: no request can mend it."""

    code = "invalid_workflow"


def translated(endpoint: Endpoint, invalid: InvalidWorkflow) -> EngineError:
    """The same refusal about weight files and parameters, where it is about them."""
    problems = [problem for problem in invalid.problems if isinstance(problem, Problem)]
    weights = endpoint.manifest.weights
    missing = {
        str(problem.received): weights[str(problem.received)]
        for problem in problems
        if str(problem.received) in weights
    }
    if missing:
        return MissingWeights(missing)
    faults = [fault for problem in problems if (fault := _fault(endpoint, problem)) is not None]
    return InvalidValues(faults) if faults else GraphCannotRun(f"The published graph cannot run: {invalid}")


def _fault(endpoint: Endpoint, problem: Problem) -> Fault | None:
    name = endpoint.parameter_at(problem.node_id, problem.input)
    if name is None:
        return None
    return Fault(
        problem.code, name, f"{name}: {problem.message}", problem.received, _plain(problem.allowed), problem.nearest
    )


def _plain(allowed: Any) -> Any:
    """Bounds as JSON can hold them."""
    if isinstance(allowed, Sequence) and not isinstance(allowed, str):
        return [None if isinstance(value, float) and not math.isfinite(value) else value for value in allowed]
    return dict(allowed) if isinstance(allowed, Mapping) else allowed
