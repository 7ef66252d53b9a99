"""The drift that a run with a step cache estimates of itself: exact where its assumptions hold, close on the demo."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.sampling.caches import Drift, Observed
from sigmagraph.engine.sampling.caches.drift import relative_distance

LEVELS = [1.0, 0.93, 0.8, 0.72, 0.55, 0.4, 0.31, 0.2, 0.08, 0.0]
FULL = {0, 1, 3, 6, 8}  # evaluations in which the model is asked
CHECKPOINT = Path(__file__).parents[2] / "models/checkpoints/sigmagraph-demo.safetensors"


def run_along(scale: float, degree: int) -> tuple[Drift, Tensor, Tensor]:
    """Two sides whose slopes are polynomials in the level and do not depend on the state.

    `degree` 0: the last slope stands in; 1: the line through the last two. The final states with and without.
    """
    generator = torch.Generator().manual_seed(degree)
    parts = torch.randn(2, degree + 2, 3, 4, 6, 6, generator=generator, dtype=torch.float64)

    def slope(side: int, sigma: float) -> Tensor:
        return torch.stack([part * sigma**power for power, part in enumerate(parts[side])]).sum(0)

    drift = Drift(lambda sigma, sides: (1.0 - scale, scale))
    x = torch.randn(3, 4, 6, 6, generator=generator, dtype=torch.float64)
    plain, known = x.clone(), list[float]()
    for place, (sigma, after) in enumerate(zip(LEVELS, LEVELS[1:], strict=False)):
        is_full, sides, slopes = place in FULL, [], []
        for side in (0, 1):
            true = slope(side, sigma)
            nodes = known[-1 - degree :]
            foretold = _extrapolated(nodes, [slope(side, node) for node in nodes], sigma) if nodes else true
            reach = 1.0 if len(nodes) == degree + 1 else 0.0
            for node in nodes:
                reach *= abs(node - sigma)
            taken = true if is_full else foretold
            checked = [is_full and reach > 0] * 3
            sides.append(Observed([is_full] * 3, checked, x - sigma * taken, x - sigma * foretold, [reach] * 3))
            slopes.append(taken)
        drift.observe(sigma, sides)
        known += [sigma] * is_full
        x = x + (after - sigma) * (slopes[0] * (1.0 - scale) + slopes[1] * scale)
        plain = plain + (after - sigma) * (slope(0, sigma) * (1.0 - scale) + slope(1, sigma) * scale)
    return drift, x, plain


def _extrapolated(nodes: list[float], values: list[Tensor], sigma: float) -> Tensor:
    total = torch.zeros_like(values[0])
    for at, value in enumerate(values):
        weight = 1.0
        for other in nodes:
            weight *= (sigma - other) / (nodes[at] - other) if other != nodes[at] else 1.0
        total = total + value * weight
    return total


@pytest.mark.parametrize("degree", [0, 1])
@pytest.mark.parametrize("scale", [1.0, 4.5])
def test_where_later_steps_change_no_error_the_estimate_is_the_distance(scale: float, degree: int) -> None:
    drift, final, plain = run_along(scale, degree)
    measured = relative_distance(final, plain)
    estimated = drift.finished(final) * final.flatten(1).std(1) / plain.flatten(1).std(1)
    assert float(measured.min()) > 1e-3
    torch.testing.assert_close(estimated.float(), measured, rtol=1e-3, atol=0)
    assert (drift.asked, drift.skipped, drift.is_blind) == (54, 2 * 3 * (9 - len(FULL)), False)


def test_an_estimate_without_a_second_look_at_the_model_says_so() -> None:
    x, drift = torch.randn(1, 4, 6, 6), Drift()
    drift.observe(1.0, [Observed([True], [False], x, None, [0.0])])
    for sigma in (0.8, 0.5):
        drift.observe(sigma, [Observed([False], [False], x, None, [1.0 - sigma])])
    assert drift.is_blind
    assert float(drift.finished(x)) > 0.1


@pytest.mark.slow
def test_estimates_are_within_a_factor_of_three_on_a_dozen_prompts() -> None:
    """benchmarks.step_caches over 200 prompts gave the factor; docs/step-caches.md has the figures."""
    from benchmarks.step_caches import CACHES, FACTOR, measured

    rows = list(measured(12, set()))
    assert len(rows) == 12 * len(CACHES)
    assert all(0 < row.skipped < row.asked for row in rows)
    close = [row for row in rows if row.factor <= FACTOR]
    assert len(close) >= 0.9 * len(rows), sorted((round(row.factor, 2), row.cache) for row in rows)[-8:]
