"""Models in packs' hands: functions of guidance do what our own rules do, and nothing of a clone leaks."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.compose.shims import patching
from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models import Model
from sigmagraph.engine.sampling import flux, sd3, sdxl
from sigmagraph.engine.sampling.guidance import Cfg
from sigmagraph.engine.sampling.levels import FlowLevels
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


def test_patches_of_a_u_nets_attention_change_nothing_and_the_log_says_so(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    patcher = ModelPatcher(model)
    patcher.set_model_attn1_patch(lambda *_: None)
    patcher.set_model_patch_replace(lambda *_: None, "attn2", "middle", 0)
    patcher.model_options["transformer_options"]["patches_replace"] = {"attn2": {("middle", 0): lambda *_: None}}
    assert torch.equal(guided(model_of(patcher)), guided(model))
    assert [record.args[0] for record in caplog.records] == ["set_model_attn1_patch", "attn2"]  # type: ignore[index]


def test_a_compiled_network_or_block_put_back_means_that_blocks_run_compiled(model: Model) -> None:
    assert not model_of(ModelPatcher(model)).recipe.compiles
    for name in ("diffusion_model", "diffusion_model.joint_blocks.1"):
        patcher = ModelPatcher(model)
        patcher.add_object_patch(name, torch.compile(patcher.get_model_object(name), backend="eager"))
        assert model_of(patcher.clone()).recipe.compiles
    assert len(patcher.model.diffusion_model.joint_blocks) == model.spec.shape.depth
    assert not model_of(copy.deepcopy(ModelPatcher(model))).recipe.compiles


def test_who_walks_the_network_is_told_that_nothing_in_it_can_be_patched(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    network = ModelPatcher(model).get_model_object("diffusion_model")
    blocks = [f"joint_blocks.{at}" for at in range(model.spec.shape.depth)]
    assert [name for name, _ in network.named_modules() if name.startswith("joint_blocks.")] == blocks
    assert "not patched" in caplog.text


def test_packs_ask_of_which_kind_a_model_is(model: Model) -> None:
    names = patching.names()
    kinds, patcher = names["comfy.model_sampling"], ModelPatcher(model)
    flow = patcher.get_model_object("model_sampling")
    asked = [name for name, kind in kinds.items() if isinstance(kind, type) and isinstance(flow, kind)]
    assert asked == ["CONST", "ModelSamplingDiscreteFlow"]
    noise = ModelPatcher(model.with_parameterisation(sdxl("v"))).get_model_object("model_sampling")
    asked = [name for name, kind in kinds.items() if isinstance(kind, type) and isinstance(noise, kind)]
    assert asked == ["V_PREDICTION", "ModelSamplingDiscrete"]
    assert isinstance(patcher.model, names["comfy.model_base"]["SD3"])
    assert isinstance(patcher.model.model_config, names["comfy.supported_models"]["SD3"])
    assert patcher.model.model_config.sampling_settings == {"shift": 3.0, "multiplier": 1000.0}


def test_levels_of_a_packs_class_are_ours_where_it_changes_nothing(model: Model) -> None:
    kinds = patching.names()["comfy.model_sampling"]
    patcher = ModelPatcher(model)
    mine = type("Mine", (kinds["ModelSamplingDiscreteFlow"], kinds["CONST"]), {})
    made = mine(patcher.model.model_config)
    patcher.add_object_patch("model_sampling", made)
    assert model_of(patcher).parameterisation == sd3(3.0)
    made.set_parameters(shift=1.5, multiplier=1000)
    assert model_of(patcher).parameterisation == sd3(1.5)
    assert float(made.sigma(torch.tensor(500.0))) == pytest.approx(sd3(1.5).levels.percent_to_sigma(0.5))
    spread = type("Spread", (kinds["ModelSamplingFlux"], kinds["CONST"]), {})()
    patcher.add_object_patch("model_sampling", spread)
    assert model_of(patcher).parameterisation == flux(1.15)
    assert isinstance(made, kinds["CONST"])
    assert not isinstance(made, kinds["EPS"])
    with pytest.raises(BadValue, match="model_sampling: 'Module'"):
        patcher.add_object_patch("model_sampling", torch.nn.Module())


def test_levels_that_a_pack_makes_itself_are_asked_for(model: Model) -> None:
    kinds = patching.names()["comfy.model_sampling"]
    mine = type("Mine", (kinds["ModelSamplingDiscreteFlow"], kinds["CONST"]), {})
    straight, shifted, patcher = mine(), mine(), ModelPatcher(model)
    straight.set_parameters(shift=1.0)
    shifted.register_buffer("sigmas", FlowLevels(4.0).table.double())  # as if it had another shift than it says
    shifted.__dict__["shift"] = 4.0
    patcher.object_patches["model_sampling"] = shifted
    found, ours = model_of(patcher), model.with_parameterisation(sd3(4.0))
    assert found.parameterisation != ours.parameterisation
    for scheduler in ("simple", "normal", "karras", "beta", "ddim_uniform", "sgm_uniform", "kl_optimal"):
        asked = {"scheduler": scheduler, "steps": 6, "denoise": 0.8}
        expected = NODES["BasicScheduler"](model=ours, **asked)
        assert NODES["BasicScheduler"](model=found, **asked) == pytest.approx(expected, abs=2e-5), scheduler
    torch.testing.assert_close(guided(found), guided(ours))
    assert str(found.parameterisation) != str(model_of(patcher_of(model, straight)).parameterisation)


def patcher_of(model: Model, sampling: Any) -> ModelPatcher:
    patcher = ModelPatcher(model)
    patcher.object_patches["model_sampling"] = sampling
    return patcher


def test_what_has_no_place_here_is_refused_by_name(model: Model) -> None:
    patcher = ModelPatcher(model)
    with pytest.raises(BadValue, match=r"add_object_patch: 'diffusion_model: object'"):
        patcher.add_object_patch("diffusion_model", object())
    with pytest.raises(AttributeError, match="a network's double_blocks is not here"):
        _ = patcher.get_model_object("diffusion_model").double_blocks
    with pytest.raises(BadValue, match="set_model_patch: 'single'"):
        patcher.set_model_patch_replace(lambda *_: None, "single", "block", 0)
    patcher.model_options["transformer_options"]["patches_replace"] = {"attn2": {}, "flux": {("block", 1): print}}
    with pytest.raises(BadValue, match="transformer_options patches_replace: 'flux'"):
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
