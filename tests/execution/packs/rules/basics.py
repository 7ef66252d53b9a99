# ruff: noqa: N802, RUF012  # the convention's own names and class attributes
"""Classes for declarations, hidden inputs, validation, caching and state."""

import time
from typing import Any

from comfy.comfy_types import IO, ComfyNodeABC

CALLS: list[tuple[str, Any]] = []


class Concat:
    """Two texts as one."""

    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("text",)
    FUNCTION = "go"
    CATEGORY = "rules"
    DESCRIPTION = "Puts texts together"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"a": ("STRING", {"default": "x", "multiline": True}), "b": ("STRING", {"forceInput": True})},
            "optional": {"mode": (["plain", "loud"], {"default": "plain"}), "n": ("INT", {"min": 0, "max": 9})},
        }

    def go(self, a: str, b: str, mode: str = "plain", n: int | None = None) -> tuple[str]:
        CALLS.append(("Concat", (a, b, mode, n)))
        text = f"{a}{b}"
        return (text.upper() if mode == "loud" else text,)


class Secrets:
    """Every hidden input."""

    RETURN_TYPES = (IO.ANY,)
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        tags = ("PROMPT", "DYNPROMPT", "EXTRA_PNGINFO", "UNIQUE_ID", "API_KEY_COMFY_ORG")
        return {"hidden": {**{tag.lower(): tag for tag in tags}, "free": "WHATEVER"}}

    def go(self, **hidden: Any) -> tuple[Any]:
        return (hidden,)


class Anything:
    """Takes undeclared inputs as well."""

    RETURN_TYPES = (IO.ANY,)
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"known": (IO.ANY, {})}}

    def go(self, **inputs: Any) -> tuple[Any]:
        return (dict(inputs),)


class State:
    """Counts its own calls."""

    RETURN_TYPES = ("INT",)
    FUNCTION = "go"

    def __init__(self) -> None:
        self.count = 0

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {})}}

    def go(self, value: int) -> tuple[int]:
        self.count += 1
        return (self.count,)


class Changing:
    """IS_CHANGED answers what its input says."""

    RETURN_TYPES = ("INT",)
    FUNCTION = "go"
    answers: list[Any] = []

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {})}, "optional": {"other": ("INT", {"forceInput": True})}}

    @classmethod
    def IS_CHANGED(cls, value: int, other: Any = 0) -> Any:
        CALLS.append(("IS_CHANGED", (value, other)))
        answer = cls.answers[0] if cls.answers else 0
        if answer == "raise":
            raise RuntimeError("no")
        return answer

    def go(self, value: int, other: int = 0) -> tuple[int]:
        CALLS.append(("Changing", value))
        return (value,)


class Checked:
    """Refuses by its own rules."""

    RETURN_TYPES = ("STRING",)
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"name": (["a", "b"], {}), "size": ("INT", {"min": 0, "max": 4}), "link": ("STRING", {})},
            "hidden": {"me": "UNIQUE_ID"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, name: str, link: Any, me: str) -> Any:
        CALLS.append(("VALIDATE_INPUTS", (name, link, me)))
        if name == "raise":
            raise RuntimeError("cannot tell")
        return {"no": False, "why": "because", "none": None}.get(name, True)

    def go(self, name: str, size: int, link: str) -> tuple[str]:
        return (f"{name}{size}{link}",)


class TakesTypes:
    """Checks the types of its links itself."""

    RETURN_TYPES = ("STRING",)
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("IMAGE", {})}}

    @classmethod
    def VALIDATE_INPUTS(cls, input_types: dict[str, str]) -> Any:
        return True if input_types["value"] in ("STRING", "IMAGE") else f"not {input_types['value']}"

    def go(self, value: Any) -> tuple[str]:
        return (f"<{value}>",)


class Once:
    """Never shares its result."""

    RETURN_TYPES = ("INT",)
    FUNCTION = "go"
    NOT_IDEMPOTENT = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {})}}

    def go(self, value: int) -> tuple[int]:
        CALLS.append(("Once", value))
        return (value,)


class Returns:
    """Returns what it is told to."""

    RETURN_TYPES = ("INT", "INT")
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


class Edits:
    """Edits its input in place, as one should not."""

    RETURN_TYPES = ("LIST",)
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"items": ("LIST", {})}}

    def go(self, items: list[Any]) -> tuple[list[Any]]:
        items.append("edited")
        return (items,)


class MakesList:
    """A list as one value."""

    RETURN_TYPES = ("LIST",)
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {})}}

    def go(self, value: int) -> tuple[list[int]]:
        CALLS.append(("MakesList", value))
        return ([value],)


class Picks:
    """A combo of the other kind, and one as an output."""

    RETURN_TYPES = (["a", "b"],)
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"one": ("COMBO", {"options": ["a", "b"]}), "two": (["a", "b"], {})}}

    def go(self, one: str, two: str) -> tuple[str]:
        return (one + two,)


class Sleeps:
    """Blocks for a moment and reports progress."""

    RETURN_TYPES = ("INT",)
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"steps": ("INT", {}), "milliseconds": ("INT", {"default": 0})}}

    def go(self, steps: int, milliseconds: int) -> tuple[int]:
        from comfy.utils import ProgressBar

        bar = ProgressBar(steps)
        for _ in range(steps):
            time.sleep(milliseconds / 1000)
            bar.update(1)
        return (steps,)


class Abstract(ComfyNodeABC):
    """Derives from the base some packs use."""

    RETURN_TYPES = (IO.INT,)
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": (IO.NUMBER, {"forceInput": True})}}

    def go(self, value: float) -> tuple[int]:
        return (int(value),)


class Report:
    """An output node."""

    RETURN_TYPES = ()
    FUNCTION = "go"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": (IO.ANY, {})}}

    def go(self, value: Any) -> dict[str, Any]:
        CALLS.append(("Report", value))
        return {"ui": {"shown": [value]}}


KINDS = (
    Concat,
    Secrets,
    Anything,
    State,
    Changing,
    Checked,
    TakesTypes,
    Once,
    Returns,
    Edits,
    MakesList,
    Picks,
    Sleeps,
    Abstract,
    Report,
)
BASICS = {f"P.{kind.__name__}": kind for kind in KINDS}
