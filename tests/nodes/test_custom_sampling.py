from pathlib import Path

import pytest
import torch

from sigmagraph.engine.errors import BadValue, UnknownName
from sigmagraph.engine.models import Checkpoint, Conditioning, load_checkpoint
from sigmagraph.engine.models.value import Model
from sigmagraph.engine.sampling import SOLVERS, ComfyNoise
from sigmagraph.engine.sampling.guidance import Estimates, RescaledCfg
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.types import LatentValue


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> Model:
    loaded: Checkpoint = load_checkpoint(tiny_checkpoint)
    return loaded.model


def conditioning(seed: int) -> Conditioning:
    generator = torch.Generator().manual_seed(seed)
    return Conditioning(torch.randn(1, 6, 128, generator=generator), torch.randn(1, 128, generator=generator))


POSITIVE, NEGATIVE, EMPTY = conditioning(1), conditioning(2), conditioning(3)
SIDES = {"positive": POSITIVE, "negative": NEGATIVE}
BLANK = LatentValue(torch.zeros(1, 16, 6, 8))


def basic(model: Model, steps: int = 4, scheduler: str = "normal") -> tuple[float, ...]:
    sigmas: tuple[float, ...] = NODES["BasicScheduler"](model=model, scheduler=scheduler, steps=steps)
    return sigmas


def advanced(guider: object, sigmas: object, **inputs: object) -> torch.Tensor:
    settings = {"noise": ComfyNoise(7), "sampler": NODES["KSamplerSelect"](sampler_name="euler"), "latent_image": BLANK}
    output, _ = NODES["SamplerCustomAdvanced"](guider=guider, sigmas=sigmas, **(settings | inputs))
    samples: torch.Tensor = output.samples
    return samples


def plain(model: Model, **inputs: object) -> torch.Tensor:
    settings = {"seed": 7, "steps": 4, "cfg": 3.0, "scheduler": "normal", "latent_image": BLANK} | SIDES
    samples: torch.Tensor = NODES["KSampler"](model=model, **(settings | inputs)).samples
    return samples


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "dpmpp_2m_sde", "euler_ancestral", "euler_ancestral@2"])
def test_the_parts_put_together_are_the_whole_sampler(model: Model, sampler: str) -> None:
    whole = plain(model, sampler_name=sampler)
    guider = NODES["CFGGuider"](model=model, cfg=3.0, **SIDES)
    chosen = NODES["KSamplerSelect"](sampler_name=sampler)
    assert torch.equal(advanced(guider, basic(model), sampler=chosen), whole)
    output, denoised = NODES["SamplerCustom"](
        model=model, noise_seed=7, cfg=3.0, sampler=chosen, sigmas=basic(model), latent_image=BLANK, **SIDES
    )
    assert torch.equal(output.samples, whole)
    torch.testing.assert_close(denoised.samples, whole, atol=1e-4, rtol=1e-4)


def test_two_advanced_samplers_that_share_the_steps_are_one_whole_run(model: Model) -> None:
    settings = {"model": model, "noise_seed": 7, "steps": 4, "cfg": 3.0, "scheduler": "normal"} | SIDES
    node = NODES["KSamplerAdvanced"]
    first = node(**settings, latent_image=BLANK, end_at_step=2, return_with_leftover_noise="enable")
    second = node(**settings, latent_image=first, start_at_step=2, add_noise="disable")
    torch.testing.assert_close(second.samples, plain(model))


def test_split_sigmas_in_two_custom_samplers_are_one_whole_run(model: Model) -> None:
    guider = NODES["CFGGuider"](model=model, cfg=3.0, **SIDES)
    high, low = NODES["SplitSigmas"](sigmas=basic(model), step=2)
    left = LatentValue(advanced(guider, high))
    joined = advanced(guider, low, noise=NODES["DisableNoise"](), latent_image=left)
    torch.testing.assert_close(joined, plain(model))


def test_the_basic_guider_is_guidance_of_scale_one(model: Model) -> None:
    guider = NODES["BasicGuider"](model=model, conditioning=POSITIVE)
    assert torch.equal(advanced(guider, basic(model)), plain(model, cfg=1.0))


def test_dual_guidance_with_equal_sides_is_plain_guidance(model: Model) -> None:
    settings = {"model": model, "cond1": POSITIVE, "cfg_conds": 3.0, "cfg_cond2_negative": 3.0}
    from_negative = NODES["DualCFGGuider"](cond2=NEGATIVE, negative=NEGATIVE, **settings)
    torch.testing.assert_close(advanced(from_negative, basic(model)), plain(model))
    to_positive = NODES["DualCFGGuider"](cond2=POSITIVE, negative=NEGATIVE, style="nested", **settings)
    torch.testing.assert_close(advanced(to_positive, basic(model)), plain(model))


def test_perpendicular_negatives_of_no_scale_are_guidance_against_the_empty_prompt(model: Model) -> None:
    guider = NODES["PerpNegGuider"](model=model, empty_conditioning=EMPTY, cfg=3.0, neg_scale=0.0, **SIDES)
    torch.testing.assert_close(advanced(guider, basic(model)), plain(model, negative=EMPTY))


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("RescaleCFG", {"multiplier": 0.0}),
        ("SkipLayerGuidanceSD3", {"layers": "0", "scale": 0.0}),
        ("SkipLayerGuidanceSD3", {"layers": ""}),
        ("APG", {"eta": 1.0, "norm_threshold": 0.0, "momentum": 0.0}),
    ],
)
def test_guidance_with_neutral_settings_is_plain_guidance_bit_for_bit(
    model: Model, name: str, inputs: dict[str, object]
) -> None:
    assert torch.equal(plain(NODES[name](model=model, **inputs)), plain(model))


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("RescaleCFG", {}),
        ("SkipLayerGuidanceSD3", {"layers": "0", "start_percent": 0.0, "end_percent": 1.0}),
        ("APG", {"eta": 0.0}),
        ("CFGZeroStar", {}),
    ],
)
def test_guidance_with_its_usual_settings_changes_the_picture_and_not_the_model(
    model: Model, name: str, inputs: dict[str, object]
) -> None:
    before = plain(model)
    assert not torch.allclose(plain(NODES[name](model=model, **inputs)), before)
    assert torch.equal(plain(model), before)


def test_a_block_that_is_not_there_skips_nothing(model: Model) -> None:
    assert torch.equal(plain(NODES["SkipLayerGuidanceSD3"](model=model)), plain(model))  # 7, 8 and 9 of two blocks


SKIP = {"layers": "0", "start_percent": 0.0, "end_percent": 1.0}


def test_of_several_formulas_the_last_one_counts_and_skipped_layers_come_after_it(model: Model) -> None:
    def rescaled(model: Model, share: float = 0.7) -> Model:
        changed: Model = NODES["RescaleCFG"](model=model, multiplier=share)
        return changed

    def skipping(model: Model) -> Model:
        changed: Model = NODES["SkipLayerGuidanceSD3"](model=model, **SKIP)
        return changed

    def perpendicular(model: Model) -> Model:
        changed: Model = NODES["PerpNeg"](model=model, empty_conditioning=EMPTY)
        return changed

    assert torch.equal(plain(rescaled(rescaled(model, 0.2))), plain(rescaled(model)))
    assert torch.equal(plain(rescaled(perpendicular(model))), plain(rescaled(model)))
    assert torch.equal(plain(perpendicular(rescaled(model))), plain(perpendicular(model)))
    assert torch.equal(plain(rescaled(skipping(model))), plain(skipping(rescaled(model))))


def test_skipped_layers_keep_the_levels_of_the_shift_they_were_set_under(model: Model) -> None:
    settings = {"layers": "0", "start_percent": 0.2, "end_percent": 0.6}
    shifted = NODES["ModelSamplingSD3"](model=NODES["SkipLayerGuidanceSD3"](model=model, **settings), shift=9.0)
    low, high = (model.parameterisation.levels.percent_to_sigma(share) for share in (0.6, 0.2))
    guided = shifted.guided(POSITIVE, NEGATIVE, 3.0)
    assert [(one.end, one.start) for one in guided.adjust] == [(low, high)]


def test_what_model_nodes_set_reaches_every_guider(model: Model) -> None:
    skipping = NODES["SkipLayerGuidanceSD3"](model=model, **SKIP)
    rescaled = NODES["RescaleCFG"](model=model)
    x, sigma = torch.linspace(-1, 1, 16 * 6 * 8).reshape(1, 16, 6, 8), 0.7
    positive, negative, second = model.predict(x, sigma, [POSITIVE, NEGATIVE, EMPTY])
    less = model.with_skipped_layers([0]).predict(x, sigma, [POSITIVE, EMPTY])

    def estimate(guider: object) -> torch.Tensor:
        result: torch.Tensor = guider.denoiser(x, sigma).denoised  # type: ignore[attr-defined]
        return result

    basic_guider = NODES["BasicGuider"](model=skipping, conditioning=POSITIVE)
    torch.testing.assert_close(estimate(basic_guider), positive + (positive - less[0]) * 3.0)
    assert torch.equal(
        estimate(NODES["BasicGuider"](model=rescaled, conditioning=POSITIVE)), model.predict(x, sigma, [POSITIVE])[0]
    )
    sides = {"cond1": POSITIVE, "cond2": EMPTY, "negative": NEGATIVE, "cfg_conds": 2.0, "cfg_cond2_negative": 5.0}
    dual = estimate(NODES["DualCFGGuider"](model=skipping, **sides))
    inner = negative + (second - negative) * 5.0 + (second - less[1]) * 3.0
    torch.testing.assert_close(dual, inner + (positive - second) * 2.0, atol=1e-4, rtol=1e-4)
    nested = estimate(NODES["DualCFGGuider"](model=rescaled, style="nested", **sides))
    inner = RescaledCfg(2.0)(Estimates(x, sigma, positive, second))
    torch.testing.assert_close(nested, negative + (inner - negative) * 5.0)


@pytest.mark.parametrize(
    ("name", "inputs", "sampler"),
    [
        ("SamplerEulerAncestral", {}, "euler_ancestral"),
        ("SamplerEulerAncestralCFGPP", {}, "euler_ancestral_cfg_pp"),
        ("SamplerLMS", {}, "lms"),
        ("SamplerDPMPP_3M_SDE", {"noise_device": "cpu"}, "dpmpp_3m_sde"),
        ("SamplerDPMPP_2M_SDE", {"noise_device": "cpu"}, "dpmpp_2m_sde"),
        ("SamplerDPMPP_2M_SDE", {"noise_device": "gpu", "solver_type": "heun"}, "dpmpp_2m_sde_heun_gpu"),
        ("SamplerDPMPP_SDE", {"noise_device": "cpu"}, "dpmpp_sde"),
        ("SamplerDPMPP_2S_Ancestral", {}, "dpmpp_2s_ancestral"),
        ("SamplerDPMAdaptative", {}, "dpm_adaptive"),
        ("SamplerER_SDE", {}, "er_sde"),
        ("SamplerLCM", {}, "lcm"),
        ("SamplerWithOptions", {"sampler_name": "heun"}, "heun"),
    ],
)
def test_a_sampler_node_left_alone_is_the_sampler_of_that_name(
    model: Model, name: str, inputs: dict[str, object], sampler: str
) -> None:
    guider = NODES["CFGGuider"](model=model, cfg=2.0, **SIDES)
    by_name = NODES["KSamplerSelect"](sampler_name=sampler)
    ours = advanced(guider, basic(model), sampler=NODES[name](**inputs))
    assert torch.equal(ours, advanced(guider, basic(model), sampler=by_name))


def test_the_sa_solver_node_left_alone_is_sa_solver(model: Model) -> None:
    guider = NODES["CFGGuider"](model=model, cfg=2.0, **SIDES)
    ours = NODES["SamplerSASolver"](model=model, use_pece=False, simple_order_2=False)
    by_name = NODES["KSamplerSelect"](sampler_name="sa_solver")
    assert torch.equal(advanced(guider, basic(model), sampler=ours), advanced(guider, basic(model), sampler=by_name))


def test_er_sde_as_an_ode_draws_no_noise(model: Model) -> None:
    guider = NODES["BasicGuider"](model=model, conditioning=POSITIVE)
    sigmas = basic(model)
    quiet = [
        NODES["SamplerER_SDE"](solver_type="ODE"),
        NODES["SamplerER_SDE"](solver_type="Reverse-time SDE", eta=0.0),
    ]
    one, two = (advanced(guider, sigmas, sampler=sampler) for sampler in quiet)
    assert torch.equal(one, two)


def test_eta_of_plain_er_sde_acts_from_the_comfyui_on_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert NODES["SamplerER_SDE"](eta=0.5).options["eta"] == 0.5
    monkeypatch.setenv("SIGMAGRAPH_COMFYUI", "0.31")
    assert NODES["SamplerER_SDE"](eta=0.5).options["eta"] == 1.0


def test_any_sampler_takes_its_settings_as_text(model: Model) -> None:
    by_text = NODES["SamplerWithOptions"](sampler_name="euler_ancestral@2", options="eta=0.5, s_noise=0.9")
    assert by_text.solver is SOLVERS["euler_ancestral"]
    assert by_text.options == {"eta": 0.5, "s_noise": 0.9}
    with pytest.raises(UnknownName, match="option of sampler euler_ancestral; did you mean 'eta'"):
        NODES["SamplerWithOptions"](sampler_name="euler_ancestral", options="etta=0.5")
    with pytest.raises(BadValue, match="name=value"):
        NODES["SamplerWithOptions"](sampler_name="euler_ancestral", options="eta")
    with pytest.raises(BadValue, match=r"euler_ancestral\.eta: 1000"):
        NODES["SamplerWithOptions"](sampler_name="euler_ancestral", options="eta=1000")
    with pytest.raises(BadValue, match="each name once; eta is there twice"):
        NODES["SamplerWithOptions"](sampler_name="euler_ancestral", options="eta=0.5, eta=0.7")


def test_added_noise_is_the_start_of_a_run(model: Model) -> None:
    latent = LatentValue(torch.randn(1, 16, 6, 8))
    noised = NODES["AddNoise"](model=model, noise=ComfyNoise(7), sigmas=(0.6, 0.0), latent_image=latent).samples
    drawn = torch.randn(1, 16, 6, 8, generator=torch.Generator().manual_seed(7))
    to_model, to_vae = model.spec.latent_format.to_model, model.spec.latent_format.to_vae
    torch.testing.assert_close(noised, to_vae(0.6 * drawn + 0.4 * to_model(latent.samples)))


def test_the_older_perpendicular_negative_is_the_guider_of_that_name(model: Model) -> None:
    patched = NODES["PerpNeg"](model=model, empty_conditioning=EMPTY, neg_scale=1.5)
    guider = NODES["PerpNegGuider"](model=model, empty_conditioning=EMPTY, cfg=3.0, neg_scale=1.5, **SIDES)
    torch.testing.assert_close(plain(patched), advanced(guider, basic(model)), atol=1e-4, rtol=1e-4)
    without = NODES["PerpNeg"](model=model, empty_conditioning=EMPTY, neg_scale=0.0)
    against_empty = plain(model, negative=EMPTY)
    torch.testing.assert_close(plain(without), against_empty, atol=1e-4, rtol=1e-4)


def test_consistency_sampling_ends_at_the_size_it_grows_to(model: Model) -> None:
    guider = NODES["BasicGuider"](model=model, conditioning=POSITIVE)
    chosen = NODES["SamplerLCMUpscale"](scale_ratio=1.5, scale_steps=2, upscale_method="bilinear")
    assert advanced(guider, basic(model), sampler=chosen).shape == (1, 16, 9, 12)
    still = NODES["SamplerLCMUpscale"]()
    assert advanced(guider, basic(model), sampler=still).shape == (1, 16, 6, 8)


def test_both_versions_of_euler_in_cfg_pp_are_euler_where_the_sides_agree(model: Model) -> None:
    same = NODES["CFGGuider"](model=model, positive=POSITIVE, negative=POSITIVE, cfg=1.5)
    expected = advanced(same, basic(model))
    for version in ("regular", "alternative"):
        chosen = NODES["SamplerEulerCFGpp"](version=version)
        torch.testing.assert_close(advanced(same, basic(model), sampler=chosen), expected, atol=1e-4, rtol=1e-4)


def test_the_alternative_step_ends_beyond_the_guided_estimate(model: Model) -> None:
    guider = NODES["CFGGuider"](model=model, cfg=3.0, **SIDES)
    chosen = NODES["SamplerEulerCFGpp"](version="alternative")
    noise = ComfyNoise(7).initial(torch.zeros(1, 16, 6, 8))
    uncond, cond = model.predict(noise, 1.0, [NEGATIVE, POSITIVE])
    guided = uncond + (cond - uncond) * 3.0
    expected = model.spec.latent_format.to_vae(guided * 2 - uncond)
    torch.testing.assert_close(advanced(guider, (1.0, 0.0), sampler=chosen), expected, atol=1e-4, rtol=1e-4)


def test_a_sampler_that_changes_sizes_refuses_a_mask(model: Model) -> None:
    guider = NODES["BasicGuider"](model=model, conditioning=POSITIVE)
    chosen = NODES["SamplerLCMUpscale"](scale_ratio=2.0)
    masked = LatentValue(torch.zeros(1, 16, 6, 8), torch.ones(1, 48, 64))
    with pytest.raises(BadValue, match="takes no mask"):
        advanced(guider, basic(model), sampler=chosen, latent_image=masked)
