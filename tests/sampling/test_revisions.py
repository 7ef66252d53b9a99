"""What revision 2 changes, one test a place: revision 1 shows the recorded quirk, revision 2 does not."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.sampling import (
    SOLVERS,
    ComfyNoise,
    NoiseSource,
    Parameterisation,
    PhiloxNoise,
    Prediction,
    Sampling,
    find_schedule,
    find_solver,
    run_sigmas,
    sd3,
    sdxl,
)
from sigmagraph.engine.sampling.noise import NoiseSpec, Streams
from sigmagraph.engine.sampling.solver import Noise
from sigmagraph.engine.sampling.solver_run import context_of
from tests.sampling.closed_form import GAUSS_MEAN, GAUSS_STD, bumps, carried, eased_in, gauss, measured_order, solve

FLOW = sd3()
COMFY_NAMES = [name for name, one in SOLVERS.items() if one.older]


def moments(name: str, revision: int, steps: int = 64, seeds: tuple[int, int] = (5, 5), **options: Any) -> Tensor:
    """(mean error, variance ratio) of a run from pure noise to a Gaussian; by default one seed for everything."""
    start = ComfyNoise(seeds[0]).initial(torch.zeros(1, 1, 64, 64)).double()
    sigmas = [1 - i / steps for i in range(steps)] + [0.0]
    result = solve(find_solver(name, revision), start, sigmas, gauss, options, ComfyNoise(seeds[1]))
    return torch.stack([result.mean() - GAUSS_MEAN, result.var() / GAUSS_STD**2])


SEQUENTIAL = [name for name in COMFY_NAMES if SOLVERS[name].noise is Noise.SEQUENCE and name != "lcm_upscale"]


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_1_the_first_drawn_noise_is_the_initial_noise_in_revision_1_only(name: str) -> None:
    x = ComfyNoise(31).initial(torch.zeros(1, 1, 32, 32))

    def likeness(revision: int) -> float:
        drawn = context_of(find_solver(name, revision), x, [1.0, 0.5, 0.0], FLOW, ComfyNoise(31)).draw()
        return float(torch.corrcoef(torch.stack([x.flatten(), drawn.flatten()]))[0, 1])

    assert likeness(1) == pytest.approx(1.0, abs=1e-6)
    assert abs(likeness(2)) < 4 / 32


@pytest.mark.parametrize("name", ["ddpm", "res_multistep_ancestral", "res_multistep_ancestral_cfg_pp"])
def test_2_noise_added_to_flow_states_as_if_alpha_were_1_makes_them_too_bright(name: str) -> None:
    _, old = moments(name, 1)
    mean_error, new = moments(name, 2, seeds=(5, 77))
    assert old > 1.5
    assert abs(new - 1) < 0.25
    assert abs(mean_error) < 0.04


def gauss_ve(x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
    """The posterior mean under one Gaussian where alpha = 1."""
    denoised = GAUSS_MEAN + GAUSS_STD**2 / (GAUSS_STD**2 + sigma**2) * (x - GAUSS_MEAN)
    return Prediction(denoised, denoised)


@pytest.mark.parametrize("name", ["res_multistep_ancestral", "res_multistep_ancestral_cfg_pp"])
@pytest.mark.parametrize(
    ("parameterisation", "denoiser", "limit"), [(FLOW, gauss, 0.1), (sdxl(), gauss_ve, 0.25)], ids=["flow", "eps"]
)
def test_2_a_line_is_not_followed_through_what_noise_did_to_the_last_two_estimates(
    name: str, parameterisation: Parameterisation, denoiser: Any, limit: float
) -> None:
    sigmas = run_sigmas(find_schedule("karras"), parameterisation.levels, 20)
    latent = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    result = Sampling(denoiser, latent, sigmas, parameterisation, find_solver(name, 2), noise=PhiloxNoise(4)).run()
    assert abs(float(result.var()) / GAUSS_STD**2 - 1) < limit
    # an eta that renews all noise in some steps only: nothing is known of where the step before went
    options = {"eta": 1.3}
    result = Sampling(denoiser, latent, sigmas, parameterisation, name, noise=PhiloxNoise(4), options=options).run()
    assert abs(float(result.var()) / GAUSS_STD**2 - 1) < 1


VE_NOISE = ["ddpm", "res_multistep_ancestral", "res_multistep_ancestral_cfg_pp", "dpmpp_2s_ancestral_cfg_pp"]


@pytest.mark.parametrize("name", VE_NOISE)
def test_2_the_signal_has_the_scale_of_its_level_after_a_step(name: str) -> None:
    target = torch.ones(1, 1, 64, 64, dtype=torch.float64)

    def scale(revision: int) -> float:
        steps = Sampling(
            lambda x, sigma, needs_uncond=False: Prediction(target, target),
            target,
            [0.8, 0.5, 0.0],
            FLOW,
            find_solver(name, revision),
            noise=PhiloxNoise(8),
        ).ticks()
        return float(next(tick.x.mean() for tick in steps if tick.step == 1))

    assert scale(1) > 0.5 + 4 / 64
    assert scale(2) == pytest.approx(0.5, abs=3 * 0.5 / 64)


@pytest.mark.parametrize("name", ["dpm_fast", "dpm_adaptive"])
def test_3_solvers_in_minus_ln_sigma_reach_zero(name: str) -> None:
    start = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(1, 1, 3, 3)
    sigmas = [0.9, 0.7, 0.5, 0.25, 0.0]

    def noise_left(revision: int) -> float:
        target = torch.full_like(start, 0.3)
        result = solve(find_solver(name, revision), start, sigmas, lambda x, s, needs_uncond=False: Prediction(target))
        return float((result - target).abs().max())

    assert noise_left(1) > 0.4
    assert noise_left(2) < 1e-12


@pytest.mark.parametrize("name", ["dpmpp_2m", "res_multistep", "dpmpp_2m_sde", "dpmpp_3m_sde"])
def test_4_a_line_through_two_estimates_is_not_followed_thirty_times_their_distance(name: str) -> None:
    start = torch.linspace(-2.0, 2.0, 25, dtype=torch.float64).reshape(1, 1, 5, 5)
    sigmas = [0.95, 0.9, 0.8, 0.65, 0.465, 0.278, 0.0089]  # the end of `normal`, revision 1, in ten steps
    exact = carried(start, 0.95, 0.0089)

    def error(revision: int) -> float:
        one = find_solver(name, revision)
        return float((solve(one, start, sigmas, bumps, one.ode_options) - exact).square().mean().sqrt())

    assert error(2) < error(1) * 0.6


@pytest.mark.parametrize("name", ["uni_pc", "uni_pc_bh2", "dpmpp_3m_sde", "dpmpp_2m"])
@pytest.mark.parametrize(("parameterisation", "denoiser"), [(FLOW, gauss), (sdxl(), gauss_ve)], ids=["flow", "eps"])
def test_4_the_long_last_step_of_normal_leaves_the_variance_near_the_data(
    parameterisation: Parameterisation, denoiser: Any, name: str
) -> None:
    sigmas = run_sigmas(find_schedule("normal"), parameterisation.levels, 20)
    assert sigmas[-3] > 7 * sigmas[-2]
    latent = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    result = Sampling(denoiser, latent, sigmas, parameterisation, find_solver(name, 2), noise=PhiloxNoise(4)).run()
    assert abs(float(result.var()) / GAUSS_STD**2 - 1) < 0.5  # up to four times the data's without the bound


@pytest.mark.parametrize(
    ("name", "old"), [("ipndm_v", 2.5), ("ipndm", 2.5), ("heunpp2", 1.2), ("gradient_estimation", 1.2)]
)
def test_5_6_7_16_rules_with_wrong_weights_gain_their_order(name: str, old: float) -> None:
    assert measured_order(find_solver(name, 1), 64, 256) < old
    assert measured_order(find_solver(name, 2), 64, 256) > find_solver(name, 2).order - 0.35


@pytest.mark.parametrize("name", ["uni_pc", "uni_pc_bh2"])
def test_8_unipc_ends_at_zero_and_is_not_divided_by_0_999(name: str) -> None:
    target = torch.full((1, 1, 2, 2), 0.3)

    def result(revision: int, steps: int) -> Tensor:
        sigmas = run_sigmas(find_schedule("simple", 1), FLOW.levels, steps)
        answer = lambda x, sigma, needs_uncond=False: Prediction(target)  # noqa: E731
        return Sampling(
            answer, torch.zeros(1, 1, 2, 2), sigmas, FLOW, find_solver(name, revision), noise=ComfyNoise(1)
        ).run()

    assert torch.allclose(result(2, 8), target, atol=1e-6)
    assert torch.allclose(result(2, 1), target, atol=1e-6)
    assert (result(1, 8) - target).abs().max() > 2e-4
    assert (result(1, 1) - target).abs().max() > 0.1


@pytest.mark.parametrize("name", ["dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"])
def test_9_no_level_is_dropped_before_the_end(name: str) -> None:
    assert find_solver(name, 1).drops_penultimate
    assert not find_solver(name, 2).drops_penultimate


@pytest.mark.parametrize("name", ["dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"])
def test_9_the_level_that_is_kept_brings_the_result_nearer_to_the_exact_one(name: str) -> None:
    start = torch.linspace(-2.0, 2.0, 25, dtype=torch.float64).reshape(1, 1, 5, 5)
    exact = carried(start, 1.0, 0.0)

    def error(revision: int) -> float:
        one = find_solver(name, revision)
        sigmas = run_sigmas(find_schedule("simple"), FLOW.levels, 20, 1.0, one.drops_penultimate)
        return float((solve(one, start, sigmas, bumps, one.ode_options) - exact).square().mean().sqrt())

    assert error(2) < error(1) * 0.75


@pytest.mark.parametrize("name", ["sa_solver", "sa_solver_pece"])
def test_10_sa_solver_returns_the_state_at_the_last_level(name: str) -> None:
    start = torch.linspace(-2.0, 2.0, 25, dtype=torch.float64).reshape(1, 1, 5, 5)
    sigmas = eased_in(0.9, 0.3, 32)
    exact = carried(start, 0.9, 0.3)
    errors = [
        float((solve(find_solver(name, r), start, sigmas, bumps, {"eta": 0.0}) - exact).abs().max()) for r in (1, 2)
    ]
    assert errors[0] > 1e-2
    assert errors[1] < 1e-4


PLAIN = {
    "euler_cfg_pp": "euler",
    "euler_ancestral_cfg_pp": "euler_ancestral",
    "dpmpp_2m_cfg_pp": "dpmpp_2m",
    "res_multistep_cfg_pp": "res_multistep",
    "res_multistep_ancestral_cfg_pp": "res_multistep_ancestral",
    "gradient_estimation_cfg_pp": "gradient_estimation",
}


@pytest.mark.parametrize("name", PLAIN)
def test_11_where_both_estimates_agree_cfg_pp_is_its_plain_twin(name: str) -> None:
    latent = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    sigmas = [1.0, 0.85, 0.6, 0.4, 0.15, 0.0]
    results = [
        Sampling(bumps, latent, sigmas, FLOW, find_solver(one, 2), noise=ComfyNoise(2)).run()
        for one in (name, PLAIN[name])
    ]
    assert (results[0] - results[1]).abs().max() < 1e-12


def test_11_the_two_stage_cfg_pp_rule_uses_estimates_of_one_evaluation() -> None:
    assert measured_order(find_solver("dpmpp_2s_ancestral_cfg_pp", 1)) < 0.2
    assert measured_order(find_solver("dpmpp_2s_ancestral_cfg_pp", 2)) > 1.65


def test_12_ancestral_cfg_pp_keeps_its_share_of_the_first_noise() -> None:
    latent = torch.zeros(1, 1, 64, 64)

    def kept(revision: int, eta: float) -> float:
        """How much of the initial noise is left after the first step from pure noise."""
        seen: list[Tensor] = []
        solver = find_solver("euler_ancestral_cfg_pp", revision)

        def denoiser(x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
            seen.append(x)
            return Prediction(x * 0, x * 0)

        Sampling(denoiser, latent, [1.0, 0.8, 0.0], FLOW, solver, noise=ComfyNoise(1), options={"eta": eta}).run()
        return float(torch.corrcoef(torch.stack([seen[0].flatten(), seen[1].flatten()]))[0, 1])

    # down to 0.8 (1 - 0.2 eta) = 0.72, then scaled by 0.2 / 0.28 on the way back up to 0.8
    assert kept(2, 0.5) == pytest.approx(0.72 * 0.2 / 0.28 / 0.8, abs=0.05)
    assert kept(2, 0.1) > kept(2, 0.9)
    assert kept(1, 0.5) == pytest.approx(kept(1, 0.9), abs=1e-6)


FROM_NO_SIGNAL = ["dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde", "er_sde", "seeds_2", "seeds_3", "sa_solver"]


@pytest.mark.parametrize("name", FROM_NO_SIGNAL)
def test_13_a_run_from_pure_noise_asks_about_the_level_its_state_is_at(name: str) -> None:
    def first_level(revision: int) -> float:
        steps = Sampling(
            bumps, torch.zeros(1, 1, 2, 2), [1.0, 0.6, 0.0], FLOW, find_solver(name, revision), noise=ComfyNoise(1)
        ).ticks()
        return next(steps).sigma

    assert first_level(1) == pytest.approx(0.99996667, abs=1e-7)
    assert first_level(2) == 1.0


@pytest.mark.parametrize("name", FROM_NO_SIGNAL)
def test_13_the_limit_at_no_signal_has_the_right_moments(name: str) -> None:
    mean_error, ratio = moments(name, 2, steps=48, seeds=(5, 77))
    assert abs(mean_error) < 3 * GAUSS_STD / 64 + 0.02
    assert abs(ratio - 1) < 3 * math.sqrt(2) / 64 + 0.05


@pytest.mark.parametrize("name", ["er_sde", "sa_solver", "sa_solver_pece"])
@pytest.mark.parametrize("near", [0.4999999, 0.49999999])
def test_levels_that_are_equal_to_seven_digits_are_one(name: str, near: float) -> None:
    """A slope over such a step is that of the noise drawn in it: it led 45 to 48,000 spreads away."""

    def final(sigmas: list[float]) -> Tensor:
        return Sampling(bumps, torch.zeros(1, 1, 8, 8), sigmas, FLOW, find_solver(name, 2), noise=ComfyNoise(1)).run()

    assert torch.equal(final([1.0, 0.8, 0.5, near, 0.2, 0.1, 0.0]), final([1.0, 0.8, 0.5, 0.2, 0.1, 0.0]))


def test_14_kl_optimal_has_its_limit_in_one_step() -> None:
    assert find_schedule("kl_optimal", 1)(FLOW.levels, 1) == [1.0, 0.0]
    assert find_schedule("kl_optimal", 1)(sdxl().levels, 1) == [sdxl().levels.sigma_max, 0.0]


def test_15_deis_integrates_exactly_and_its_sum_comes_close() -> None:
    start = torch.linspace(-2.0, 2.0, 25, dtype=torch.float64).reshape(1, 1, 5, 5)
    sigmas = eased_in(0.9, 0.1, 24)
    exact_rule = solve(find_solver("deis", 2), start, sigmas, bumps)
    assert torch.equal(exact_rule, solve(find_solver("lms", 2), start, sigmas, bumps, {"order": 3}))
    summed = solve(find_solver("deis", 1), start, sigmas, bumps)
    assert 1e-9 < (exact_rule - summed).abs().max() < 1e-2


@pytest.mark.parametrize("name", COMFY_NAMES)
def test_17_a_masked_run_ends_with_the_kept_region_as_it_was(name: str) -> None:
    latent = torch.linspace(-1, 1, 16).reshape(1, 1, 4, 4)
    mask = torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(4, 1)
    sigmas = [1.0, 0.7, 0.4, 0.1, 0.0]
    result = Sampling(bumps, latent, sigmas, FLOW, find_solver(name, 2), noise=ComfyNoise(1), mask=mask).run()
    assert torch.equal(result[..., :2], latent[..., :2])


def test_17_ddim_shows_the_model_the_noise_the_run_started_from() -> None:
    latent, mask = torch.zeros(1, 1, 8, 8), torch.zeros(8, 8)

    def seen(revision: int) -> Tensor:
        states: list[Tensor] = []

        def denoiser(x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
            states.append(x)
            return bumps(x, sigma)

        Sampling(
            denoiser, latent, [1.0, 0.5, 0.0], FLOW, find_solver("ddim", revision), noise=ComfyNoise(1), mask=mask
        ).run()
        return states[0]

    assert torch.equal(seen(2), ComfyNoise(1).initial(latent))
    assert torch.equal(seen(1), ComfyNoise(2).initial(latent))


@pytest.mark.parametrize("name", ["ipndm", "ipndm_v", "deis", "uni_pc"])
def test_18_ticks_show_the_state_that_was_reached(name: str) -> None:
    target = torch.full((1, 1, 2, 2), 0.3)
    sigmas: Sequence[float] = [1.0, 0.7, 0.4, 0.0]
    ticks = list(
        Sampling(
            lambda x, s, needs_uncond=False: Prediction(target), target * 0, sigmas, FLOW, name, noise=ComfyNoise(1)
        ).ticks()
    )
    noise = ComfyNoise(1).initial(target)
    for tick in ticks:
        level = sigmas[tick.step]
        assert torch.allclose(tick.x, target + (noise - target) * level, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "old"), [("dpmpp_3m_sde", 2.3), ("er_sde", 2.3), ("uni_pc", 2.3), ("uni_pc_bh2", 2.3)]
)
def test_rules_that_the_order_law_found_an_order_short_are_mended(name: str, old: float) -> None:
    assert measured_order(find_solver(name, 1), 64, 256) < old
    assert measured_order(find_solver(name, 2), 64, 256) > 2.65


def test_19_an_image_depends_on_its_batch_by_its_noise_alone_and_with_counters_not_at_all() -> None:
    alone, batch = torch.zeros(1, 1, 4, 4), torch.zeros(3, 1, 4, 4)
    sigmas = [1.0, 0.7, 0.4, 0.1, 0.0]

    def curved(x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        """Correctly rounded operations alone: softmax may differ in the last bit with size and threads."""
        denoised = x / (x * x + (1.0 + sigma))
        return Prediction(denoised, denoised)

    def first_images(name: str, revision: int, source: NoiseSource) -> tuple[Tensor, Tensor]:
        solver = find_solver(name, revision)
        one, many = (Sampling(curved, latent, sigmas, FLOW, solver, noise=source).run() for latent in (alone, batch))
        return one, many[:1]

    assert not torch.allclose(*first_images("euler_ancestral", 1, ComfyNoise(3)), atol=1e-3)
    assert torch.equal(*first_images("euler_ancestral", 2, PhiloxNoise(3)))
    assert not torch.equal(*first_images("dpm_adaptive", 1, PhiloxNoise(3)))  # one step size for all images
    assert torch.equal(*first_images("dpm_adaptive", 2, PhiloxNoise(3)))


class CountedChurn(ComfyNoise):
    """Counts the draws for churn."""

    counts: dict[str, int]

    def streams(self, like: Tensor, spec: NoiseSpec) -> Streams:
        streams = super().streams(like, spec)

        def churn() -> Tensor:
            self.counts["churn"] += 1
            return streams.churn()

        return replace(streams, churn=churn)


@pytest.mark.parametrize(("name", "revision", "draws"), [("heunpp2", 1, 4), ("heunpp2", 2, 2), ("heun", 1, 2)])
def test_heunpp2_draws_for_churn_in_every_step_in_revision_1_only(name: str, revision: int, draws: int) -> None:
    noise = CountedChurn(1)
    object.__setattr__(noise, "counts", {"churn": 0})
    options = {"s_churn": 1.0, "s_tmax": 0.6, "s_tmin": 0.2}
    Sampling(
        bumps,
        torch.zeros(1, 1, 2, 2),
        [1.0, 0.8, 0.5, 0.3, 0.0],
        FLOW,
        f"{name}@{revision}",
        noise=noise,
        options=options,
    ).run()
    assert noise.counts["churn"] == draws


def test_every_doubtful_place_has_its_row_in_the_docs_and_its_tests() -> None:
    page = (Path(__file__).parents[2] / "docs/samplers.md").read_text()
    rows = re.findall(r"^\| (\d+) \|.*\| `(\w+)\.py` \|$", page, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 20))
    for number, file in rows:
        text = (Path(__file__).parent / f"{file}.py").read_text()
        tested = re.findall(r"^def test_((?:\d+_)+)", text, re.MULTILINE)
        assert any(number in numbers.split("_") for numbers in tested), number
