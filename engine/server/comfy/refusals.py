"""Problems of a workflow as the error bodies of `POST /prompt`. Types are ComfyUI's; the words are ours."""

from collections.abc import Mapping, Sequence
from typing import Any

from sigmagraph.engine.graph.node import Node
from sigmagraph.engine.graph.problems import LONGEST_LIST, Problem
from sigmagraph.engine.graph.workflow import Link, Workflow

__all__ = ["node_errors", "refusal", "whole_error"]

WHOLE = ("invalid_prompt", "prompt_no_outputs")


def whole_error(kind: str, message: str, details: str = "", **extra: Any) -> dict[str, Any]:
    """The body of a refusal of the whole prompt."""
    error = {"type": kind, "message": message, "details": details, "extra_info": extra}
    return {"error": error, "node_errors": {}}


def refusal(problems: Sequence[Problem], workflow: Workflow, nodes: Mapping[str, Node]) -> dict[str, Any]:
    """The 400 body for a workflow nothing of which can run."""
    for code in WHOLE:
        problem = next((candidate for candidate in problems if candidate.code == code), None)
        if problem is not None and (code == "invalid_prompt" or len(problems) == 1):
            details = f"Node ID '#{problem.node_id}'" if problem.node_id is not None else ""
            hint = f"; did you mean {problem.nearest!r}?" if problem.nearest else ""
            extra = {"node_id": problem.node_id, "class_type": problem.class_type} if details else {}
            return whole_error(code, problem.message + hint, details, **extra)
    listed = node_errors(problems, workflow, nodes)
    lines = [
        f"{error['message']}: {error['details']}"
        for node in listed.values()
        if node["class_type"] in nodes and nodes[node["class_type"]].output_node
        for error in node["errors"]
    ]
    body = whole_error("prompt_outputs_failed_validation", "no output of the prompt can run", "\n".join(lines))
    return body | {"node_errors": listed}


def node_errors(problems: Sequence[Problem], workflow: Workflow, nodes: Mapping[str, Node]) -> dict[str, Any]:
    """The nodes that have errors of their own, each with the outputs that depend on it."""
    listed: dict[str, Any] = {}
    outputs = {i for i, written in workflow.nodes.items() if _is_output(written.class_type, nodes)}
    consumers = _consumers(workflow)
    for problem in problems:
        if problem.node_id is None:
            continue
        entry = listed.get(problem.node_id)
        if entry is None:
            dependent = sorted(_behind(problem.node_id, consumers) & outputs)
            head: dict[str, Any] = {"class_type": problem.class_type, "dependent_outputs": dependent}
            entry = listed[problem.node_id] = head | {"errors": []}
        entry["errors"] += _errors(problem, problem.node_id in outputs, nodes)
    return listed


def _errors(problem: Problem, is_output: bool, nodes: Mapping[str, Node]) -> list[dict[str, Any]]:
    """One error, or, where a class's own check refused, one for each input that it looked at."""
    if problem.code != "custom_validation_failed" or not isinstance(problem.received, Mapping):
        return [_error(problem, is_output)]
    answer = problem.extra.get("answer")
    node = nodes.get(problem.class_type or "")
    declared = node.declared if node is not None else {}
    return [
        {
            "type": problem.code,
            "message": problem.message,
            "details": name if answer is None else f"{name} - {answer}",
            "extra_info": {
                "input_name": name,
                "input_config": [declared[name].type, dict(declared[name].options)] if name in declared else None,
                "received_value": value,
            },
        }
        for name, value in problem.received.items()
    ] or [_error(problem, is_output)]


def _error(problem: Problem, is_output: bool) -> dict[str, Any]:
    kind, name = _kind(problem, is_output), problem.input
    hint = f"; did you mean {problem.nearest!r}?" if problem.nearest else ""
    extra: dict[str, Any] = {} if name is None else {"input_name": name}
    if problem.declared is not None and name is not None and kind != "required_input_missing":
        extra["input_config"] = problem.declared if not _is_long(problem) else None
        extra["received_value"] = problem.received
    extra |= problem.extra
    if kind.startswith("exception_during"):
        message = str(problem)
        extra |= {"exception_message": message, "exception_type": "UnknownName", "traceback": []}
        return {"type": kind, "message": problem.message + hint, "details": message, "extra_info": extra}
    return {"type": kind, "message": problem.message + hint, "details": _details(problem), "extra_info": extra}


def _kind(problem: Problem, is_output: bool) -> str:
    """The wire's type. A well-formed link that leads nowhere is an exception there, told apart by where it sits."""
    is_link = isinstance(problem.received, list | tuple) and len(problem.received) == 2
    if problem.code == "bad_linked_input" and is_link:
        return "exception_during_validation" if is_output else "exception_during_inner_validation"
    return problem.code


def _details(problem: Problem) -> str:
    """The line clients show after the message; its form depends on the type."""
    name = problem.input or ""
    match problem.code:
        case "return_type_mismatch":
            return f"{name}, received_type({problem.received}) mismatch input_type({problem.allowed})"
        case "invalid_input_type":
            return f"{name}, {problem.received}, {problem.extra.get('exception_message', '')}"
        case "value_not_in_list":
            listed = f"(list of length {len(problem.allowed)})" if _is_long(problem) else str(problem.allowed)
            return f"{name}: '{problem.received}' not in {listed}"
        case "custom_validation_failed":
            return problem.message
        case _:
            return name


def _is_long(problem: Problem) -> bool:
    return problem.code == "value_not_in_list" and len(problem.allowed or ()) > LONGEST_LIST


def _is_output(class_type: str, nodes: Mapping[str, Node]) -> bool:
    return class_type in nodes and nodes[class_type].output_node


def _consumers(workflow: Workflow) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for node_id, written in workflow.nodes.items():
        for value in written.inputs.values():
            if isinstance(value, Link):
                found.setdefault(value.source, []).append(node_id)
    return found


def _behind(node_id: str, consumers: Mapping[str, Sequence[str]]) -> set[str]:
    """The node and everything that depends on it."""
    seen, waiting = {node_id}, [node_id]
    while waiting:
        fresh = [consumer for consumer in consumers.get(waiting.pop(), ()) if consumer not in seen]
        seen.update(fresh)
        waiting += fresh
    return seen
