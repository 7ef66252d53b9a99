"""Models in packs' hands: functions of guidance do what our own rules do, and nothing of a clone leaks."""

from typing import Any

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.compose.shims import patching
from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models import Model
from sigmagraph.engine.sampling import sd3
from sigmagraph.engine.sampling.guidance import Cfg
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.borders import border
from sigmagraph.nodes.support.packs.guidance import calc_cond_batch
from sigmagraph.nodes.support.packs.models import ModelPatcher, model_of
from sigmagraph.nodes.support.packs.samplers import KSAMPLER
from sigmagraph.nodes.support.types import GuiderValue, LatentValue, SamplerValue
from tests.nodes.closed_form_model import closed_form_model, conditioning
from tests.nodes.golden_cases import family

TENSORS = family("guidance")[1]
X = torch.randn(2, 16, 6, 4, generator=torch.Generator().manual_seed(5))
POSITIVE, NEGATIVE = conditioning("pos"), conditioning("neg")
SIGMA = 0.7


@pytest.fixture(scope="module")
def model() -> Model:
    return closed_form_model("flow", TENSORS)


def guided(model: Model, scale: float = 4.5) -> Tensor:
    return model.guided(POSITIVE, NEGATIVE, scale)(X, SIGMA).denoised


def sides(model: Model) -> list[Tensor]:
    return model.predict(X, SIGMA, [POSITIVE, NEGATIVE])


def plain(args: dict[str, Any]) -> Tensor:
    """The usual formula, as a pack writes it."""
    made: Tensor = args["uncond"] + (args["cond"] - args["uncond"]) * args["cond_scale"]
    return made


def test_an_untouched_patcher_is_the_same_model(model: Model) -> None:
    crossing = border().translations["MODEL"]
    assert crossing.back(crossing.out(model)) is model
    assert model_of(ModelPatcher(model).clone()) is model


@pytest.mark.parametrize("function", [plain, lambda cond, uncond, scale: uncond + (cond - uncond) * scale])
def test_the_usual_formula_as_a_packs_function_is_plain_guidance(model: Model, function: Any) -> None:
    patcher = ModelPatcher(model).clone()
    patcher.set_model_sampler_cfg_function(function)
    torch.testing.assert_close(guided(model_of(patcher)), guided(model), atol=1e-5, rtol=0)


def test_what_is_set_on_a_clone_stays_there(model: Model) -> None:
    first = ModelPatcher(model)
    second = first.clone()
    second.set_model_sampler_post_cfg_function(lambda args: args["denoised"] * 2)
    third = second.clone()
    third.set_model_sampler_post_cfg_function(lambda args: args["denoised"] + 1)
    third.model_options["transformer_options"]["mine"] = 1
    assert torch.equal(guided(model_of(first)), guided(model))
    assert torch.equal(guided(model_of(second)), guided(model) * 2)
    assert torch.equal(guided(model_of(third)), guided(model) * 2 + 1)
    assert second.model_options["transformer_options"] == {}


def test_functions_before_change_both_sides_and_may_write_into_what_they_get(model: Model) -> None:
    def halved(args: dict[str, Any]) -> list[Tensor]:
        for side in args["conds_out"]:
            side *= 0.5
        assert args["sigma"].tolist() == pytest.approx([SIGMA] * 2)
        assert torch.equal(args["input"], X)
        return list(args["conds_out"])

    patcher = ModelPatcher(model)
    patcher.set_model_sampler_pre_cfg_function(halved)
    torch.testing.assert_close(guided(model_of(patcher)), guided(model) / 2)


def test_at_scale_1_the_other_side_is_zeros_unless_it_is_asked_for(model: Model) -> None:
    seen: list[Tensor] = []

    def look(args: dict[str, Any]) -> Tensor:
        seen.append(args["uncond_denoised"])
        denoised: Tensor = args["denoised"]
        return denoised

    for asks in (False, True):
        patcher = ModelPatcher(model)
        patcher.set_model_sampler_post_cfg_function(look, disable_cfg1_optimization=asks)
        torch.testing.assert_close(guided(model_of(patcher), 1.0), sides(model)[0])
    assert not seen[0].any()
    torch.testing.assert_close(seen[1], sides(model)[1])


def test_a_wrapper_asks_the_network_side_by_side(model: Model) -> None:
    told: list[int] = []

    def wrapper(apply_model: Any, args: dict[str, Any]) -> Tensor:
        told.extend(args["cond_or_uncond"])
        made: Tensor = apply_model(args["input"], args["timestep"], **args["c"]) * 3
        return made

    patcher = ModelPatcher(model)
    patcher.set_model_unet_function_wrapper(wrapper)
    torch.testing.assert_close(guided(model_of(patcher)), guided(model) * 3, atol=1e-5, rtol=0)
    assert sorted(told) == [0, 1]


def test_a_function_can_ask_for_estimates_of_its_own(model: Model) -> None:
    def replaced(args: dict[str, Any]) -> Tensor:
        given = args["model"], [args["uncond"], None], args["input"], args["sigma"], args["model_options"]
        found, missing = calc_cond_batch(*given)
        assert not missing.any()
        return found

    patcher = ModelPatcher(model)
    patcher.set_model_sampler_post_cfg_function(replaced)
    torch.testing.assert_close(guided(model_of(patcher)), sides(model)[1], atol=1e-5, rtol=0)


def test_levels_are_told_and_exchanged(model: Model) -> None:
    patcher = ModelPatcher(model)
    sampling = patcher.get_model_object("model_sampling")
    assert sampling.percent_to_sigma(0.5) == pytest.approx(3 * 0.5 / (1 + 2 * 0.5))
    assert sampling.sigma_max == sampling.sigmas[-1] == 1
    torch.testing.assert_close(sampling.noise_scaling(torch.tensor([0.25]), X, X * 0), X * 0.25)
    other = ModelPatcher(model.with_parameterisation(sd3(1.0)))
    patcher.add_object_patch("model_sampling", other.get_model_object("model_sampling"))
    assert patcher.clone().get_model_object("model_sampling").percent_to_sigma(0.5) == 0.5
    assert model_of(patcher).parameterisation == sd3(1.0)
    levels = patching.calculate_sigmas(sampling, "simple", 4)
    assert levels.tolist() == pytest.approx(NODES["BasicScheduler"](model=model, scheduler="simple", steps=4))


def test_what_has_no_place_here_is_refused_by_name(model: Model) -> None:
    patcher = ModelPatcher(model)
    with pytest.raises(BadValue, match="set_model_attn1_patch"):
        patcher.set_model_attn1_patch(lambda *_: None)
    with pytest.raises(BadValue, match=r"add_object_patch: 'diffusion_model: object'"):
        patcher.add_object_patch("diffusion_model", object())
    with pytest.raises(AttributeError, match="a model's diffusion_model is not here"):
        _ = patcher.model.diffusion_model
    patcher.model_options["transformer_options"]["patches_replace"] = {"attn2": {}}
    with pytest.raises(BadValue, match="transformer_options: 'patches_replace'"):
        model_of(patcher)
    wrong = ModelPatcher(model)
    wrong.set_model_sampler_post_cfg_function(lambda args: None)
    with pytest.raises(BadValue, match="the result of a pack's sampler_post_cfg_function: 'NoneType'"):
        guided(model_of(wrong))


def euler(
    model: Any, x: Tensor, sigmas: Tensor, extra_args: Any, callback: Any, disable: Any, pace: float = 1.0
) -> Tensor:
    """Euler's method as packs write samplers."""
    for step in range(len(sigmas) - 1):
        denoised = model(x, sigmas[step] * x.new_ones([len(x)]), **(extra_args or {}))
        callback({"x": x, "i": step, "sigma": sigmas[step], "denoised": denoised})
        x = x + (x - denoised) / sigmas[step] * (sigmas[step + 1] - sigmas[step]) * pace
    return x


def test_a_packs_sampler_samples_with_our_model(model: Model) -> None:
    def run(sampler: SamplerValue) -> Tensor:
        guider = GuiderValue(model, Cfg(model.predict, POSITIVE, NEGATIVE, 4.5))
        noise = NODES["RandomNoise"](noise_seed=3)
        sigmas = (1.0, 0.7, 0.4, 0.1, 0.0)
        latent = LatentValue(torch.zeros(2, 16, 6, 4))
        named = {"noise": noise, "guider": guider, "sampler": sampler, "sigmas": sigmas, "latent_image": latent}
        made: Tensor = NODES["SamplerCustomAdvanced"](**named)[0].samples
        return made

    back = border().translations["SAMPLER"].back
    ours = back(patching.sampler_object("euler"))
    assert border().translations["SAMPLER"].back(border().translations["SAMPLER"].out(ours)) is ours
    torch.testing.assert_close(run(back(KSAMPLER(euler))), run(ours), atol=1e-5, rtol=1e-5)
    slower = run(back(KSAMPLER(euler, {"pace": 0.5})))
    assert (slower - run(ours)).abs().max() > 0.1
