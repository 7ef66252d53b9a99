"""What a worker checked is kept for the job it was checked for, and for no other."""

from dataclasses import replace
from typing import Any

from sigmagraph.engine.jobs.workers.checked_graphs import CheckedGraphs
from sigmagraph.engine.jobs.workers.worker import JobAttempt
from tests.graph.small import chain, checked

PROMPT = chain(3)
GRAPH = checked(PROMPT)


def attempt(**changes: Any) -> JobAttempt:
    return replace(JobAttempt("job", "ann", 1, chain(3), ["end"], {}), **changes)


def keeping() -> CheckedGraphs:
    kept = CheckedGraphs()
    kept.keep("job", "ann", PROMPT, GRAPH)
    return kept


def test_a_graph_is_given_once_to_the_attempt_of_its_job() -> None:
    kept = keeping()
    assert kept.take(attempt()) is GRAPH
    assert kept.take(attempt()) is None


def test_nobody_gets_what_was_checked_for_somebody_else() -> None:
    for other in ({"owner": "bob"}, {"prompt": chain(4)}, {"targets": ["0"]}, {"job_id": "other"}):
        assert keeping().take(attempt(**other)) is None, other


def test_a_second_check_under_an_id_counts() -> None:
    kept, longer = keeping(), checked(chain(4))
    kept.keep("job", "ann", chain(4), longer)
    assert len(kept) == 1
    assert kept.take(attempt(prompt=chain(4))) is longer


def test_the_oldest_go_where_there_are_too_many_nodes() -> None:
    kept = CheckedGraphs(most_nodes=len(PROMPT) * 2)
    for name in ("a", "b", "c"):
        kept.keep(name, "ann", PROMPT, GRAPH)
    assert [kept.take(attempt(job_id=name)) for name in ("a", "b", "c")] == [None, GRAPH, GRAPH]
    kept.keep("large", "ann", chain(100), checked(chain(100)))
    assert len(kept) == 0
    assert kept.take(attempt(job_id="large", prompt=chain(100))) is None
