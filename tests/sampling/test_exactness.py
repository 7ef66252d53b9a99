"""Each rule is exact on the polynomials its construction integrates, in the variable it is written in.

Four problems with closed solutions: the estimate or the slope is a power of one variable of the level and nothing else.
Steps grow from 1e-7, so that what a multistep rule does before its history is full weighs nothing.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.sampling import SOLVERS, Prediction
from sigmagraph.engine.sampling.solvers.parts.near_levels import apart
from tests.sampling.closed_form import solve
from tests.sampling.test_orders import DETERMINISTIC

pytestmark = pytest.mark.quick

FIRST, LAST, WIDEST = 0.9, 0.1, 0.45
START = torch.linspace(-2, 2, 7, dtype=torch.float64).reshape(1, 1, 7, 1)
CONSTANT, SHARE = 0.3, 0.7
SLOPE, LOG_SNR, LOG_SIGMA, RATIO = (
    "the slope in sigma",
    "the estimate in log-SNR",
    "the estimate in -ln sigma",
    "in sigma / alpha",
)
EXACT = {
    **dict.fromkeys(("heun", "gradient_estimation", "gradient_estimation_cfg_pp", "restart"), (SLOPE, 1)),
    **dict.fromkeys(("lms", "ipndm", "ipndm_v"), (SLOPE, 3)),
    "deis": (SLOPE, 2),
    "stork_2": (SLOPE, 1),
    "stork_4": (SLOPE, 3),
    **dict.fromkeys(
        ("res_2s", "res_2m", "seeds_3", "res_3s", "exp_heun_2_x0", "dpmpp_2m_sde_heun", "gauss_legendre_2s"),
        (LOG_SNR, 1),
    ),
    **dict.fromkeys(("dpmpp_3m_sde", "res_3m", "sa_solver", "sa_solver_pece"), (LOG_SNR, 2)),
    **dict.fromkeys(("res_multistep", "res_multistep_cfg_pp", "res_multistep_ancestral"), (LOG_SIGMA, 1)),
    "res_multistep_ancestral_cfg_pp": (LOG_SIGMA, 1),
    **dict.fromkeys(("uni_pc", "uni_pc_bh2"), (LOG_SIGMA, 2)),
    "er_sde": (RATIO, 2),
    "ralston_2s": (SLOPE, 1),
    "bogacki_shampine": (SLOPE, 2),
    "rk4": (SLOPE, 3),
    "dormand_prince": (SLOPE, 4),
    **dict.fromkeys(("etdrk2", "etdrk3", "etdrk4", "res_5s"), (LOG_SNR, 1)),
    **dict.fromkeys(("gauss_legendre_3s", "gauss_legendre_4s", "radau_iia_3s"), (LOG_SNR, 2)),
    "lobatto_iiia_3s": (LOG_SNR, 2),
    "radau_iia_2s": (LOG_SNR, 1),
}
"""Degree, and of what. A first-order rule is exact on constants, which `test_orders` shows."""
CONSTANTS_ALONE = {
    **dict.fromkeys(("dpm_2", "dpm_2_ancestral", "dpm_fast"), "reads the slope in the middle of the step"),
    **dict.fromkeys(("dpmpp_2m", "dpmpp_2m_cfg_pp", "dpmpp_2m_sde"), "reads a line in the middle of the step"),
    **dict.fromkeys(("dpmpp_sde", "dpmpp_2s_ancestral", "seeds_2"), "takes the estimate in the middle of the step"),
    "dpmpp_2s_ancestral_cfg_pp": "takes the estimate in the middle of the step",
    "heunpp2": "ends with a step of Euler's",
}
SAME_RULE = {
    "res_2s_sde",
    "res_3s_sde",
    "res_2m_sde",
    "res_3m_sde",
    "exp_heun_2_x0_sde",
    "flow_sde_2m",
    "flow_sde_3m",
}  # as an ODE, the one without noise


def levels() -> list[float]:
    """From FIRST to LAST, in half log-SNR: growing by a half each, then even."""
    start, end = (math.log((1 - sigma) / sigma) for sigma in (FIRST, LAST))
    gone, step = [0.0], 1e-7
    while step < WIDEST:
        gone.append(gone[-1] + step)
        step *= 1.5
    rest = end - start - gone[-1]
    count = math.ceil(rest / WIDEST)
    gone += [gone[-1] + rest * place / count for place in range(1, count + 1)]
    return [1 / (1 + math.exp(start + at)) for at in gone]


def exponential_power(start: float, end: float, degree: int) -> float:
    """The integral of e^u u^degree."""

    def primitive(u: float) -> float:
        total, factor = 0.0, 1.0
        for power in range(degree, -1, -1):
            total, factor = total + factor * u**power, -factor * power
        return math.exp(u) * total

    return primitive(end) - primitive(start)


def solution(variable: str, degree: int) -> tuple[Callable[[Tensor, float], Tensor], Tensor]:
    """The denoiser of a problem, and where the flow ends: d(x / sigma) = D d(1 / sigma), dx = slope d(sigma)."""
    if variable == SLOPE:
        moved = CONSTANT * (LAST - FIRST) + SHARE * (LAST ** (degree + 1) - FIRST ** (degree + 1)) / (degree + 1)
        return lambda x, sigma: x - sigma * (CONSTANT + SHARE * sigma**degree), START + moved
    if variable == RATIO:
        low, high = LAST / (1 - LAST), FIRST / (1 - FIRST)
        gained = {1: math.log(high / low), 2: high - low}[degree] * SHARE + CONSTANT * (1 / low - 1 / high)
        of_ratio = lambda x, sigma: torch.full_like(x, CONSTANT + SHARE * (sigma / (1 - sigma)) ** degree)  # noqa: E731
        return of_ratio, LAST * (START / FIRST + gained)
    place = (lambda sigma: math.log((1 - sigma) / sigma)) if variable == LOG_SNR else (lambda sigma: -math.log(sigma))
    ends = place(FIRST), place(LAST)
    gained = CONSTANT * exponential_power(*ends, 0) + SHARE * exponential_power(*ends, degree)
    return (
        lambda x, sigma: torch.full_like(x, CONSTANT + SHARE * place(sigma) ** degree),
        LAST * (START / FIRST + gained),
    )


NEWEST = {name: str(SOLVERS[name]) for name in EXACT}
CASES = [
    (NEWEST[name], variable, power) for name, (variable, degree) in EXACT.items() for power in range(1, degree + 1)
]


@pytest.mark.parametrize(("key", "variable", "degree"), CASES)
def test_a_rule_is_exact_on_the_powers_it_integrates(key: str, variable: str, degree: int) -> None:
    solver = DETERMINISTIC[key]
    denoiser, expected = solution(variable, degree)

    def both(x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        return Prediction(denoiser(x, sigma), denoiser(x, sigma))

    result = solve(solver, START, levels(), both, solver.ode_options)
    first = 1e-10 if solver.told is apart else 1e-11  # the square of the shortest step: those below a millionth are one
    assert (result - expected).abs().max() < first


def test_every_rule_above_order_1_is_exact_on_something_or_says_why_not() -> None:
    rules = {one.name for one in DETERMINISTIC.values() if one.order > 1 and not one.on_device}
    assert rules == {*EXACT, *CONSTANTS_ALONE, *SAME_RULE}
