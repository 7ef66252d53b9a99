"""Token buckets: never more calls in any stretch of time than a burst and what trickles in; told waits are true."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigmagraph.engine.server.access.rates import MOST_KEYS, Buckets, Taken
from sigmagraph.engine.server.endpoints.guard import rate_headers

RATES = st.floats(0.001, 1e6)
PAUSES = st.lists(st.floats(0.0, 100.0), min_size=1, max_size=60)


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(RATES, PAUSES)
def test_no_stretch_of_time_lets_more_through_than_a_burst_and_what_trickles_in(
    rate: float, pauses: list[float]
) -> None:
    clock = Time()
    buckets, allowed = Buckets(clock), []
    for pause in pauses:
        clock.now += pause
        if buckets.take("key", rate).is_allowed:
            allowed.append(clock.now)
    capacity = max(1.0, rate)
    for first, begun in enumerate(allowed):
        for count, ended in enumerate(allowed[first:], 1):
            assert count <= capacity + (ended - begun) * rate / 60 + 1e-6


@given(RATES, PAUSES)
def test_who_waits_as_long_as_told_is_let_through_and_not_before(rate: float, pauses: list[float]) -> None:
    clock = Time()
    buckets = Buckets(clock)
    for pause in pauses:
        clock.now += pause
        taken = buckets.take("key", rate)
        if not taken.is_allowed:
            assert taken.remaining == 0
            clock.now += taken.wait_s * 0.99
            assert not buckets.take("key", rate).is_allowed
            clock.now += taken.wait_s * 0.01 + 1e-6 * 60 / rate
            assert buckets.take("key", rate).is_allowed


def test_one_keys_calls_are_nothing_to_another_and_full_buckets_are_forgotten() -> None:
    clock = Time()
    buckets = Buckets(clock)
    for number in range(MOST_KEYS + 10):
        assert buckets.take(str(number), 1.0).is_allowed
    assert not buckets.take("3", 1.0).is_allowed
    clock.now += 61
    assert buckets.take("3", 1.0).is_allowed
    assert len(buckets._filled) == 1


def test_a_slow_key_keeps_its_bucket_until_it_is_full_however_many_others_come() -> None:
    clock = Time()
    buckets = Buckets(clock)
    assert buckets.take("slow", 0.1).is_allowed  # the next one is free in ten minutes
    clock.now += 61
    for number in range(MOST_KEYS + 10):
        buckets.take(str(number), 1.0)
    assert not buckets.take("slow", 0.1).is_allowed


@pytest.mark.parametrize("full_s", [0.0, 60.0, 1e300])
def test_every_reset_is_a_date(full_s: float) -> None:
    headers = rate_headers(Taken(True, 1, 0.0, full_s), 1_700_000_000.0)
    assert headers["x-rate-limit-reset-at-utc"].startswith("20")
