"""k-diffusion's own functions: as an independent oracle, and as samplers through the adapter; ours as its functions."""

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue, UnknownName
from sigmagraph.engine.registry import Registry
from sigmagraph.engine.sampling import SCHEDULES, SOLVERS, ComfyNoise, Prediction, Sampling, edm
from sigmagraph.engine.sampling.k_diffusion import as_k_diffusion, from_k_diffusion
from sigmagraph.engine.sampling.levels import Span
from sigmagraph.engine.sampling.noise import NoiseSpec, Seeding
from sigmagraph.engine.sampling.solver import Noise, Solver
from sigmagraph.engine.sampling.solver_run import SolverRun, context_of, drive
from tests.oracles import k_diffusion_sampling
from tests.sampling.closed_form import GAUSS_MEAN, GAUSS_STD

VE = edm(0.02, 12.0)
SIGMAS = [12.0, 7.0, 4.1, 2.2, 1.0, 0.45, 0.2, 0.07, 0.0]
START = torch.linspace(-20, 20, 48, dtype=torch.float64).reshape(2, 1, 4, 6)


def gauss_ve(x: Tensor, sigma: Tensor | float, **_: Any) -> Tensor:
    """The posterior mean under two Gaussians of one width, alpha = 1: nonlinear, closed form."""
    variance = GAUSS_STD**2 + float(sigma if isinstance(sigma, float) else sigma[0]) ** 2
    tilt = torch.tanh(x * GAUSS_MEAN / variance)
    mean = GAUSS_MEAN * tilt
    return mean + GAUSS_STD**2 / variance * (x - mean)


def denoiser(x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
    return Prediction(gauss_ve(x, sigma))


def ours(solver: Solver, sigmas: list[float] = SIGMAS, **options: Any) -> Tensor:
    steps = drive(
        SolverRun(solver, START, sigmas, context_of(solver, START, sigmas, VE, ComfyNoise(11)), options), denoiser
    )
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Tensor = end.value
            return result


def noise_of(solver: Solver, sigmas: list[float] = SIGMAS) -> Any:
    context = context_of(solver, START, sigmas, VE, ComfyNoise(11))
    if solver.noise is Noise.BROWNIAN:
        return lambda sigma, sigma_next: context.brownian(float(sigma), float(sigma_next))
    return lambda sigma, sigma_next: context.draw()


SAME = {
    "euler": "sample_euler",
    "heun": "sample_heun",
    "dpm_2": "sample_dpm_2",
    "dpmpp_2m": "sample_dpmpp_2m",
    "euler_ancestral": "sample_euler_ancestral",
    "dpm_2_ancestral": "sample_dpm_2_ancestral",
    "dpmpp_2s_ancestral": "sample_dpmpp_2s_ancestral",
    "dpmpp_sde": "sample_dpmpp_sde",
    "dpmpp_2m_sde": "sample_dpmpp_2m_sde",
    "dpmpp_3m_sde": "sample_dpmpp_3m_sde",
}


@pytest.mark.parametrize("name", SAME)
def test_revision_1_equals_k_diffusion_with_the_same_noise(name: str) -> None:
    solver = SOLVERS[name].at(1)
    extra = {} if solver.noise is Noise.NONE else {"noise_sampler": noise_of(solver)}
    function = getattr(k_diffusion_sampling(), SAME[name])
    theirs = function(gauss_ve, START, torch.tensor(SIGMAS, dtype=torch.float64), disable=True, **extra)
    assert (ours(solver) - theirs).abs().max() < 1e-11


def test_dpmpp_2m_sde_heun_equals_k_diffusion() -> None:
    solver = SOLVERS["dpmpp_2m_sde_heun"].at(1)
    theirs = k_diffusion_sampling().sample_dpmpp_2m_sde(
        gauss_ve,
        START,
        torch.tensor(SIGMAS, dtype=torch.float64),
        disable=True,
        noise_sampler=noise_of(solver),
        solver_type="heun",
    )
    assert (ours(solver) - theirs).abs().max() < 1e-11


def test_lms_equals_k_diffusion_but_for_its_last_step() -> None:
    sigmas = SIGMAS[:-1]
    theirs = k_diffusion_sampling().sample_lms(gauss_ve, START, torch.tensor(sigmas, dtype=torch.float64), disable=True)
    assert (ours(SOLVERS["lms"], sigmas) - theirs).abs().max() < 1e-4  # its quadrature stops at 1e-4


@pytest.fixture
def _wide_numbers() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("_wide_numbers")
def test_dpm_fast_and_dpm_adaptive_equal_k_diffusion() -> None:
    module = k_diffusion_sampling()
    fast = module.sample_dpm_fast(gauss_ve, START, 0.07, 12.0, 8, disable=True)
    assert (ours(SOLVERS["dpm_fast"].at(1)) - fast).abs().max() < 1e-11
    adaptive = module.sample_dpm_adaptive(gauss_ve, START, 0.07, 12.0, disable=True)
    assert (ours(SOLVERS["dpm_adaptive"].at(1)) - adaptive).abs().max() < 1e-11


@pytest.mark.parametrize("name", SAME)
def test_a_function_of_theirs_runs_unchanged_as_a_sampler(name: str) -> None:
    registry: Registry[Solver] = Registry("sampler")
    function = getattr(k_diffusion_sampling(), SAME[name])
    declared = SOLVERS[name].at(1)
    made = from_k_diffusion(
        function, f"kd_{name}", order=declared.order, noise=declared.noise, registry=registry, seeding=Seeding.SAME
    )
    assert list(registry) == [f"kd_{name}"]
    latent, seen = torch.zeros(2, 1, 4, 6, dtype=torch.float64), list[float]()
    result = Sampling(denoiser, latent, SIGMAS, VE, made, noise=ComfyNoise(3)).run(
        on_tick=lambda tick: seen.append(tick.sigma)
    )
    expected = Sampling(denoiser, latent, SIGMAS, VE, declared, noise=ComfyNoise(3)).run()
    assert (result - expected).abs().max() < 1e-10
    assert len(seen) >= len(SIGMAS) - 1


def test_closing_a_run_stops_the_functions_thread() -> None:
    made = from_k_diffusion(k_diffusion_sampling().sample_euler, "kd", order=1, registry=None)
    run = SolverRun(made, START, SIGMAS, context_of(made, START, SIGMAS, VE, ComfyNoise(1)), {})
    run.answer(Prediction(START * 0.5))
    run.close()
    assert run.evaluations == 1


def test_an_error_inside_a_function_comes_out_of_the_run() -> None:
    def broken(model: Any, x: Tensor, sigmas: Tensor, *_: Any) -> Tensor:
        model(x, sigmas[:1])
        raise ValueError("their own mistake")

    made = from_k_diffusion(broken, "broken", order=1, registry=None)
    with pytest.raises(ValueError, match="their own mistake"):
        Sampling(denoiser, torch.zeros(1, 1, 2, 2), SIGMAS, VE, made, noise=ComfyNoise(1)).run()


def test_our_samplers_can_be_called_as_k_diffusions_functions() -> None:
    function = as_k_diffusion(SOLVERS["heun"], VE)
    calls: list[dict[str, Any]] = []
    result = function(gauss_ve, START, torch.tensor(SIGMAS, dtype=torch.float64), {}, calls.append, True, s_noise=1.0)
    theirs = k_diffusion_sampling().sample_heun(
        gauss_ve, START, torch.tensor(SIGMAS, dtype=torch.float64), disable=True
    )
    assert (result - theirs).abs().max() < 1e-11
    assert len(calls) == 15
    assert set(calls[0]) >= {"x", "i", "sigma", "denoised"}


@pytest.mark.parametrize("name", [name for name, one in SOLVERS.items() if not one.needs_uncond])
def test_every_sampler_of_ours_called_in_their_way_is_itself(name: str) -> None:
    solver = SOLVERS[name]
    calls: list[dict[str, Any]] = []
    function = as_k_diffusion(solver, VE, ComfyNoise(11))
    result = function(gauss_ve, START, torch.tensor(SIGMAS, dtype=torch.float64), None, calls.append)
    assert torch.equal(result, ours(solver))
    assert len(calls) >= 1


def test_our_samplers_called_in_their_way_check_the_levels_too() -> None:
    function = as_k_diffusion(SOLVERS["heun"], VE)
    with pytest.raises(BadValue, match=r"sigmas\[2\]"):
        function(gauss_ve, START, torch.tensor([2.0, 1.0, float("nan"), 0.0]))


def test_numbers_texts_and_truth_values_of_a_function_are_options_of_the_sampler() -> None:
    made = from_k_diffusion(
        k_diffusion_sampling().sample_dpmpp_2m_sde, "kd", order=2, noise=Noise.BROWNIAN, registry=None
    )
    assert {option.name: option.default for option in made.options} == {
        "eta": 1.0,
        "s_noise": 1.0,
        "solver_type": "midpoint",
    }
    latent = torch.zeros(2, 1, 4, 6, dtype=torch.float64)
    settings = {"eta": 0.5, "solver_type": "heun"}
    result = Sampling(denoiser, latent, SIGMAS, VE, made, noise=ComfyNoise(3), options=settings).run()
    expected = Sampling(
        denoiser, latent, SIGMAS, VE, SOLVERS["dpmpp_2m_sde"].at(1), noise=ComfyNoise(3), options=settings
    ).run()
    assert (result - expected).abs().max() < 1e-10
    with pytest.raises(UnknownName, match="did you mean 'eta'"):
        Sampling(denoiser, latent, SIGMAS, VE, made, noise=ComfyNoise(3), options={"etta": 1.0}).run()
    with pytest.raises(BadValue, match="float from"):
        Sampling(denoiser, latent, SIGMAS, VE, made, noise=ComfyNoise(3), options={"eta": "much"}).run()


def test_schedules_it_has_are_the_same() -> None:
    module, span = k_diffusion_sampling(), Span(0.03, 14.6)
    pairs = {
        "karras": module.get_sigmas_karras(12, 0.03, 14.6),
        "exponential": module.get_sigmas_exponential(12, 0.03, 14.6),
        "polyexponential": module.get_sigmas_polyexponential(12, 0.03, 14.6, rho=1.0),
        "vp": module.get_sigmas_vp(12),
    }
    for name, theirs in pairs.items():
        assert SCHEDULES[name](span, 12) == pytest.approx(theirs.tolist(), rel=5e-4)  # exp(x) - 1 without expm1


def test_the_brownian_tree_is_torchsdes() -> None:
    torchsde = importlib.import_module("torchsde")
    start = torch.zeros(3, 5)
    tree = torchsde.BrownianTree(0.03125, start, 1.0, entropy=77, tol=1e-6, pool_size=24)
    ours = ComfyNoise(77).streams(start, NoiseSpec(0.03125, 1.0))
    for sigma, sigma_next in ((1.0, 0.7), (0.7, 0.31), (0.31, 0.3), (0.9, 0.123456), (0.123456, 0.03125)):
        high, low = torch.tensor([sigma, sigma_next])
        theirs = -tree(low, high) / (high - low).sqrt()
        assert (ours.brownian(sigma, sigma_next) - theirs).abs().max() < 1e-5
