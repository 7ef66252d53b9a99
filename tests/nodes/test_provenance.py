import pytest

from sigmagraph.engine.execution.replay import with_revisions
from sigmagraph.engine.graph.lock import Lock
from sigmagraph.nodes.support.graph_names import sampler_names, schedule_names
from sigmagraph.nodes.support.provenance import environment, known_revisions, sealed


@pytest.mark.parametrize(
    ("sampler", "schedule"),
    [*((name, "simple") for name in sampler_names()), *(("euler", name) for name in schedule_names())],
)
def test_a_front_completes_a_lock_as_the_worker_did(sampler: str, schedule: str) -> None:
    prompt = {"5": {"class_type": "KSampler", "inputs": {"sampler_name": sampler, "scheduler": schedule}}}
    lock = Lock(output="5", graph="", nodes={"5": "KSampler 1.1"})
    assert with_revisions(lock, prompt, known_revisions(), environment()) == sealed(lock, prompt)
