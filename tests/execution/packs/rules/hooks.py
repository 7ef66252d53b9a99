# ruff: noqa: N802  # the convention's own names and class attributes
"""Classes whose questions are async or take everything, lazy inputs over lists, and returns nobody can read."""

import asyncio
from typing import Any

from comfy.comfy_types import IO

from .basics import CALLS


class AsyncHooks:
    """Every function the engine calls is async."""

    RETURN_TYPES = (IO.ANY,)
    FUNCTION = "go"
    OUTPUT_TOOLTIPS = ("what it chose",)
    DEPRECATED = True
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"a": (IO.ANY, {"lazy": True}), "b": (IO.ANY, {"lazy": True}), "pick": ("STRING", {})},
            "hidden": {"me": "UNIQUE_ID", "prompt": "PROMPT", "all": "DYNPROMPT", "info": "EXTRA_PNGINFO"},
        }

    @classmethod
    async def VALIDATE_INPUTS(cls, **given: Any) -> Any:
        await asyncio.sleep(0)
        CALLS.append(("VALIDATE_INPUTS", given))
        return given["pick"] in ("a", "b", "pick", "c")

    @classmethod
    async def IS_CHANGED(cls, **given: Any) -> str:
        await asyncio.sleep(0)
        CALLS.append(("IS_CHANGED", given))
        return "same"

    async def check_lazy_status(self, a: Any, b: Any, pick: str, **hidden: Any) -> list[str]:
        await asyncio.sleep(0)
        CALLS.append(("check_lazy_status", (a, b)))
        return [pick]

    async def go(self, a: Any, b: Any, pick: str, **hidden: Any) -> tuple[Any]:
        await asyncio.sleep(0)
        return (a if pick == "a" else b,)


class LazyGather:
    """Lazy, and takes whole lists."""

    RETURN_TYPES = (IO.ANY,)
    FUNCTION = "go"
    INPUT_IS_LIST = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"first": (IO.ANY, {"lazy": True}), "second": (IO.ANY, {"lazy": True})}}

    def check_lazy_status(self, first: list[Any], second: list[Any]) -> list[str]:
        CALLS.append(("check_lazy_status", (first, second)))
        return ["first"]

    def go(self, first: list[Any], second: list[Any]) -> tuple[Any]:
        return ((first, second),)


class LazyEach:
    """Lazy, asked once per element of a list."""

    RETURN_TYPES = (IO.ANY,)
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"number": ("INT", {}), "other": (IO.ANY, {"lazy": True})}}

    def check_lazy_status(self, number: int, other: Any = None) -> list[str]:
        CALLS.append(("check_lazy_status", (number, other)))
        return ["other", "number"] if number > 1 else []

    def go(self, number: int, other: Any = None) -> tuple[Any]:
        return ((number, other),)


class Nothing:
    """An output node without outputs."""

    RETURN_TYPES = ()
    FUNCTION = "go"
    OUTPUT_NODE = True
    value: Any = None

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"optional": {"value": (IO.ANY, {})}}

    def go(self, value: Any = None) -> Any:
        return type(self).value


class ListOut:
    """A list output that returns what it is told to."""

    RETURN_TYPES = ("INT",)
    OUTPUT_IS_LIST = (True,)
    FUNCTION = "go"
    value: Any = None

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}

    @classmethod
    def IS_CHANGED(cls) -> float:
        return float("nan")

    def go(self) -> Any:
        return type(self).value


class UiEach:
    """Shows other keys in later calls."""

    RETURN_TYPES = ("INT",)
    FUNCTION = "go"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {})}}

    def go(self, value: int) -> dict[str, Any]:
        more = {"later": [value]} if value else {}
        return {"ui": {"numbers": [value], **more}, "result": (value,)}


class ChecksAll:
    """Checks whatever it is given."""

    RETURN_TYPES = ("INT",)
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"size": ("INT", {"min": 0, "max": 4})}}

    @classmethod
    def VALIDATE_INPUTS(cls, **given: Any) -> bool:
        return given["size"] < 100

    def go(self, size: int) -> tuple[int]:
        return (size,)


KINDS = (AsyncHooks, ChecksAll, LazyGather, LazyEach, Nothing, ListOut, UiEach)
HOOKS = {f"P.{kind.__name__}": kind for kind in KINDS}
