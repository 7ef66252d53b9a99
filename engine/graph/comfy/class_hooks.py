"""The checks and fingerprints a node class brings itself: which arguments they get, and what their answers mean."""

import asyncio
import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import current_thread, main_thread
from typing import Any

from sigmagraph.engine.graph.node import Node
from sigmagraph.engine.graph.problems import Problem
from sigmagraph.engine.graph.workflow import Link


def run_validator(
    node_id: str, node: Node, given: Mapping[str, Any], received_types: Mapping[str, Any]
) -> list[Problem]:
    """Ask the class; linked inputs arrive as None. Anything but True is one problem that names the arguments."""
    assert node.validator is not None
    try:
        arguments = hook_arguments(node.validator, node, node_id, given)
        if "input_types" in inspect.signature(node.validator).parameters:
            arguments["input_types"] = [dict(received_types)] if takes_lists(node) else dict(received_types)
        answer = call_now(node.validator, arguments)
    except Exception as error:  # noqa: BLE001  # whatever a pack raises is its answer, and the worker lives on
        kind = type(error).__qualname__
        message = f"validation raised {kind}: {error}"
        code = "exception_during_validation"
        return [Problem(code, message, node_id, node.class_type, extra={"exception_type": kind})]
    if answer is True:
        return []
    named = [name for name in arguments if name in given]
    reason = "" if answer is False else f": {answer}"
    where = named[0] if len(named) == 1 else None
    return [
        Problem(
            "custom_validation_failed",
            f"refused by the node's own check of {', '.join(named) or 'its inputs'}{reason}",
            node_id,
            node.class_type,
            where,
            received={name: arguments[name][0] if takes_lists(node) else arguments[name] for name in named},
            extra={} if answer is False else {"answer": str(answer)},
        )
    ]


def hook_arguments(hook: Callable[..., Any], node: Node, node_id: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by name among the inputs present and the hidden ones; `**kwargs` takes all.

    A class of a pack that takes whole lists is given lists here too.
    """
    hidden = {wanted.name: hidden_before_running(wanted.type, node_id) for wanted in node.group("hidden")}
    present = {name: None if type(value) is Link else value for name, value in given.items()} | hidden
    if takes_lists(node):
        present = {name: [value] for name, value in present.items()}
    parameters = inspect.signature(hook).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return present
    return {name: value for name, value in present.items() if name in parameters}


def takes_lists(node: Node) -> bool:
    """Whether it is a pack's class whose function and checks are called with whole lists."""
    return node.input_is_list and not node.is_trusted


def hidden_before_running(tag: str, node_id: str) -> Any:
    """Before anything runs only the id and an empty prompt are known."""
    return {"UNIQUE_ID": node_id, "PROMPT": {}}.get(tag)


def call_now(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Call a function that may be async, and wait; a loop that is already running here is left alone.

    What is no `Exception` becomes one: an exit would end the thread, and nobody would hear how the job ended.
    """
    try:
        return _answered(function, arguments)
    except KeyboardInterrupt as error:  # a user's, where the check is made on the main thread
        if current_thread() is main_thread():
            raise
        raise RuntimeError(f"it ended with KeyboardInterrupt: {error}") from error
    except BaseException as error:
        if isinstance(error, Exception):
            raise
        raise RuntimeError(f"it ended with {type(error).__name__}: {error}") from error


def _answered(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    answer = function(**arguments)
    if not inspect.isawaitable(answer):
        return answer

    async def wait() -> Any:
        return await answer

    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, wait()).result()
