"""Laws over the registry: deterministic solvers converge at their order, stochastic ones to the right moments."""

import math

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.sampling import SOLVERS, ComfyNoise, Prediction
from sigmagraph.engine.sampling.solver import Noise
from sigmagraph.engine.sampling.solvers.parts.lagrange import exponential_integrals, exponential_moments, integrals
from tests.sampling.closed_form import GAUSS_MEAN, GAUSS_STD, bumps, carried, flow_error, gauss, measured_order, solve

pytestmark = pytest.mark.quick

EVERY = {f"{one.name}@{one.revision}": one for solver in SOLVERS.values() for one in (solver, *solver.older)}
DETERMINISTIC = {
    key: one for key, one in EVERY.items() if one.order > 0 and one.ode_options is not None and not one.is_adaptive
}
STOCHASTIC = {
    name: one
    for name, one in SOLVERS.items()
    if one.order > 0 and one.noise is not Noise.NONE and not one.on_device  # on a CPU those equal their twins
}


def steps_for(order: int) -> tuple[int, int]:
    """Enough for the leading error term to rule, and few enough that rounding does not."""
    if order > 4:
        return (32, 64) if order < 8 else (16, 32)
    return (64, 256) if order > 2 else (40, 160)


@pytest.mark.parametrize("key", DETERMINISTIC)
def test_error_shrinks_at_the_declared_order(key: str) -> None:
    solver = DETERMINISTIC[key]
    coarse, fine = steps_for(solver.order)
    # order 8 is at rounding before its leading term rules alone
    assert measured_order(solver, coarse, fine) > solver.order - (0.35 if solver.order < 8 else 0.7)


@pytest.mark.parametrize("key", [key for key, one in DETERMINISTIC.items() if one.inverts])
def test_error_shrinks_at_the_declared_order_on_the_way_up_too(key: str) -> None:
    solver = DETERMINISTIC[key]
    coarse, fine = steps_for(max(solver.order, 3))
    errors = [flow_error(solver, steps, first=0.1, last=0.9) for steps in (coarse, fine)]
    assert math.log(errors[0] / errors[1], fine / coarse) > solver.order - 0.35


@pytest.mark.parametrize("name", [name for name, one in SOLVERS.items() if one.is_adaptive])
def test_an_adaptive_solver_meets_a_tighter_tolerance_with_a_smaller_error(name: str) -> None:
    start = torch.linspace(-2.0, 2.0, 21, dtype=torch.float64).reshape(1, 1, 21, 1)
    exact = carried(start, 0.9, 0.1)
    errors = [
        float((solve(SOLVERS[name], start, [0.9, 0.1], bumps, {"rtol": t, "atol": t}) - exact).abs().max())
        for t in ((1e-2, 1e-4, 1e-6) if SOLVERS[name].order < 5 else (1e-4, 1e-6, 1e-8))
    ]
    assert errors[1] < errors[0] / 10
    assert errors[2] < errors[1] / 10
    assert errors[2] < 1e-5


@pytest.mark.parametrize("key", DETERMINISTIC)
def test_a_constant_estimate_is_integrated_exactly(key: str) -> None:
    target = torch.full((1, 1, 3, 3), 0.7, dtype=torch.float64)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(1, 1, 3, 3)
    sigmas = [0.95, 0.7, 0.55, 0.3, 0.12]

    def denoiser(x: torch.Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        return Prediction(target, target)

    solver = DETERMINISTIC[key]
    if key.startswith("sa_solver") and solver.revision == 1:
        sigmas = [*sigmas, 0.05]  # it returns the state one step early
    result = solve(solver, x, sigmas, denoiser, solver.ode_options)
    expected = target + (x - target) * (0.12 / 0.95)
    inexact = {"er_sde@1": 5e-3, "ipndm_v@1": 1.0, "deis@1": 1e-3}  # sums and weights that revision 2 corrects
    assert (result - expected).abs().max() < inexact.get(key, 1e-12)


def test_heun_is_exact_where_the_slope_is_linear_in_sigma() -> None:
    def denoiser(x: torch.Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        return Prediction(x - sigma * (0.3 + 1.7 * sigma))

    x = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    result = solve(SOLVERS["heun"], x, [0.9, 0.5, 0.4, 0.1], denoiser)
    assert torch.allclose(result, torch.full_like(x, 0.3 * (0.1 - 0.9) + 0.85 * (0.01 - 0.81)), atol=1e-14)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
def test_multistep_weights_integrate_polynomials_exactly(count: int) -> None:
    nodes = [1.0, 1.3, 1.45, 2.1, 2.2, 3.0][:count]
    for power in range(count):
        total = sum(w * node**power for w, node in zip(integrals(nodes, 1.0, 0.4), nodes, strict=True))
        assert total == pytest.approx((0.4 ** (power + 1) - 1) / (power + 1), rel=1e-10)


@pytest.mark.parametrize("rate", [1.0, 1.7, 2.0])
@pytest.mark.parametrize("width", [1e-4, 0.3, 3.9, 4.1, 30.0, math.inf])
def test_exponential_moments_agree_with_quadrature(rate: float, width: float) -> None:
    reach = min(width, 60.0)
    u = torch.linspace(-reach, 0, 400_001, dtype=torch.float64)
    for power, moment in enumerate(exponential_moments(-width, rate, 5)):
        quadrature = torch.trapezoid(rate * torch.exp(rate * u) * u**power, u)
        assert moment == pytest.approx(float(quadrature), rel=2e-6)


def test_exponential_weights_sum_to_the_whole_integral() -> None:
    weights = exponential_integrals([-1.0, -0.4, 0.1], 0.1, 0.9, 2.0)
    assert sum(weights) == pytest.approx(-math.expm1(-1.6), rel=1e-13)


@pytest.mark.parametrize("eta", [1.0, 0.5])
@pytest.mark.parametrize("name", STOCHASTIC)
def test_a_stochastic_solver_reproduces_mean_and_variance(name: str, eta: float) -> None:
    """From pure noise to a Gaussian in N steps: three standard errors, and a bias that falls like 6 / N or 3 / N."""
    solver, side = STOCHASTIC[name], 64
    has_eta = any(option.name == "eta" for option in solver.options)
    if not has_eta and eta != 1.0:
        eta = 1.0
    steps = 48 if solver.noise is Noise.BROWNIAN else 160
    start = ComfyNoise(5).initial(torch.zeros(1, 1, side, side)).double()
    sigmas = [1 - i / steps for i in range(steps)] + [0.0]
    result = solve(solver, start, sigmas, gauss, {"eta": eta} if has_eta else {}, ComfyNoise(77))
    mean_error = abs(float(result.mean()) - GAUSS_MEAN)
    spread_error = abs(float(result.var()) / GAUSS_STD**2 - 1)
    assert mean_error < 3 * GAUSS_STD / side + 1 / steps
    assert spread_error < 3 * math.sqrt(2) / side + (6 if solver.order == 1 else 3) / steps


COVARIANCE = torch.tensor([[0.50, 0.24], [0.24, 0.30]], dtype=torch.float64)  # a correlation of 0.62


def correlated(x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
    """The posterior mean where the two channels of every position are a correlated Gaussian pair."""
    a = 1.0 - sigma
    noised = a**2 * COVARIANCE + sigma**2 * torch.eye(2, dtype=torch.float64)
    gain = a * COVARIANCE @ noised.inverse()
    denoised = GAUSS_MEAN + torch.einsum("ij,bjhw->bihw", gain, x - a * GAUSS_MEAN)
    return Prediction(denoised, denoised)


@pytest.mark.parametrize("name", STOCHASTIC)
def test_a_stochastic_solver_reproduces_the_covariance_between_elements(name: str) -> None:
    """As above for every entry of the covariance, in units in which the exact one is the identity."""
    solver, side = STOCHASTIC[name], 64
    steps = 48 if solver.noise is Noise.BROWNIAN else 160
    start = ComfyNoise(5).initial(torch.zeros(1, 2, side, side)).double()
    sigmas = [1 - i / steps for i in range(steps)] + [0.0]
    result = solve(solver, start, sigmas, correlated, {}, ComfyNoise(77)).reshape(2, -1)
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(COVARIANCE), result, upper=False)
    found = torch.cov(whitened)
    bias = (6 if solver.order == 1 else 3) / steps
    assert float((found.diagonal() - 1).abs().max()) < 3 * math.sqrt(2) / side + bias
    assert abs(float(found[0, 1])) < 3 / side + bias
    assert float((result.mean(1) - GAUSS_MEAN).abs().max()) < 3 * float(COVARIANCE.max()) ** 0.5 / side + 1 / steps
