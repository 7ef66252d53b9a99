"""What a user sees of a run: a bar per sampler, the time of each node, the path of each picture."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from sigmagraph.engine.cli.console import out, say
from sigmagraph.engine.compose.workspace import Workspace
from sigmagraph.engine.execution.events import Event, NodeFinished, NodeProgress
from sigmagraph.engine.execution.result import RunResult
from sigmagraph.engine.graph.lock import STEP_CACHE

__all__ = ["Report"]

WORTH_A_LINE_MS = 1.0
SOURCES = {"executed": "", "memory": " (from memory)", "disk": " (from disk)"}


class Report:
    """Receives a run's events. Pictures go to stdout, one path a line; everything else to stderr."""

    def __init__(self, titles: Mapping[str, str], space: Workspace) -> None:
        self._titles, self._space = titles, space
        self._console = say()
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._bars = Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)
        self._tasks: dict[str, TaskID] = {}
        self.pictures: list[Path] = []
        self._began = time.perf_counter()

    def __enter__(self) -> "Report":
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bars.stop()

    def __call__(self, event: Event) -> None:
        """Show one event; those that tell a user nothing are passed over."""
        match event:
            case NodeProgress():
                task = self._tasks.get(event.node_id)
                if task is None:
                    title = escape(self._titles.get(event.node_id, event.node_id))
                    task = self._tasks[event.node_id] = self._bars.add_task(title, total=event.maximum)
                self._bars.update(task, completed=event.value, total=event.maximum)
            case NodeFinished():
                self._finished(event)

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.perf_counter() - self._began

    def finish(self, networks: Sequence[str] = ()) -> None:
        """The last words of a run that went well: a line for each of these networks, the time, the pictures."""
        for network in networks:
            self._console.print(f"[dim]{escape(network.removeprefix(f'{Path.cwd()}{os.sep}'))}[/]", soft_wrap=True)
        self._console.print(f"[dim]done in {self.seconds:.1f} s[/]")
        for picture in self.pictures:
            out().print(str(picture), markup=False, soft_wrap=True)

    def written(self, result: RunResult) -> dict[str, Any]:
        """The run as JSON values: pictures, time, a report for each node, what nodes hand to a page."""
        nodes = {node_id: asdict(node) for node_id, node in result.nodes.items()}
        return {"images": self.pictures, "seconds": self.seconds, "nodes": nodes, "ui": result.ui}

    def _finished(self, event: NodeFinished) -> None:
        if event.node_id in self._tasks:
            self._bars.remove_task(self._tasks.pop(event.node_id))
        if event.milliseconds >= WORTH_A_LINE_MS:
            title = escape(self._titles.get(event.display_id, event.class_type))
            self._console.print(f"{event.milliseconds / 1000:8.2f} s  {title}{SOURCES[event.source]}")
        for told in (event.ui or {}).get(STEP_CACHE, ()):
            self._console.print(f"{'':11}{escape(_step_cache(told))}")
        for record in (event.ui or {}).get("images", ()):
            self.pictures.append(self._space.picture(record))


def _step_cache(told: Mapping[str, Any]) -> str:
    """What a step cache did, in a line."""
    known = f", measured {told['drift_measured']:g}" if "drift_measured" in told else ""
    guess = " (nothing to estimate it from)" if told.get("is_blind") else ""
    left_out = f"{told['skipped']} of {told['asked']} predictions left out"
    return f"{told['cache']}: {left_out}, drift about {told['drift_estimate']:g}{guess}{known}"
