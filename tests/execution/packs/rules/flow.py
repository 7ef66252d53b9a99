# ruff: noqa: N802, RUF012  # the convention's own names and class attributes
"""Classes for lists, lazy inputs, blockers, expansion and async calls."""

import asyncio
from typing import Any

from comfy.comfy_types.node_typing import IO
from comfy_api.v0_0_2 import ComfyAPISync
from comfy_execution.graph import ExecutionBlocker
from comfy_execution.graph_utils import GraphBuilder, is_link

from .basics import CALLS


class Range:
    """A list of numbers, one element each."""

    RETURN_TYPES = ("INT",)
    OUTPUT_IS_LIST = (True,)
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"start": ("INT", {}), "count": ("INT", {})}}

    def go(self, start: int, count: int) -> tuple[list[int]]:
        return (list(range(start, start + count)),)


class Pair:
    """Two values as a text."""

    RETURN_TYPES = ("STRING",)
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"a": (IO.ANY, {}), "b": (IO.ANY, {})}, "optional": {"c": (IO.ANY, {})}}

    def go(self, a: Any, b: Any, c: Any = None) -> dict[str, Any]:
        CALLS.append(("Pair", (a, b, c)))
        text = f"{a}-{b}" + ("" if c is None else f"-{c}")
        return {"ui": {"pairs": [text]}, "result": (text,)}


class Gather:
    """Whole lists at once."""

    RETURN_TYPES = ("STRING",)
    INPUT_IS_LIST = True
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"values": (IO.ANY, {}), "sep": ("STRING", {"default": ","})},
            "hidden": {"me": "UNIQUE_ID"},
        }

    def go(self, values: list[Any], sep: list[str], me: list[str]) -> tuple[str]:
        return (sep[0].join(map(str, values)) + f"@{me[0]}x{len(sep)}",)


class Switch:
    """Lazy: evaluates only the side it needs."""

    RETURN_TYPES = (IO.ANY,)
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        sides = {"yes": (IO.ANY, {"lazy": True}), "no": (IO.ANY, {"lazy": True})}
        return {"required": {"which": ("BOOLEAN", {}), **sides}}

    def check_lazy_status(self, which: bool, yes: Any = None, no: Any = None) -> list[str]:
        CALLS.append(("check_lazy_status", (which, yes, no)))
        return ["yes"] if which else ["no"]

    def go(self, which: bool, yes: Any = None, no: Any = None) -> tuple[Any]:
        CALLS.append(("Switch", (which, yes, no)))
        return (yes if which else no,)


class LazyWithoutQuestion:
    """Declares a lazy input and never asks for it."""

    RETURN_TYPES = (IO.ANY,)
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": (IO.ANY, {"lazy": True})}}

    def go(self, value: Any) -> tuple[Any]:
        return (value,)


class LazyWrong:
    """Asks for an input that does not exist."""

    RETURN_TYPES = (IO.ANY,)
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": (IO.ANY, {"lazy": True})}}

    def check_lazy_status(self, value: Any) -> list[str]:
        return ["valu"]

    def go(self, value: Any) -> tuple[Any]:
        return (value,)


class Block:
    """Blocks odd numbers."""

    RETURN_TYPES = ("INT", "STRING")
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {}), "message": ("STRING", {"default": ""})}}

    def go(self, value: int, message: str) -> Any:
        return ExecutionBlocker(message or None) if value % 2 else (value, str(value))


class Twice:
    """Expands into two additions behind each other."""

    RETURN_TYPES = ("INT",)
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {})}}

    def go(self, value: int) -> dict[str, Any]:
        CALLS.append(("Twice", value))
        graph = GraphBuilder()
        first = graph.node("Add", a=value, b=1)
        second = graph.node("Add", a=first.out(0), b=1)
        return {"result": (second.out(0),), "expand": graph.finalize()}


class ShowInside:
    """Expands into an output node, and hands on a value beside it."""

    RETURN_TYPES = ("INT", "INT")
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {})}}

    def go(self, value: int) -> dict[str, Any]:
        graph = GraphBuilder()
        graph.node("P.Report", value=value)
        numbers = graph.node("P.Range", start=value, count=3)
        return {"result": (numbers.out(0), 7), "expand": graph.finalize()}


class Countdown:
    """A loop: expands into itself until the count is zero."""

    RETURN_TYPES = ("INT", "INT")
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"count": ("INT", {}), "total": ("INT", {"default": 0})},
            "hidden": {"me": "UNIQUE_ID", "all": "DYNPROMPT"},
        }

    def go(self, count: int, total: int, me: str, all: Any) -> Any:
        assert all.has_node(me)
        if count == 0:
            return (total, all.get_real_node_id(me))
        graph = GraphBuilder()
        more = graph.node("Add", a=total, b=count)
        again = graph.node("P.Countdown", count=count - 1, total=more.out(0))
        return {"result": (again.out(0), again.out(1)), "expand": graph.finalize()}


class Expands:
    """Expands into what it is told to."""

    RETURN_TYPES = ("INT",)
    FUNCTION = "go"
    graph: Any = {}
    result: Any = ()

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}, "optional": {"value": ("INT", {"rawLink": True, "forceInput": True})}}

    def go(self, value: Any = None) -> dict[str, Any]:
        CALLS.append(("Expands", (value, is_link(value))))
        return {"expand": type(self).graph, "result": type(self).result}


class AsyncAdd:
    """Waits, then adds."""

    RETURN_TYPES = ("INT",)
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"a": ("INT", {}), "milliseconds": ("INT", {"default": 0})}}

    async def go(self, a: int, milliseconds: int) -> tuple[int]:
        CALLS.append(("AsyncAdd begins", a))
        try:
            await asyncio.sleep(milliseconds / 1000)
        except asyncio.CancelledError:
            CALLS.append(("AsyncAdd cancelled", a))
            raise
        if a < 0:
            raise ValueError("negative")
        CALLS.append(("AsyncAdd ends", a))
        return (a + 1,)


class Reports:
    """Reports progress by the versioned API."""

    RETURN_TYPES = ("INT",)
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"steps": ("INT", {})}}

    def go(self, steps: int) -> tuple[int]:
        api = ComfyAPISync()
        for step in range(steps):
            api.execution.set_progress(step + 1, steps)
        return (steps,)


KINDS = (
    Range,
    Pair,
    Gather,
    Switch,
    LazyWithoutQuestion,
    LazyWrong,
    Block,
    Twice,
    ShowInside,
    Countdown,
    Expands,
    AsyncAdd,
    Reports,
)
FLOW = {f"P.{kind.__name__}": kind for kind in KINDS}
