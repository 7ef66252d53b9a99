"""Bands of guidance add up to it; Rectified-CFG++ is Euler where it does not guide, and its formula where it does."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.sampling import SOLVERS, Cfg, Prediction
from sigmagraph.engine.sampling.guidance import Estimates, FrequencyDecoupled
from sigmagraph.engine.sampling.guidance.frequency_decoupled import bands
from tests.sampling.closed_form import bumps, solve
from tests.sampling.mixture import predict

pytestmark = pytest.mark.quick

SIGMAS = [0.9, 0.6, 0.3, 0.1, 0.0]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("size", [(16, 16), (9, 14), (6, 4), (2, 2)])
@pytest.mark.parametrize("levels", [2, 3, 6])
def test_bands_add_up_to_the_picture(size: tuple[int, int], levels: int) -> None:
    picture = drawn(2, 3, *size)
    found = bands(picture, levels)
    assert len(found) <= levels
    torch.testing.assert_close(torch.stack(found).sum(0), picture)


def test_bands_part_smooth_from_fine() -> None:
    ramp = torch.linspace(-1, 1, 32).double().expand(1, 1, 32, 32)
    checks = (torch.arange(32)[:, None] + torch.arange(32)).remainder(2).double()[None, None] * 2 - 1
    for picture, fine_share in ((ramp, 0.02), (checks, 0.98)):
        fine, _ = bands(picture, 2)
        inner = fine[..., 4:-4, 4:-4].square().mean() / picture[..., 4:-4, 4:-4].square().mean()
        assert float(inner) < fine_share if fine_share < 0.5 else float(inner) > fine_share


def test_equal_scales_of_all_bands_are_a_guidance_scale() -> None:
    known = Estimates(drawn(2, 3, 12, 10), 0.7, drawn(2, 3, 12, 10, seed=1), drawn(2, 3, 12, 10, seed=2))
    changed = FrequencyDecoupled(0.5, 0.5, 3)(known)
    torch.testing.assert_close(changed.cond - known.uncond, (known.cond - known.uncond) / 2)
    assert FrequencyDecoupled(1.0, 1.0)(known) is known


def test_low_and_high_bands_have_the_scales_that_are_theirs() -> None:
    known = Estimates(drawn(1, 3, 16, 16), 0.7, drawn(1, 3, 16, 16, seed=1), drawn(1, 3, 16, 16, seed=2))
    fine, middle, rest = bands(known.cond - known.uncond, 3)
    changed = FrequencyDecoupled(low=0.2, high=1.4, levels=3)(known)
    torch.testing.assert_close(changed.cond - known.uncond, 1.4 * fine + 0.8 * middle + 0.2 * rest)


def sides(x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
    return Prediction(x * (1 - sigma), x * 0.5)


def test_rectified_cfg_pp_without_strength_is_euler_bit_for_bit() -> None:
    x = drawn(1, 1, 4, 4)
    euler = solve(SOLVERS["euler"], x, SIGMAS, sides)
    assert torch.equal(solve(SOLVERS["rectified_cfg_pp"], x, SIGMAS, sides, {"strength": 0.0}), euler)
    agreeing = solve(SOLVERS["rectified_cfg_pp"], x, SIGMAS, bumps)
    torch.testing.assert_close(agreeing, solve(SOLVERS["euler"], x, SIGMAS, bumps), rtol=1e-13, atol=1e-13)


def test_rectified_cfg_pp_takes_the_difference_half_a_step_ahead() -> None:
    x = expected = drawn(1, 1, 4, 4)
    for sigma, sigma_next in pairwise(SIGMAS):
        slope, middle = expected * sigma / sigma, (sigma + sigma_next) / 2  # D = x (1 - sigma)
        ahead = expected + slope * (middle - sigma)
        away = (ahead * 0.5 - ahead * (1 - middle)) / middle  # u - d at the middle, as slopes: -(d - u)
        expected = expected + (slope + 3.0 * (1 - sigma) ** 0.7 * away) * (sigma_next - sigma)
    found = solve(SOLVERS["rectified_cfg_pp"], x, SIGMAS, sides, {"strength": 3.0, "gamma": 0.7})
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_at_guidance_scale_1_a_step_asks_for_three_estimates() -> None:
    asked: list[int] = []
    model = predict("flow")

    def counting(x: Tensor, sigma: float, conditionings: list[str]) -> list[Tensor]:
        asked.append(len(conditionings))
        return model(x, sigma, conditionings)

    solve(SOLVERS["rectified_cfg_pp"], drawn(1, 16, 6, 4), SIGMAS, Cfg(counting, "pos", "neg", 1.0))  # type: ignore[arg-type]
    assert asked == [1, 2] * 4
