"""Consistency sampling with growing latents, and what a distilled model is told and says."""

import math

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.sampling import ComfyNoise, PhiloxNoise, Prediction, Sampling, find_solver, sd3, sdxl
from sigmagraph.engine.sampling.parameterisation import lcm
from sigmagraph.engine.sampling.resize import resized

pytestmark = pytest.mark.quick

SIGMAS = [1.0, 0.75, 0.5, 0.25, 0.0]
DISTILLED = lcm()


def halved(x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
    return Prediction(x * 0.5, x * 0.5)


def test_without_growth_it_is_lcm() -> None:
    latent = torch.zeros(2, 4, 4, 4)
    plain, growing = (
        Sampling(halved, latent, SIGMAS, sd3(), find_solver(name, 2), noise=ComfyNoise(4)).run()
        for name in ("lcm", "lcm_upscale")
    )
    assert torch.equal(plain, growing)


def test_it_grows_evenly_over_the_first_half_of_the_steps() -> None:
    sizes: list[tuple[int, ...]] = []

    def denoiser(x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        sizes.append(tuple(x.shape[-2:]))
        return halved(x, sigma)

    latent = torch.zeros(1, 4, 4, 8)
    for options in ({"scale": 2.0}, {"scale": 2.0, "scale_steps": 4}):
        sizes.clear()
        result = Sampling(denoiser, latent, SIGMAS, sd3(), "lcm_upscale", noise=ComfyNoise(4), options=options).run()
        middle = [(6, 12), (8, 16), (8, 16)] if len(options) == 1 else [(5, 10), (6, 12), (7, 14)]
        assert [*sizes, tuple(result.shape[-2:])] == [(4, 8), *middle, (8, 16)]


def test_revision_1_goes_on_in_one_stream_with_the_initial_noise_as_if_alpha_were_1() -> None:
    latent = torch.zeros(1, 4, 4, 4)
    options = {"scale": 2.0, "scale_steps": 1, "method": "bilinear"}
    sigmas = [1.0, 0.75, 0.5]
    result = Sampling(
        halved, latent, sigmas, sdxl(), find_solver("lcm_upscale", 1), noise=ComfyNoise(9), options=options
    ).run()
    generator = torch.Generator().manual_seed(9)
    x = torch.randn(1, 4, 4, 4, generator=generator)
    x = resized(x * 0.5, 8, 8, "bilinear") + torch.randn(1, 4, 8, 8, generator=generator) * 0.75
    x = x * 0.5 + torch.randn(1, 4, 8, 8, generator=generator) * 0.5
    assert torch.allclose(result, x, atol=1e-6)


def test_a_growing_image_does_not_depend_on_its_batch() -> None:
    options = {"scale": 1.5}
    batch = Sampling(
        halved, torch.zeros(3, 4, 4, 4), SIGMAS, sd3(), "lcm_upscale", noise=PhiloxNoise(5), options=options
    ).run()
    for image in range(3):
        alone = Sampling(
            halved,
            torch.zeros(1, 4, 4, 4),
            SIGMAS,
            sd3(),
            "lcm_upscale",
            noise=PhiloxNoise(5),
            options=options,
            batch_index=[image],
        ).run()
        assert torch.equal(batch[image : image + 1], alone)


def test_a_distilled_model_knows_every_twentieth_level() -> None:
    levels, whole = DISTILLED.levels, sdxl().levels
    assert torch.equal(levels.table, whole.table[19::20])
    assert len(levels.table) == 50
    for place, sigma in enumerate(levels.table.tolist()):
        assert levels.timestep(sigma) == 20 * place + 19
        assert levels.sigma(levels.timestep(sigma)) == pytest.approx(sigma, rel=1e-6)
        assert levels.position(sigma) == pytest.approx(20 * place + 19, rel=1e-5)
    assert levels.timestep(float(whole.table[200])) == 199
    assert levels.percent_to_sigma(0.5) == pytest.approx(whole.percent_to_sigma(0.5), rel=2e-3)


def test_a_distilled_model_keeps_a_share_of_the_state_near_the_data() -> None:
    x, output = torch.randn(1, 4, 2, 2), torch.randn(1, 4, 2, 2)
    sigma = DISTILLED.levels.sigma_min
    plain = sdxl().denoised(x, sigma, output)
    at = 190.0  # ten times timestep 19
    skipped, said = 0.25 / (at**2 + 0.25), at / math.sqrt(at**2 + 0.25)
    assert torch.allclose(DISTILLED.denoised(x, sigma, output), plain * said + x * skipped, atol=1e-6)
    assert said**2 + skipped == pytest.approx(1.0)


def test_lcm_s_noise_goes_evenly_from_the_first_multiplier_to_the_last_and_is_cut() -> None:
    latent = torch.zeros(1, 1, 8, 8)
    options = {"s_noise": 2.0, "s_noise_end": 0.5, "noise_clip_std": 1.5}
    result = Sampling(halved, latent, SIGMAS, sd3(), find_solver("lcm", 1), noise=ComfyNoise(9), options=options).run()
    generator = torch.Generator().manual_seed(9)
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(9))
    for sigma, scale in ((0.75, 2.0), (0.5, 1.5), (0.25, 1.0)):
        drawn = torch.randn(1, 1, 8, 8, generator=generator)
        x = x * 0.5 * (1 - sigma) + drawn.clamp(-1.5, 1.5) * (sigma * scale)
    assert torch.allclose(result, x * 0.5, atol=1e-6)
