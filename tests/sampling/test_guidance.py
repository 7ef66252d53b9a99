"""Guidance as values: neutral parameters are plain CFG bit for bit, and each rule does what its paper says."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.sampling import Cfg, ComfyNoise, PhiloxNoise, Recording, Sampling, Unguided, sd3
from sigmagraph.engine.sampling.guidance import (
    Apg,
    ApgPreparation,
    CfgZeroStar,
    CfgZeroStarDenoised,
    DualCfg,
    Estimates,
    Linear,
    PerpNeg,
    PerpNegCombination,
    Rescale,
    SkipLayer,
)
from sigmagraph.engine.sampling.mask import Masked, fitted
from tests.sampling.mixture import SHAPES, predict

pytestmark = pytest.mark.quick

MODEL = predict("flow")
SIGMA = 0.7


def state(seed: int = 0) -> Tensor:
    return ComfyNoise(seed).initial(torch.zeros(SHAPES["flow"]))


def guided(denoiser: Any, x: Tensor | None = None, sigma: float = SIGMA) -> Tensor:
    result: Tensor = denoiser(state() if x is None else x, sigma).denoised
    return result


def known(scale: float = 1.0) -> Estimates:
    x = state()
    uncond, cond = MODEL(x, SIGMA, ["neg", "pos"])
    return Estimates(x, SIGMA, cond * scale, uncond)


PLAIN = Cfg(MODEL, "pos", "neg", 4.5)
NEUTRAL: dict[str, Any] = {
    "rescale 0": Cfg(MODEL, "pos", "neg", 4.5, adjust=[Rescale(0.0)]),
    "skip-layer 0": Cfg(MODEL, "pos", "neg", 4.5, adjust=[SkipLayer(MODEL, "neg", 0.0)]),
    "skip-layer outside its levels": Cfg(MODEL, "pos", "neg", 4.5, adjust=[SkipLayer(MODEL, "neg", 3.0, 0.5, 0.1)]),
    "APG 1, 0, 0": Cfg(MODEL, "pos", "neg", 4.5, combine=Apg(scale=4.5, eta=1.0)),
    "CFG-Zero* off": Cfg(MODEL, "pos", "neg", 4.5, combine=CfgZeroStar(4.5, is_fitted=False)),
    "interval of everything": Cfg(MODEL, "pos", "neg", 4.5, interval=(1.0, 0.0)),
    "perp-neg 0": PerpNeg(MODEL, "pos", "pos", "neg", 4.5, negative_scale=0.0),
    "older perp-neg 0": Cfg(MODEL, "pos", "neg", 4.5, combine=PerpNegCombination(MODEL, "neg", 4.5, 0.0)),
    "dual with both prompts the same": DualCfg(MODEL, "pos", "pos", "neg", 3.0, 4.5),
}


@pytest.mark.parametrize("name", NEUTRAL)
def test_neutral_parameters_are_plain_cfg_bit_for_bit(name: str) -> None:
    assert torch.equal(guided(NEUTRAL[name]), guided(PLAIN))


class Watching:
    """A model that notes which conditionings it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, x: Tensor, sigma: float, sides: Sequence[str]) -> list[Tensor]:
        self.asked.append(list(sides))
        return MODEL(x, sigma, sides)


def test_both_sides_are_one_batch_with_uncond_first() -> None:
    model = Watching()
    guided(Cfg(model, "pos", "neg", 4.5))
    assert model.asked == [["neg", "pos"]]


def test_scale_1_skips_the_unconditional_side_unless_a_solver_needs_it() -> None:
    model = Watching()
    denoiser = Cfg(model, "pos", "neg", 1.0)
    alone = denoiser(state(), SIGMA)
    both = denoiser(state(), SIGMA, needs_uncond=True)
    assert model.asked == [["pos"], ["neg", "pos"]]
    assert alone.uncond is None
    assert both.uncond is not None
    assert torch.equal(both.uncond, MODEL(state(), SIGMA, ["neg"])[0])
    assert torch.allclose(alone.denoised, both.denoised, atol=1e-6)


def test_outside_its_interval_guidance_asks_for_one_side_and_changes_nothing() -> None:
    model = Watching()
    result = guided(Cfg(model, "pos", "neg", 4.5, interval=(0.6, 0.2)))
    assert model.asked == [["pos"]]
    assert torch.equal(result, MODEL(state(), SIGMA, ["pos"])[0])


def test_no_guidance_is_the_one_conditioning() -> None:
    assert torch.equal(guided(Unguided(MODEL, "pos")), MODEL(state(), SIGMA, ["pos"])[0])


def test_full_rescale_gives_the_conditional_spread_in_v_space() -> None:
    facts = known()
    rescaled = Rescale(1.0)(Linear(4.5)(facts), facts)
    power = SIGMA**2 + 1
    for image in range(2):
        spread = (facts.x / power - rescaled)[image].std() / (facts.x / power - facts.cond)[image].std()
        assert float(spread) == pytest.approx(1.0, rel=1e-5)


def test_skip_layer_guidance_adds_the_difference_within_its_levels() -> None:
    denoiser = Cfg(MODEL, "pos", "neg", 4.5, adjust=[SkipLayer(MODEL, "neg", 3.0, 0.9, 0.5)])
    uncond, cond = MODEL(state(), SIGMA, ["neg", "pos"])
    assert torch.allclose(guided(denoiser), guided(PLAIN) + (cond - uncond) * 3.0)
    assert torch.equal(guided(denoiser, sigma=0.4), guided(PLAIN, sigma=0.4))


def test_skip_layer_rescale_gives_the_conditional_spread() -> None:
    facts = known()
    result = SkipLayer(MODEL, "neg", 3.0, rescale=1.0)(Linear(4.5)(facts), facts)
    assert float(result.std()) == pytest.approx(float(facts.cond.std()), rel=1e-5)


def test_projected_guidance_without_the_parallel_part_moves_at_right_angles_to_cond() -> None:
    facts = known()
    moved = Apg(scale=4.5, eta=0.0)(facts) - facts.cond
    for image in range(2):
        overlap = (moved[image] * facts.cond[image]).sum() / (moved[image].norm() * facts.cond[image].norm())
        assert abs(float(overlap)) < 1e-5


def test_projected_guidance_bounds_the_difference_and_keeps_momentum() -> None:
    facts = known()
    bounded = Apg(scale=2.0, eta=1.0, norm_threshold=0.5)(facts) - facts.cond
    assert float(bounded[0].norm()) == pytest.approx(0.5, rel=1e-4)
    rule = Apg(scale=2.0, eta=1.0, momentum=-0.5)
    first, second = rule(facts) - facts.cond, rule(facts) - facts.cond
    assert torch.allclose(second, first * 0.5, atol=1e-5)


@pytest.mark.parametrize("rule", [{"combine": Apg(0.3, 2.0, scale=4.0)}, {"prepare": [ApgPreparation(0.3, 2.0)]}])
def test_projected_guidance_takes_an_estimate_of_zeros_that_has_no_direction(rule: dict[str, Any]) -> None:
    zeros = Cfg(lambda x, sigma, sides: [x * side for side in sides], 0.0, 1.0, 4.0, **rule)
    assert guided(zeros).isfinite().all()


def test_a_resumed_run_takes_up_the_momentum_of_projected_guidance() -> None:
    def run(recording: Recording) -> Tensor:
        denoiser = Cfg(MODEL, "pos", "neg", 3.0, combine=Apg(scale=3.0, momentum=-0.5))
        latent = torch.zeros(SHAPES["flow"])
        mask = torch.ones(1, 6, 4)
        return Sampling(denoiser, latent, [1.0, 0.8, 0.5, 0.2, 0.0], sd3(), noise=ComfyNoise(1), mask=mask).run(
            recording
        )

    whole = Recording()
    expected = run(whole)
    for count in range(5):
        assert torch.equal(run(Recording(whole.predictions[:count])), expected)


def test_cfg_zero_star_fits_the_unconditional_velocity_and_starts_at_rest() -> None:
    facts = known()
    x, v_cond, v_uncond = facts.x, (facts.x - facts.cond) / SIGMA, (facts.x - facts.uncond) / SIGMA
    fits = (v_cond * v_uncond).sum((1, 2, 3), keepdim=True) / (v_uncond**2).sum((1, 2, 3), keepdim=True)
    expected = x - SIGMA * (v_uncond * fits + (v_cond - v_uncond * fits) * 4.5)
    assert torch.allclose(CfgZeroStar(4.5)(facts), expected, atol=1e-5)
    assert torch.equal(CfgZeroStar(4.5, zero_from=0.6)(facts), x)


def test_perp_neg_ignores_a_negative_prompt_parallel_to_the_positive() -> None:
    denoiser = PerpNeg(MODEL, "pos", "pos", "neg", 4.5, negative_scale=2.0)
    assert torch.allclose(guided(denoiser), guided(PLAIN), atol=1e-5)


def test_nested_dual_guidance_scales_the_first_pull_too() -> None:
    result = guided(DualCfg(MODEL, "pos", "neg", "neg", 3.0, 2.0, is_nested=True))
    uncond, cond = MODEL(state(), SIGMA, ["neg", "pos"])
    assert torch.allclose(result, uncond + (cond - uncond) * 6.0, atol=1e-5)


def test_a_mask_keeps_the_latent_and_shows_the_model_its_noised_form() -> None:
    latent, x = torch.full((1, 16, 6, 4), 0.3), state()[:1]
    seen: list[Tensor] = []

    def denoiser(x: Tensor, sigma: float, needs_uncond: bool = False) -> Any:
        seen.append(x)
        return PLAIN(x, sigma, needs_uncond)

    mask = fitted(torch.tensor([[0.0, 1.0]]).repeat(2, 1), latent)
    masked = Masked(denoiser, mask, latent, lambda sigma: latent * (1 - sigma))
    result = masked(x, SIGMA).denoised
    assert torch.equal(result[..., 0], latent[..., 0])
    assert torch.allclose(seen[0][..., 0], latent[..., 0] * 0.3)
    assert torch.equal(seen[0][..., -1], x[..., -1])


def test_a_second_run_begins_without_the_momentum_of_the_first() -> None:
    guided = Cfg(MODEL, "pos", "neg", 3.0, prepare=[ApgPreparation(eta=0.5, momentum=-0.5)])

    def run(images: int) -> Tensor:
        latent = torch.zeros(images, *SHAPES["flow"][1:])
        return Sampling(guided, latent, [1.0, 0.8, 0.5, 0.2, 0.0], sd3(), noise=PhiloxNoise(1)).run()

    first, other, again = run(2), run(1), run(2)
    assert torch.equal(first, again)
    assert torch.allclose(first[:1], other, atol=1e-5)


def test_images_that_step_alone_see_the_momentum_of_their_own_run_only() -> None:
    guided = Cfg(MODEL, "pos", "neg", 3.0, combine=Apg(scale=3.0, momentum=-0.5))

    def run(images: int) -> Tensor:
        latent = torch.zeros(images, *SHAPES["flow"][1:])
        return Sampling(guided, latent, [0.9, 0.5, 0.2], sd3(), "dpm_adaptive", noise=PhiloxNoise(1)).run()

    assert torch.allclose(run(2), torch.cat([run(1), run(2)[1:]]), atol=1e-5)


def test_comfyui_s_apg_is_uncond_plus_scale_times_the_changed_difference() -> None:
    rule, facts = ApgPreparation(eta=0.3, norm_threshold=2.0), known()
    changed = Linear(4.5)(rule(facts))
    assert torch.allclose(changed, facts.uncond + rule.difference(facts) * 4.5, atol=1e-5)
    assert not torch.allclose(changed, Apg(eta=0.3, norm_threshold=2.0, scale=4.5)(facts), atol=1e-2)
    assert ApgPreparation(eta=1.0)(facts) is facts


def test_comfyui_s_cfg_zero_star_fits_the_unconditional_estimate() -> None:
    facts, scale = known(), 3.5
    result = CfgZeroStarDenoised(scale)(Linear(scale)(facts), facts)
    for image in range(len(result)):
        cond, uncond = facts.cond[image], facts.uncond[image]
        fitted_uncond = uncond * ((cond * uncond).sum() / ((uncond * uncond).sum() + 1e-8))
        assert torch.allclose(result[image], fitted_uncond + scale * (cond - fitted_uncond), atol=1e-4)
