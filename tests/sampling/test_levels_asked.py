"""The levels at which a model and a Brownian tree are asked, bit for bit: another last bit may be other noise."""

from itertools import pairwise

import pytest
import torch

from sigmagraph.engine.sampling import ComfyNoise, Sampling, find_schedule, find_solver, run_sigmas, sd3, sdxl
from sigmagraph.engine.sampling.parameterisation import Parameterisation
from tests.sampling import recorded
from tests.sampling.closed_form import bumps
from tests.sampling.mixture import arrays

SCHEDULES = ("simple", "karras", "beta", "exponential", "sgm_uniform", "kl_optimal")


@pytest.mark.parametrize("name", ["dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"])
def test_every_recorded_level_of_a_brownian_sampler_is_asked_bit_for_bit(name: str) -> None:
    known = {key: levels for key, levels in arrays("evals").items() if f"evals_sigma/{name}/" in key}
    for outcome in recorded.grid(name, "flow_f32", ("cfg4.5",)):
        asked = torch.tensor(outcome.asked, dtype=torch.float64)
        levels = known.pop(f"evals_sigma/{outcome.key}", None)
        assert levels is None or torch.equal(asked, levels.double()), outcome.key
    assert not known


def middle(sigma: float, sigma_next: float, is_flow: bool) -> float:
    """Half way in log-SNR, each step of the way a float32 tensor."""
    a, b = torch.tensor(sigma), torch.tensor(sigma_next)
    if is_flow:
        low, high = -torch.logit(a), -torch.logit(b)
        return float(torch.sigmoid(-(low + 0.5 * (high - low))))
    low, high = -torch.log(a), -torch.log(b)
    return float(torch.exp(-(low + 0.5 * (high - low))))


@pytest.mark.parametrize("model", [sd3(), sd3(1.0), sdxl()], ids=["flow", "unshifted", "eps"])
def test_the_middle_of_a_step_is_the_float32_one_in_every_schedule(model: Parameterisation) -> None:
    is_flow, solver = model.target == "flow", find_solver("dpmpp_sde", 1)
    for name in SCHEDULES:
        for steps in (*range(2, 12), *range(12, 61, 4)):
            sigmas = run_sigmas(find_schedule(name, 1), model.levels, steps)
            asked: list[float] = []

            def denoiser(x: torch.Tensor, sigma: float, asked: list[float] = asked) -> torch.Tensor:
                asked.append(sigma)
                return x * 0.5

            Sampling(
                denoiser, torch.zeros(1, 1, 1, 1), sigmas, model, solver, noise=ComfyNoise(1), options={"s_noise": 0.0}
            ).run()
            first = asked[0]  # a run that begins with no signal starts a hair lower
            expected = []
            for sigma, sigma_next in pairwise([first, *sigmas[1:]]):
                expected += [sigma] if sigma_next == 0 else [sigma, middle(sigma, sigma_next, is_flow)]
            assert asked == expected, (name, steps)


@pytest.mark.parametrize("name", ["dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde", "res_2m_sde"])
@pytest.mark.parametrize("revision", [1, 2])
def test_levels_that_agree_to_six_decimals_are_a_step_like_any_other(name: str, revision: int) -> None:
    solver = find_solver(name).at(min(revision, find_solver(name).revision))
    latent = torch.zeros(1, 1, 8, 8)
    near, plain = (
        Sampling(bumps, latent, sigmas, sd3(), solver, noise=ComfyNoise(3)).run()
        for sigmas in ([1.0, 0.5, 0.4999997, 0.2, 0.0], [1.0, 0.5, 0.2, 0.0])
    )
    assert near.isfinite().all()
    # revision 1 of the multistep rules follows a line of no length through the next step
    assert (near - plain).abs().mean() < (0.05 if revision == 2 or name == "dpmpp_sde" else 0.3)


def test_ten_thousand_steps_whose_last_levels_nearly_agree_run_to_the_end() -> None:
    sigmas = run_sigmas(find_schedule("exponential"), sd3().levels, 10_000)
    tail = sigmas[-40:]
    result = Sampling(bumps, torch.zeros(1, 1, 2, 2), tail, sd3(), "dpmpp_2m_sde", noise=ComfyNoise(3)).run()
    assert result.isfinite().all()
