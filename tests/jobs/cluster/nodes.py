"""Nodes that write and read files and keep unfinished work, and the factory an actor builds them with."""

import struct
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Annotated, Any

from blake3 import blake3

from sigmagraph.engine.compose.owners import folders_of
from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.graph.kept import Kept
from sigmagraph.engine.graph.node import Hidden, Node, Optional, Progress, Services, Socket, UiResult, node
from sigmagraph.engine.graph.workflow import Workflow
from sigmagraph.engine.jobs.workers.worker import Setup
from tests.jobs import stubs

Anything = Annotated[Any, Socket("*")]
Files = Annotated[Services, Hidden("SERVICES")]
Count = Annotated[int, Optional()]
Seconds = Annotated[float, Optional()]
Text = Annotated[str, Optional()]


def step(state: int) -> int:
    """A recurrence whose end says every step was made once, in order."""
    return (state * 6364136223846793005 + 1442695040888963407) % 2**64


@node("Iterate", category="test", lane="device", outputs=("BYTES",))
def iterate(
    *,
    seed: Count = 0,
    count: Count = 10,
    seconds: Seconds = 0.0,
    width: Count = 8,
    record: Count = 8,
    tally: Text = "",
    model: Text = "",
    kept: Annotated[Kept | None, Hidden("KEPT")],
) -> Generator[Progress, None, bytes]:
    """So many steps, each kept in `record` bytes and noted in `tally`; `width` bytes made of the last."""
    log = kept.begin() if kept is not None else None
    states = [struct.unpack("<Q", record[:8])[0] for record in log.records()] if log is not None else []
    state = states[-1] if states else seed
    for done in range(len(states), count):
        time.sleep(seconds)
        state = step(state)
        if tally:
            with Path(tally).open("a") as lines:
                lines.write(f"{done}\n")
        if log is not None:
            log.append(struct.pack("<Q", state) + bytes(record - 8))
        yield Progress(done + 1, count)
    if log is not None:
        log.discard()
    return blake3(struct.pack("<Q", state)).digest(width)


@node("Save", category="test", output_node=True, outputs=("BYTES",))
def save(*, data: Anything, prefix: Text = "picture", kind: Text = "output", services: Files) -> UiResult:
    """Writes a numbered file."""
    folder = services.output_dir if kind == "output" else services.temp_dir
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while (path := folder / f"{prefix}_{number:05}_.bin").exists():
        number += 1
    path.write_bytes(data)
    return UiResult(data, ui={"images": [{"filename": path.name, "subfolder": "", "type": kind}]})


@node("Read", category="test", outputs=("BYTES",))
def read(*, file: str, services: Files) -> bytes:
    """The content of an input."""
    return services.path("input", file).read_bytes()


NODES: dict[str, Node] = {**stubs.NODES, **{made.class_type: made for made in (iterate, save, read)}}


def folders(home: Path) -> Callable[[str], Folders]:
    """Every owner's folders below a home."""
    return folders_of(Folders(*(home / name for name in ("models", "input", "output", "temp"))))


def build(options: Mapping[str, Any]) -> Setup:
    """As `serve`'s factory reads its options."""
    places = Folders(*(Path(options[name]) for name in ("models", "input", "output", "temp")))
    return Setup(NODES, folders_of(places), MemoryCache(options.get("cache_bytes", 0)))


def saved(**inputs: Any) -> Workflow:
    """Iterate and save."""
    return stubs.workflow(work=("Iterate", inputs), end=("Save", {"data": ["work", 0]}))


def expected(seed: int, count: int, width: int = 8) -> bytes:
    """What `saved` has to write."""
    state = seed
    for _ in range(count):
        state = step(state)
    return blake3(struct.pack("<Q", state)).digest(width)
