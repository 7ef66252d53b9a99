"""Runs small workflows and keeps what happened."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sigmagraph.engine.execution import events
from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.calling.instances import Instances
from sigmagraph.engine.execution.inline import execute
from sigmagraph.engine.execution.result import RunResult
from sigmagraph.engine.graph.node import Node
from sigmagraph.engine.graph.plan import Plan, plan
from tests.graph.small import NODES, checked


@dataclass
class Stage:
    """A cache, nodes, and a log of events; each `run` starts it afresh, the cache stays."""

    nodes: Mapping[str, Node] = field(default_factory=lambda: NODES)
    cache: MemoryCache = field(default_factory=MemoryCache)
    log: list[events.Event] = field(default_factory=list)
    instances: Instances = field(default_factory=Instances)

    def plan(self, document: Mapping[str, Any]) -> Plan:
        return plan(checked(document, self.nodes))

    def run(
        self, document: Mapping[str, Any], cancelled: Callable[[], bool] = lambda: False, **extra_data: Any
    ) -> RunResult:
        self.log.clear()
        return execute(
            self.plan(document),
            None,
            self.cache,
            self.log.append,
            cancelled=cancelled,
            extra_data=extra_data,
            instances=self.instances,
        )

    def shown(self, document: Mapping[str, Any], node_id: str = "s") -> list[Any]:
        """What the output node shows, all calls behind each other."""
        shown: list[Any] = self.run(document).or_raise().ui[node_id]["shown"]
        return shown

    def of(self, kind: type[Any]) -> list[Any]:
        """The events of one kind."""
        return [event for event in self.log if isinstance(event, kind)]


def with_nodes(*nodes: Node) -> dict[str, Node]:
    """The small nodes and these."""
    return {**NODES, **{node.class_type: node for node in nodes}}
