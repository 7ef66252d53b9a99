"""What only many jobs show: memory stays flat, nothing is left behind."""

import gc
import os
import threading
from pathlib import Path

import pytest

from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.lanes.scheduler import Scheduler
from sigmagraph.engine.graph.node import Node
from sigmagraph.engine.graph.plan import plan
from tests.execution.test_random_graphs import random_document
from tests.graph.small import checked

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE


@pytest.mark.slow
def test_memory_is_flat_over_ten_thousand_mixed_jobs(nodes: dict[str, Node]) -> None:
    scheduler = Scheduler(cache=MemoryCache(budget_bytes=200_000), host_threads=2)
    before, threads = 0, 0
    for at in range(0, 10_000, 50):
        documents = [random_document(6 + (at + i) % 20, at + i) for i in range(50)]
        tickets = [scheduler.submit(plan(checked(document, nodes))) for document in documents]
        for i, ticket in enumerate(tickets):
            if i % 7 == 0:
                scheduler.withdraw(ticket)
            ticket.wait(60)
        if at == 3_000:
            before, threads = resident_bytes(), threading.active_count()
    assert resident_bytes() - before < 4_000_000
    assert threading.active_count() == threads
    assert not scheduler._tickets
    assert not scheduler.store._flights
    scheduler.close()
