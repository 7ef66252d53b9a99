"""What the page draws on the nodes of one job: how far each node is. Bounded, however long the graph."""

from dataclasses import dataclass, field
from typing import Any

__all__ = ["DrawnProgress"]

SHOWN_IN_FULL = 16  # up to here every message repeats every started node; beyond, what runs and what just changed


@dataclass
class DrawnProgress:
    """The started nodes of one job.

    ComfyUI repeats every started node in each message, so that a graph of n nodes costs n squared: 98 MB for 1,000.
    The page only draws what is running, so finished nodes are repeated for small graphs alone.
    """

    job_id: str
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    display_ids: dict[str, str] = field(default_factory=dict)
    active: dict[str, None] = field(default_factory=dict)

    def started(self, node_id: str, display_id: str) -> dict[str, Any]:
        """A node began."""
        self.display_ids[node_id] = display_id
        return self._changed(node_id, 0.0, 1.0, "running")

    def ticked(self, node_id: str, value: float, maximum: float) -> dict[str, Any]:
        """A node got on."""
        return self._changed(node_id, value, maximum, "running")

    def finished(self, node_id: str, display_id: str) -> dict[str, Any]:
        """A node is done, or was done before."""
        self.display_ids.setdefault(node_id, display_id)
        maximum = self.nodes.get(node_id, {}).get("max", 1.0)
        return self._changed(node_id, maximum, maximum, "finished")

    def failed(self, node_id: str) -> dict[str, Any]:
        """A node raised."""
        known = self.nodes.get(node_id, {})
        return self._changed(node_id, known.get("value", 0.0), known.get("max", 1.0), "error")

    @property
    def running(self) -> str | None:
        """The node that began last and is not done."""
        return next(reversed(self.active), None)

    def place(self, node_id: str) -> dict[str, Any]:
        """The ids of a node as previews and `progress_state` carry them."""
        display_id = self.display_ids.get(node_id, node_id)
        parent = display_id if display_id != node_id else None
        return {"display_node_id": display_id, "parent_node_id": parent, "real_node_id": display_id}

    def _changed(self, node_id: str, value: float, maximum: float, state: str) -> dict[str, Any]:
        entry = {"value": value, "max": maximum, "state": state, "node_id": node_id, "prompt_id": self.job_id}
        self.nodes[node_id] = entry | self.place(node_id)
        if state == "running":
            self.active[node_id] = None
        else:
            self.active.pop(node_id, None)
        if len(self.nodes) <= SHOWN_IN_FULL:
            return {"prompt_id": self.job_id, "nodes": dict(self.nodes)}
        return {"prompt_id": self.job_id, "nodes": {i: self.nodes[i] for i in (*self.active, node_id)}}
