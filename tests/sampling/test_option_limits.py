"""Laws over the registry: each option, at both ends of its range, gives levels or a result, or says what it expects."""

import math
from collections.abc import Iterator

import pytest

from engine.errors import BadValue
from engine.sampling import SCHEDULES, SOLVERS, sd3, sdxl
from engine.sampling.schedules import Schedule
from engine.sampling.solver import Choices, Option, Range

SCHEDULES_OF_ALL_REVISIONS = {
    f"{one.name}@{one.revision}": one for newest in SCHEDULES.values() for one in (newest, *newest.older)
}


def extremes(option: Option) -> Iterator[object]:
    """The ends of the option's range, or every choice."""
    if isinstance(option.limits, Choices):
        yield from option.limits.values
    elif isinstance(option.limits, Range):
        yield from (option.kind(end) for end in option.limits if math.isfinite(end))
    else:
        yield from (False, True)


@pytest.mark.parametrize("key", SCHEDULES_OF_ALL_REVISIONS)
def test_a_schedule_at_the_ends_of_an_options_range_falls_or_says_what_it_expects(key: str) -> None:
    one: Schedule = SCHEDULES_OF_ALL_REVISIONS[key]
    for option in one.options:
        for value in extremes(option):
            for levels in (sd3().levels, sdxl().levels):
                for steps in (1, 2, 7, 40):
                    sigmas, refusal = [0.0], one.name
                    try:
                        sigmas = one(levels, steps, **{option.name: value})
                    except BadValue as refused:
                        refusal = str(refused)
                    assert one.name in refusal, (option.name, value)
                    assert all(math.isfinite(sigma) for sigma in sigmas), (option.name, value, steps)
                    assert all(a >= b for a, b in zip(sigmas, sigmas[1:], strict=False)), (option.name, value, steps)


def test_settings_that_overflow_are_refused_by_name() -> None:
    with pytest.raises(BadValue, match=r"schedule karras.*rho 0\.001.*finite levels"):
        SCHEDULES["karras"](sdxl().levels, 5, rho=0.001)
    with pytest.raises(BadValue, match=r"schedule logit_normal.*mean -1000"):
        SCHEDULES["logit_normal"](sdxl().levels, 5, mean=-1000.0)
    with pytest.raises(BadValue, match=r"simple\.steps.*a whole number"):
        SCHEDULES["simple"](sdxl().levels, 4.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SOLVERS)
def test_a_whole_number_written_as_a_float_is_a_whole_number(name: str) -> None:
    solver = SOLVERS[name]
    for option in solver.options:
        if option.kind is int and isinstance(option.default, int):
            value = solver.checked({option.name: float(option.default)})[option.name]
            assert type(value) is int
            with pytest.raises(BadValue, match=option.name):
                solver.checked({option.name: option.default + 0.5})
