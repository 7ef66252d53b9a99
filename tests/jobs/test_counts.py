"""Counting what waits and runs from the log alone: as exact as the rows, whatever happens to jobs in whatever order."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from sigmagraph.engine.jobs.counts import JobCounts
from sigmagraph.engine.jobs.events import Body, Ended, JobEvent, Queued, Requeued, Started
from sigmagraph.engine.jobs.job import State
from sigmagraph.engine.jobs.protocol import Counts

NEXT: dict[str, list[tuple[str, Body]]] = {
    "": [("queued", Queued(1.0))],
    "queued": [("running", Started(1, "w")), ("over", Ended(State.CANCELLED))],
    "running": [("queued", Requeued(1, "died")), ("over", Ended(State.SUCCEEDED))],
    "over": [],
}


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=60))
def test_the_tally_follows_every_legal_course_of_every_job(steps: list[tuple[int, bool]]) -> None:
    tally, states = JobCounts(), Counter[str]()
    where = dict.fromkeys(range(7), "")
    for job, is_second in steps:
        choices = NEXT[where[job]]
        if not choices:
            continue
        where[job], body = choices[-1] if is_second else choices[0]
        tally.hear(JobEvent(str(job), "ab"[job % 2], 1, 0.0, body))
    for owner in ("a", "b", None):
        mine = [state for job, state in where.items() if owner in (None, "ab"[job % 2])]
        states = Counter(mine)
        assert tally.counts(owner) == Counts(states["queued"], states["running"])
    for job in where:
        tally.hear(JobEvent(str(job), "x", 1, 0.0, Ended(State.FAILED)))
    assert (tally._open, tally._waiting, tally._running) == ({}, {}, {})
