"""STORK: its inner rule summed beforehand is the rule stage by stage; what that leaves of stabilisation is stated."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling import SOLVERS
from sigmagraph.engine.sampling.solvers.parts.tableaux import EXPLICIT
from sigmagraph.engine.sampling.solvers.stork import gegenbauer_moments
from tests.sampling.closed_form import bumps, eased_in, measured_order, solve

pytestmark = pytest.mark.quick

START = torch.linspace(-2, 2, 7, dtype=torch.float64).reshape(1, 1, 7, 1)


def scale(j: int) -> Fraction:
    """b_j of the Gegenbauer rule (Skaras 2021)."""
    return (
        (Fraction(1), Fraction(1, 3))[j]
        if j < 2
        else Fraction(4 * (j - 1) * (j + 4), 3 * j * (j + 1) * (j + 2) * (j + 3))
    )


def stage_by_stage(stages: int, slope: list[Fraction]) -> Fraction:
    """RKG2 over a step of length 1 on y' = the polynomial in t with these coefficients, from 0, in rational numbers."""

    def rate(t: Fraction) -> Fraction:
        return sum((c * t**p for p, c in enumerate(slope)), Fraction(0))

    width = Fraction(6, (stages + 4) * (stages - 1))
    values = [Fraction(0), width * rate(Fraction(0))]
    for j in range(2, stages + 1):
        mu, nu = Fraction(2 * j + 1, j) * scale(j) / scale(j - 1), -Fraction(j + 1, j) * scale(j) / scale(j - 2)
        node = width if j == 2 else Fraction((j - 2) * (j + 3), (stages + 4) * (stages - 1))  # of stage j - 1
        first = -mu * width * (1 - Fraction(j * (j + 1), 2) * scale(j - 1))
        values.append(mu * values[-1] + nu * values[-2] + mu * width * rate(node) + first * rate(Fraction(0)))
    return values[-1]


@pytest.mark.parametrize("stages", [2, 3, 5, 50])
def test_the_moments_are_those_of_the_rule_stage_by_stage(stages: int) -> None:
    found = gegenbauer_moments(stages)
    for power in range(4):
        slope = [Fraction(int(power == place)) for place in range(4)]
        assert found[power] == pytest.approx(float(stage_by_stage(stages, slope)), rel=1e-12)
    assert found[:2] == pytest.approx((1.0, 0.5), rel=1e-13)  # order 2, whatever the number of stages
    assert abs(found[2] - 1 / 3) > 0.05  # and no more


def test_a_rule_of_order_4_has_the_exact_moments_so_that_stork_4_is_adams_bashforth() -> None:
    rule = next(one for one in EXPLICIT if one.name == "rk4")
    for power in range(4):
        moment = sum(weight * node**power for weight, node in zip(rule.weights, rule.nodes, strict=True))
        assert moment == Fraction(1, power + 1)
    sigmas = eased_in(0.9, 0.1, 12)
    for taylor in (1, 2, 3):
        found = solve(SOLVERS["stork_4"], START, sigmas, bumps, {"taylor": taylor})
        torch.testing.assert_close(found, solve(SOLVERS["lms"], START, sigmas, bumps, {"order": taylor + 1}))


@pytest.mark.parametrize(("name", "taylor", "order"), [("stork_2", 1, 2), ("stork_2", 3, 2), ("stork_4", 2, 3)])
def test_the_order_is_the_lesser_of_the_rule_s_and_the_polynomial_s(name: str, taylor: int, order: int) -> None:
    fixed = replace(SOLVERS[name], fixed={"taylor": taylor})
    assert order - 0.35 < measured_order(fixed, 64, 256) < order + 0.6


def test_two_stages_over_equal_steps_are_adams_bashforth_2_with_half_the_curvature() -> None:
    seen: list[Tensor] = []

    def denoiser(x: Tensor, sigma: float, needs_uncond: bool = False) -> Tensor:
        seen.append(x)
        return x - sigma * torch.full_like(x, sigma**2)  # slope sigma^2

    solve(
        SOLVERS["stork_2"],
        torch.zeros(1, 1, 1, 1, dtype=torch.float64),
        [1.0, 0.9, 0.8, 0.7, 0.6],
        denoiser,
        {"stages": 2},
    )
    # from 0.8 by the parabola: h v + h^2 v' / 2 + h^3 v'' / 2 * (1 / 2), v = sigma^2
    assert float(seen[3] - seen[2]) == pytest.approx(-0.1 * 0.64 + 0.005 * 1.6 - 0.001 / 2, rel=1e-12)


def test_a_single_stage_is_refused() -> None:
    with pytest.raises(BadValue, match=r"stages.*2 to 1000"):
        solve(SOLVERS["stork_2"], START, [0.9, 0.5], bumps, {"stages": 1})
