"""Progress and cancel of the current node, under names of `comfy.utils`, `comfy_api`, `comfy.model_management`."""

from typing import Any

from sigmagraph.engine.execution.calling.context import current
from sigmagraph.engine.execution.packs.node_replacement import NodeReplacement, NodeReplacementSync
from sigmagraph.engine.graph.results import Progress


class ProgressBar:
    """Counts towards a total; every update is a place where the run can be cancelled."""

    def __init__(self, total: float, node_id: str | None = None) -> None:
        self.total, self.current, self.node_id = total, 0.0, node_id

    def update_absolute(self, value: float, total: float | None = None, preview: Any = None) -> None:
        """Set the count, and the total too where given."""
        self.total = total if total is not None else self.total
        self.current = min(value, self.total)
        context = current()
        context.check()
        context.report(Progress(self.current, self.total, preview))

    def update(self, value: float) -> None:
        """Count on."""
        self.update_absolute(self.current + value)


def set_progress(value: float, max_value: float, node_id: str | None = None, preview_image: Any = None) -> None:
    """Report progress of the current node."""
    ProgressBar(max_value, node_id).update_absolute(value, preview=preview_image)


class ExecutionSync:
    """`ComfyAPISync().execution`."""

    @staticmethod
    def set_progress(
        value: float, max_value: float, node_id: str | None = None, preview_image: Any = None, **_: Any
    ) -> None:
        """Report progress of the current node."""
        set_progress(value, max_value, node_id, preview_image)


class Execution:
    """`ComfyAPI().execution`."""

    @staticmethod
    async def set_progress(
        value: float, max_value: float, node_id: str | None = None, preview_image: Any = None, **_: Any
    ) -> None:
        """Report progress of the current node."""
        set_progress(value, max_value, node_id, preview_image)


class ComfyAPI:
    """The async face of the versioned API, as far as nodes of the classic convention use it."""

    VERSION = "0.0.2"
    STABLE = False

    def __init__(self) -> None:
        self.execution = Execution()
        self.node_replacement = NodeReplacement()


class ComfyAPISync:
    """The blocking face of it."""

    VERSION = "0.0.2"
    STABLE = False

    def __init__(self) -> None:
        self.execution = ExecutionSync()
        self.node_replacement = NodeReplacementSync()


def throw_exception_if_processing_interrupted() -> None:
    """Raise if the run of the current node is to stop."""
    current().check()


def processing_interrupted() -> bool:
    """Whether the run of the current node is to stop."""
    return current().should_stop()
