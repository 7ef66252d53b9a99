"""Levels that nearly agree: what lies between two of them says nothing, and no rule may take it for a slope.

A run with such levels put in is held to the run without them, for every sampler, in single precision. ComfyUI's own
rules are recorded and not ours to mend: of them only a number is asked.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.sampling import SOLVERS, Parameterisation, PhiloxNoise, sd3, sdxl
from sigmagraph.engine.sampling.conformance.problems import Mixture, bumps, even_shares
from sigmagraph.engine.sampling.solver import Noise, Solver
from sigmagraph.engine.sampling.solver_run import SolverRun, context_of
from sigmagraph.engine.sampling.solvers.parts.lagrange import integrals
from sigmagraph.engine.sampling.solvers.parts.near_levels import ROUNDING, steady

EVERY = {str(one): one for solver in SOLVERS.values() for one in (solver, *solver.older)}
MODELS = {"flow": sd3(), "eps": sdxl()}
PLAIN = {
    "flow": [1.0, 0.88, 0.75, 0.6, 0.45, 0.3, 0.18, 0.08, 0.02, 0.0],
    "eps": [14.0, 7.5, 4.0, 2.1, 1.1, 0.55, 0.28, 0.12, 0.04, 0.0],
}
CASES = {"flow": [(1e-4, 1, 2), (6e-7, 3, 5)], "eps": [(1e-4, 3, 5)]}  # distance as a share of a level, how many, where
NOISY = [name for name, one in SOLVERS.items() if one.noise is not Noise.NONE and not one.on_device]
COMFYUI = {"cfgpp_ud10_ab"}  # its rule to the letter: a tenth of the change, over any distance


def near(sigmas: Sequence[float], place: int, gap: float, count: int) -> list[float]:
    """`count` further levels below one of them, each `gap` of it lower than the one before."""
    further = [sigmas[place] * (1 - gap * (one + 1)) for one in range(count)]
    return [*sigmas[: place + 1], *further, *sigmas[place + 1 :]]


def ends(solver: Solver, sigmas: Sequence[float], model: Parameterisation, is_ode: bool, count: int = 32) -> Tensor:
    """Where `count` quantiles of the first level end, in order."""
    problem: Mixture = bumps(model.process)
    start = problem.quantile(even_shares(count), sigmas[0]).float()
    silent = torch.zeros_like(start)
    context = context_of(solver, start, sigmas, model, PhiloxNoise(3))
    if is_ode:
        context = replace(context, draw=lambda: silent, churn=lambda: silent, brownian=lambda high, low: silent)
    run = SolverRun(solver, start, sigmas, context, (solver.ode_options or {}) if is_ode else {})
    while run.request is not None:
        run.answer(problem(run.request.x, run.request.sigma))
    assert run.result is not None
    return run.result.flatten().sort().values


def apart(first: Tensor, second: Tensor) -> float:
    """The mean distance of quantiles; infinite where one is no number."""
    return float((first - second).abs().mean()) if first.isfinite().all() else math.inf


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("name", [name for name, one in SOLVERS.items() if name not in COMFYUI and not one.on_device])
def test_levels_that_nearly_agree_cost_a_result_no_more_than_steps_of_first_order(name: str, family: str) -> None:
    """Without noise where there is such a setting; where there is none, by what chance allows 32 quantiles."""
    solver, model, plain = SOLVERS[name], MODELS[family], PLAIN[family]
    is_ode = solver.ode_options is not None
    expected = ends(solver, plain, model, is_ode)
    first_order = apart(ends(SOLVERS["euler"], plain, model, is_ode=True), expected)
    for gap, count, place in CASES[family]:
        result = ends(solver, near(plain, place, gap, count), model, is_ode)
        assert apart(result, expected) < (0.02 + 2.5 * first_order if is_ode else 0.6), (gap, count, place)


@pytest.mark.parametrize("name", NOISY)
def test_fresh_noise_between_levels_that_nearly_agree_is_not_taken_for_a_slope(name: str) -> None:
    """32 quantiles of two runs are 0.4 apart by chance; what a slope over such a distance brings is 1 and more."""
    solver, model, plain = SOLVERS[name], MODELS["flow"], PLAIN["flow"]
    expected = ends(solver, plain, model, is_ode=False, count=32)
    result = ends(solver, near(plain, 5, 1e-4, 3), model, is_ode=False, count=32)
    assert apart(result, expected) < 0.7


@pytest.mark.parametrize("key", EVERY)
def test_every_revision_gives_numbers_on_levels_that_agree_to_six_digits_and_more(key: str) -> None:
    solver = EVERY[key]
    for near_half in (0.4999997, 0.5 - 1e-9):
        result = ends(solver, [1.0, 0.5, near_half, 0.2, 0.0], sd3(), is_ode=False, count=8)
        assert result.isfinite().all(), near_half
        if solver is SOLVERS[solver.name] and solver.name not in COMFYUI:
            assert result.abs().max() < 6, near_half  # the data lies within [-3, 3]


@pytest.mark.parametrize("key", ["er_sde@2", "sa_solver@2", "uni_pc@3"])
def test_the_revision_before_followed_what_lies_between_them(key: str) -> None:
    short = [1.0, 0.8, 0.5, 0.35, 0.2, 0.0]
    result, now = (
        max(float(ends(one, near(short, place, 2e-6, 1), sd3(), is_ode=False).abs().max()) for place in (1, 2, 3))
        for one in (EVERY[key], SOLVERS[EVERY[key].name])
    )
    assert result > 20 > 10 * now / 3


def test_weights_leave_out_the_nodes_that_lie_too_near_and_are_exact_on_the_rest() -> None:
    nodes = [1.0, 1.0 + 1e-9, 1.2, 1.5]
    weights = steady(lambda given: integrals(given, given[0], 0.6), nodes, 0.4, ROUNDING)
    assert weights[1] == 0
    for power in range(3):
        total = sum(weight * node**power for weight, node in zip(weights, nodes, strict=True))
        assert total == pytest.approx((0.6 ** (power + 1) - 1) / (power + 1), rel=1e-9)


def test_weights_of_ordinary_nodes_are_those_of_the_rule() -> None:
    nodes = [1.0, 1.01, 1.2, 1.5]
    assert steady(lambda given: integrals(given, given[0], 0.6), nodes, 0.4) == integrals(nodes, 1.0, 0.6)
    assert steady(lambda given: integrals(given, given[0], 0.6), [1.0, 1.0, 1.2], 0.4)[1] == 0
