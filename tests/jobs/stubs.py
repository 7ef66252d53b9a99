"""Nodes that do next to nothing, well or badly, and the factory a worker process builds them with."""

import gc
import os
import stat
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.graph.comfy.comfy_class import from_class
from sigmagraph.engine.graph.node import Hidden, Node, Optional, Progress, Socket, UiResult, node
from sigmagraph.engine.graph.workflow import Workflow, WorkflowNode, as_link
from sigmagraph.engine.jobs.workers.worker import Picture, Setup

Anything = Annotated[Any, Socket("*")]
Text = Annotated[str, Optional()]
Count = Annotated[int, Optional()]
Seconds = Annotated[float, Optional()]


@node("Show", category="test", output_node=True)
def show(*, value: Anything) -> UiResult:
    """Shows what it got."""
    return UiResult(ui={"shown": [value]})


@node("Steps", category="test")
def steps(*, count: Count = 1, seconds: Seconds = 0.0, salt: Text = "") -> Generator[Progress, None, str]:
    """Reports so many steps, each taking so long."""
    for step in range(count):
        time.sleep(seconds)
        yield Progress(step + 1, count, preview=f"{salt}{step}" if salt else None)
    return f"{count} steps"


@node("Note", category="test")
def note(*, file: str, text: Text = "") -> str:
    """Adds a line to a file: how often it ran is written there."""
    with Path(file).open("a") as lines:
        lines.write(f"{text}\n")
    return text


@node("Fail", category="test")
def fail(*, message: Text = "no") -> str:
    """Raises."""
    raise ValueError(message)


@node("Die", category="test")
def die(*, unless: Text = "") -> str:
    """Ends its process as a crash does, unless there is a file of that name; the file is made first."""
    if not unless or not Path(unless).exists():
        if unless:
            Path(unless).touch()
        os._exit(139)
    return "alive"


@node("Hang", category="test")
def hang(*, unless: Text = "") -> str:
    """Says nothing for a very long time, unless there is a file of that name; the file is made first."""
    if not unless or not Path(unless).exists():
        if unless:
            Path(unless).touch()
        time.sleep(1000)
    return "awake"


@node("Babble", category="test")
def babble(*, unless: Text = "") -> str:
    """Writes rubbish into whatever sockets the process has, unless there is a file of that name; it is made first."""
    if not Path(unless).exists():
        Path(unless).touch()
        time.sleep(0.3)  # what is on its way goes out first: rubbish inside a frame would only make it a longer one
        for descriptor in range(3, 1024):  # a front with many open files hands down a high number
            with suppress(OSError):
                if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                    os.write(descriptor, b"\0\0\0\2\0\0\0\0{}")
        time.sleep(1000)
    return "quiet"


@node("Wrote", category="test", output_node=True, outputs=("STRING",))
def wrote(*, entry: Anything) -> UiResult:
    """Says that it wrote a file."""
    return UiResult("written", ui={"images": [entry]})


class Picky:
    """A class of ComfyUI's convention that checks its own input."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "test", "go", ("INT",), True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  # the convention's name
        return {"required": {"number": ("INT", {"default": 1})}}

    @classmethod
    def VALIDATE_INPUTS(cls, number: int) -> bool | str:  # noqa: N802  # the convention's name
        time.sleep(max(0, -number))
        return True if number % 2 == 0 else f"{number} is odd"

    def go(self, number: int) -> tuple[int]:
        return (number,)


@node("Turns", category="test", lane="device")
def turns(*, count: Count = 1, seconds: Seconds = 0.0) -> Generator[Progress, None, int]:
    """As `Steps`, where jobs take turns."""
    for step in range(count):
        time.sleep(seconds)
        yield Progress(step + 1, count)
    return count


@node("Encode", category="test", lane="device")
def encode(*, seconds: Seconds = 0.0, progress: Annotated[Callable[[float, float], None], Hidden("PROGRESS")]) -> str:
    """Long work that cannot yield, and asks every now and then whether it is still wanted."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.01)
        progress(0, 1)
    return "encoded"


class Ends:
    """A class of a pack that takes its process with it."""

    CATEGORY, FUNCTION, RETURN_TYPES = "test", "go", ("STRING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  # the convention's name
        return {"required": {"how": ("STRING", {"default": "exit"})}}

    def go(self, how: str) -> tuple[str]:
        if how == "closes":
            os.closerange(0, 1 << 16)
            time.sleep(1000)
        if how == "closes and goes on":
            os.closerange(0, 1 << 16)
            return ("done",)
        if how == "forks" and os.fork() == 0:
            time.sleep(6)
            os._exit(0)
        os._exit(7)


KINDS = (show, steps, note, fail, die, hang, babble, wrote, turns, encode)
NODES: dict[str, Node] = {made.class_type: made for made in KINDS}
NODES["Picky"] = from_class(Picky, "Picky")
NODES["Ends"] = from_class(Ends, "Ends", module="custom_nodes.rude")


PICTURES: list[Any] = []  # what this process drew


def picture(value: Any) -> Picture | None:
    PICTURES.append(value)
    return Picture("text/plain", str(value).encode(), {"of": "test"})


def build_counting(options: Mapping[str, Any]) -> Setup:
    """The same, telling how many objects the garbage collector passes by."""
    return replace(build(options), counts=lambda: {"passed_by": gc.get_freeze_count()})


def build(options: Mapping[str, Any]) -> Setup:
    """The factory of test workers; `cache_bytes` 0 keeps every node running."""
    return Setup(
        NODES,
        cache=MemoryCache(options.get("cache_bytes", 0)),
        encode_preview=picture,
        stats=lambda: {"a": 1},
        counts=lambda: {"drawn": len(PICTURES)},
    )


def slow(options: Mapping[str, Any]) -> Setup:
    """A factory that takes its time."""
    time.sleep(0.5)
    return build(options)


def broken(options: Mapping[str, Any]) -> Setup:
    """A factory that cannot build."""
    raise ValueError("no such device")


def workflow(**nodes: tuple[str, Mapping[str, Any]]) -> Workflow:
    """`workflow(a=("Steps", {...}), b=("Show", {"value": ["a", 0]}))`."""
    return Workflow(
        {
            name: WorkflowNode(kind, {key: as_link(value) or value for key, value in inputs.items()})
            for name, (kind, inputs) in nodes.items()
        }
    )


def shown(kind: str, **inputs: Any) -> Workflow:
    """One node, and its result shown."""
    return workflow(work=(kind, inputs), end=("Show", {"value": ["work", 0]}))
