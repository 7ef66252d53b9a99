"""Laws over the registry: each option, at both ends of its range, gives levels or a result, or says what it expects."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling import (
    SCHEDULES,
    SOLVERS,
    Parameterisation,
    PhiloxNoise,
    Prediction,
    Sampling,
    find_solver,
    sd3,
    sdxl,
)
from sigmagraph.engine.sampling.options import Choices, Interval, Option
from sigmagraph.engine.sampling.schedule import Schedule

SCHEDULES_OF_ALL_REVISIONS = {
    f"{one.name}@{one.revision}": one for newest in SCHEDULES.values() for one in (newest, *newest.older)
}
SOLVERS_OF_ALL_REVISIONS = {
    f"{one.name}@{one.revision}": one for newest in SOLVERS.values() for one in (newest, *newest.older)
}
FAMILIES = {"flow": sd3(), "eps": sdxl()}
MINUTES = {("dpm_adaptive@1", "eta")}  # at 100 it takes steps of 1e-5, as ComfyUI does


def extremes(option: Option) -> Iterator[object]:
    """The ends of the option's range, or every choice."""
    if isinstance(option.limits, Choices):
        yield from option.limits.values
    elif isinstance(option.limits, Interval):
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


def halved(x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
    """The posterior mean of unit normal data, for alpha = 1."""
    return Prediction(x / (1 + sigma**2), x / (1 + sigma**2))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("key", SOLVERS_OF_ALL_REVISIONS)
def test_a_sampler_at_the_ends_of_an_options_range_gives_numbers_or_says_what_it_expects(key: str, family: str) -> None:
    solver, parameterisation = SOLVERS_OF_ALL_REVISIONS[key], FAMILIES[family]
    top = parameterisation.levels.sigma_max
    sigmas = [top, 0.8 * top, 0.3 * top, 0.1 * top, 0.0]
    for option in solver.options:
        for value in extremes(option):
            if (key, option.name) in MINUTES and value:
                continue
            refusal, result = solver.name, torch.zeros(1)
            try:
                result = Sampling(
                    halved,
                    torch.zeros(1, 1, 2, 2),
                    sigmas,
                    parameterisation,
                    solver,
                    noise=PhiloxNoise(3),
                    options={option.name: value},
                ).run()
            except BadValue as refused:
                refusal = str(refused)
            assert solver.name in refusal or "er_sde" in refusal, (option.name, value)
            assert result.isfinite().all(), (option.name, value)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", [name for name, one in SOLVERS.items() if "ancestral" in name and one.revision == 2])
def test_an_eta_beyond_the_renewal_of_all_noise_renews_all_of_it(name: str, family: str) -> None:
    parameterisation: Parameterisation = FAMILIES[family]
    target, level = torch.full((1, 1, 64, 64), 0.7, dtype=torch.float64), 0.5
    steps = Sampling(
        lambda x, sigma, needs_uncond=False: Prediction(target, target),
        target * 0,
        [0.8, level, 0.0],
        parameterisation,
        find_solver(name, 2),
        noise=PhiloxNoise(8),
        options={"eta": 100.0},
    ).ticks()
    state = next(tick.x for tick in steps if tick.step == 1)
    drawn = (state - target * parameterisation.process.alpha(level)) / level
    assert abs(float(drawn.mean())) < 3 / 64
    assert float(drawn.std()) == pytest.approx(1.0, abs=3 / 64 / math.sqrt(2))
    assert abs(float((drawn * PhiloxNoise(8).initial(target)).mean())) < 3 / 64


@pytest.mark.parametrize("options", [{"accept_safety": 3.0}, {"h_init": 0.0}, {"rtol": 0.0, "atol": 0.0}])
@pytest.mark.parametrize("revision", [1, 2])
def test_an_adaptive_run_that_cannot_go_on_says_so(revision: int, options: dict[str, object]) -> None:
    one = find_solver("dpm_adaptive", revision)
    with pytest.raises(BadValue, match="sampler dpm_adaptive.*stuck at sigma 1.*accept_safety at most 1"):
        Sampling(
            halved, torch.zeros(1, 1, 2, 2), [1.0, 0.1, 0.0], sd3(), one, noise=PhiloxNoise(3), options=options
        ).run()
