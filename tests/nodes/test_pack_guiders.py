"""Guiders, samplers and noise in packs' hands: runs inside a pack's node are the runs of our own nodes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.compose.shims import patching, sampling
from sigmagraph.engine.errors import BadValue, Cancelled
from sigmagraph.engine.execution.calling.context import CURRENT, CallContext
from sigmagraph.engine.graph.results import Progress
from sigmagraph.engine.models import Model
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.borders import border
from sigmagraph.nodes.support.packs.guiders import CFGGuider, PerpNegGuider, sampling_function
from sigmagraph.nodes.support.packs.models import ModelPatcher
from sigmagraph.nodes.support.packs.samplers import KSAMPLER
from sigmagraph.nodes.support.types import LatentValue
from tests.nodes.closed_form_model import closed_form_model, conditioning
from tests.nodes.golden_cases import family

CROSS = border().translations
LATENT = torch.randn(2, 16, 6, 4, generator=torch.Generator().manual_seed(5))
POSITIVE, NEGATIVE = conditioning("pos"), conditioning("neg")
SIDES = {name: CROSS["CONDITIONING"].out(conditioning(name)) for name in ("pos", "neg", "pos2")}
NOISE = sampling.prepare_noise(LATENT, 3)


@pytest.fixture(scope="module", autouse=True)
def names() -> dict[str, dict[str, Any]]:
    patching.KSampler.SAMPLERS, patching.KSampler.SCHEDULERS = ["euler"], ["simple"]
    return patching.names()


@pytest.fixture(scope="module")
def model() -> Model:
    return closed_form_model("flow", family("guidance")[1])


def ours(model: Model, sampler: str = "euler", cfg: float = 4.5, **more: Any) -> Tensor:
    named = {"positive": POSITIVE, "negative": NEGATIVE, "latent_image": LatentValue(LATENT), "scheduler": "simple"}
    made: Tensor = NODES["KSampler"](
        model=model, seed=3, steps=6, cfg=cfg, sampler_name=sampler, **named, **more
    ).samples
    return made


def by_packs(model: Model, sampler: str = "euler", **more: Any) -> Tensor:
    run: Callable[..., Tensor] = patching.names()["comfy.sample"]["sample"]
    sides = SIDES["pos"], SIDES["neg"]
    return run(ModelPatcher(model), NOISE, 6, 4.5, sampler, "simple", *sides, LATENT, seed=3, **more)


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "euler_ancestral", "dpmpp_2m_sde"])
def test_comfy_sample_is_our_ksampler(model: Model, sampler: str) -> None:
    torch.testing.assert_close(by_packs(model, sampler), ours(model, sampler), atol=0, rtol=0)


def test_a_part_of_the_way_and_a_mask_are_those_of_our_nodes(model: Model) -> None:
    mask = torch.zeros(1, 6, 4)
    mask[:, :3] = 1
    named = {"positive": POSITIVE, "negative": NEGATIVE, "latent_image": LatentValue(LATENT, mask)}
    steps = {"add_noise": "enable", "noise_seed": 3, "steps": 6, "cfg": 4.5, "start_at_step": 2, "end_at_step": 5}
    more = {"sampler_name": "euler", "scheduler": "simple", "return_with_leftover_noise": "enable"}
    expected = NODES["KSamplerAdvanced"](model=model, **named, **steps, **more).samples
    found = by_packs(model, start_step=2, last_step=5, noise_mask=mask[:, None])
    torch.testing.assert_close(found, expected, atol=0, rtol=0)


def test_schedules_that_packs_declare_and_call_are_those_of_ours(
    model: Model, names: dict[str, dict[str, Any]]
) -> None:
    samplers = names["comfy.samplers"]
    levels = ModelPatcher(model).get_model_object("model_sampling")
    half = samplers["SchedulerHandler"](
        lambda sampling, steps: samplers["beta_scheduler"](sampling, steps, alpha=0.5, beta=0.7)
    )
    ends = samplers["SchedulerHandler"](lambda n, sigma_min, sigma_max: torch.linspace(sigma_max, sigma_min, n), False)
    samplers["SCHEDULER_HANDLERS"].update(half=half, ends=ends)
    try:
        made = samplers["calculate_sigmas"](levels, "half", 7)
        torch.testing.assert_close(made, samplers["calculate_sigmas"](levels, "beta57", 7))
        assert samplers["calculate_sigmas"](levels, "ends", 3).tolist() == pytest.approx(
            [levels.sigma_max, (levels.sigma_max + levels.sigma_min) / 2, levels.sigma_min]
        )
    finally:
        samplers["SCHEDULER_HANDLERS"].clear()


class Halved(CFGGuider):
    """Guidance of a pack: half of the scale, and it counts how often it is asked."""

    asked = 0

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: Any = None, seed: int | None = None) -> Tensor:
        self.asked += 1
        sides = self.conds["negative"], self.conds["positive"]
        return sampling_function(self.inner_model, x, timestep, *sides, self.cfg / 2, model_options, seed=seed)


def guider_of(cls: type[CFGGuider], model: Model, cfg: float) -> CFGGuider:
    guider = cls(ModelPatcher(model))
    guider.set_conds(SIDES["pos"], SIDES["neg"])
    guider.set_cfg(cfg)
    return guider


def advanced(guider: Any, sampler: Any = None, noise: Any = None) -> Tensor:
    sampler = NODES["KSamplerSelect"](sampler_name="euler") if sampler is None else CROSS["SAMPLER"].back(sampler)
    noise = NODES["RandomNoise"](noise_seed=3) if noise is None else CROSS["NOISE"].back(noise)
    sigmas = tuple(patching.KSampler(ModelPatcher(closed(guider)), 6).sigmas.tolist())
    named = {"sampler": sampler, "sigmas": sigmas, "latent_image": LatentValue(LATENT), "noise": noise}
    made: Tensor = NODES["SamplerCustomAdvanced"](guider=CROSS["GUIDER"].back(guider), **named)[0].samples
    return made


def closed(guider: CFGGuider) -> Model:
    return guider.model_patcher.value


def test_a_plain_guider_of_a_pack_is_our_own_guidance(model: Model) -> None:
    value = CROSS["GUIDER"].back(guider_of(CFGGuider, model, 4.5))
    assert value.denoiser.scale == 4.5
    assert value.denoiser.positive.context.shape == POSITIVE.context.shape
    torch.testing.assert_close(advanced(guider_of(CFGGuider, model, 4.5)), ours(model), atol=0, rtol=0)


def test_a_changed_guider_is_asked_for_each_estimate(model: Model) -> None:
    guider: Any = guider_of(Halved, model, 9.0)
    torch.testing.assert_close(advanced(guider), ours(model), atol=1e-5, rtol=0)
    assert guider.asked == 6
    assert CROSS["GUIDER"].out(CROSS["GUIDER"].back(guider)) is guider
    sigmas = patching.KSampler(ModelPatcher(model), 6).sigmas
    seen: list[int] = []
    made = guider.sample(
        NOISE, LATENT, patching.sampler_object("euler"), sigmas, callback=lambda step, *_: seen.append(step), seed=3
    )
    torch.testing.assert_close(made, ours(model), atol=1e-5, rtol=0)
    assert seen == [0, 1, 2, 3, 4, 5]


def test_a_guider_of_ours_comes_back_as_it_was_or_as_a_pack_changed_it(model: Model) -> None:
    value = NODES["CFGGuider"](model=model, positive=POSITIVE, negative=NEGATIVE, cfg=4.5)
    assert CROSS["GUIDER"].back(CROSS["GUIDER"].out(value)) is value
    guider = CROSS["GUIDER"].out(value)
    guider.set_cfg(2.0)
    torch.testing.assert_close(advanced(guider), ours(model, cfg=2.0), atol=0, rtol=0)


def test_functions_on_a_guiders_model_act_once(model: Model) -> None:
    for cls in (CFGGuider, Halved):
        patcher = ModelPatcher(model)
        patcher.set_model_sampler_post_cfg_function(lambda args: args["denoised"] * 1.25)
        guider = cls(patcher)
        guider.set_conds(SIDES["pos"], SIDES["neg"])
        guider.set_cfg(4.5 if cls is CFGGuider else 9.0)
        value = CROSS["GUIDER"].back(guider)
        expected = model.guided(POSITIVE, NEGATIVE, 4.5)(LATENT, 0.7).denoised * 1.25
        found = value.denoiser(LATENT, 0.7)
        torch.testing.assert_close(getattr(found, "denoised", found), expected, atol=1e-5, rtol=0)


def test_a_guider_that_drives_the_steps_itself_is_refused(model: Model) -> None:
    class Driving(CFGGuider):
        def sample(self, *_: Any, **__: Any) -> Tensor:
            return LATENT

    with pytest.raises(BadValue, match=r"guider: '.*Driving with sample of its own'"):
        CROSS["GUIDER"].back(guider_of(Driving, model, 1.0))


def test_a_sampler_of_ours_runs_in_a_packs_sampler_for_the_models_family(model: Model) -> None:
    """A wrapper like Detail Daemon's: it hands on to the sampler within, which must know that this is a flow."""
    inner = CROSS["SAMPLER"].out(NODES["KSamplerSelect"](sampler_name="euler_ancestral"))
    seen: list[Any] = []

    def wrapped(
        model: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None, callback: Any = None, disable: Any = None
    ) -> Tensor:
        seen.append(model.inner_model.inner_model.model_sampling.percent_to_sigma(0.5))
        args = {**extra_args, "seed": 3}
        made: Tensor = inner.sampler_function(model, x, sigmas, args, callback, disable, **inner.extra_options)
        return made

    found = advanced(guider_of(CFGGuider, model, 4.5), KSAMPLER(wrapped))
    torch.testing.assert_close(found, ours(model, "euler_ancestral"), atol=1e-5, rtol=0)
    assert seen == [pytest.approx(3 * 0.5 / (1 + 2 * 0.5))]


def test_parts_of_runs_that_packs_make_themselves_are_ours(model: Model, names: dict[str, dict[str, Any]]) -> None:
    parts = names["comfy_extras.nodes_custom_sampler"]
    assert torch.equal(parts["Noise_RandomNoise"](3).generate_noise({"samples": LATENT}), NOISE)
    assert not parts["Noise_EmptyNoise"]().generate_noise({"samples": LATENT}).any()
    guider = parts["Guider_Basic"](ModelPatcher(model))
    guider.set_conds(SIDES["pos"])
    torch.testing.assert_close(advanced(guider), ours(model, cfg=1.0), atol=0, rtol=0)
    found = names["comfy.sampler_helpers"]["convert_cond"](SIDES["pos"])
    estimate = sampling_function(guider.model_patcher.model, LATENT, torch.tensor([0.7]), None, found, 1.0)
    torch.testing.assert_close(estimate, model.predict(LATENT, 0.7, [POSITIVE])[0], atol=1e-6, rtol=1e-4)
    scaled = guider.model_patcher.model.latent_format
    torch.testing.assert_close(scaled.process_out(scaled.process_in(LATENT)), LATENT)
    assert scaled.scale_factor == model.spec.latent_format.scale


class Ones:
    """Noise of a pack."""

    seed = 3

    def generate_noise(self, input_latent: dict[str, Any]) -> Tensor:
        return torch.ones_like(input_latent["samples"])


def test_noise_crosses_both_ways(model: Model) -> None:
    out, back = CROSS["NOISE"].out, CROSS["NOISE"].back
    random = out(NODES["RandomNoise"](noise_seed=3))
    assert random.seed == 3
    torch.testing.assert_close(random.generate_noise({"samples": LATENT}), NOISE)
    torch.testing.assert_close(random.generate_noise({"samples": LATENT[:1], "batch_index": [1]})[0], NOISE[1])
    assert back(random) == NODES["RandomNoise"](noise_seed=3)
    own = Ones()
    assert out(back(own)) is own
    assert torch.equal(back(own).initial(LATENT), torch.ones_like(LATENT))
    guider = guider_of(CFGGuider, model, 4.5)
    sigmas = patching.KSampler(ModelPatcher(model), 6).sigmas
    given = guider.sample(torch.ones_like(LATENT), LATENT, patching.sampler_object("euler"), sigmas)
    torch.testing.assert_close(advanced(guider, noise=own), given, atol=0, rtol=0)


def test_a_run_inside_a_packs_node_is_its_progress_and_hears_a_cancel(model: Model) -> None:
    told: list[Progress] = []
    token = CURRENT.set(CallContext("7", told.append, lambda: len(told) >= 2))
    try:
        with pytest.raises(Cancelled, match="node 7"):
            by_packs(model)
    finally:
        CURRENT.reset(token)
    assert [(one.value, one.maximum) for one in told] == [(1, 6), (2, 6)]


def test_the_class_of_perpendicular_negatives_estimates_as_our_node(model: Model) -> None:
    """Packs derive from it and change its scale from step to step."""

    class Rising(PerpNegGuider):
        def predict_noise(self, x: Tensor, timestep: Tensor, *more: Any) -> Tensor:
            self.cfg = 3.0 if float(timestep[0]) > 0.5 else 5.0
            return super().predict_noise(x, timestep, *more)

    sides = {"positive": POSITIVE, "negative": NEGATIVE, "empty_conditioning": conditioning("pos2")}
    for kind, scales in ((PerpNegGuider, (4.0, 4.0)), (Rising, (3.0, 5.0))):
        guider = kind(ModelPatcher(model))
        guider.set_conds(SIDES["pos"], SIDES["neg"], SIDES["pos2"])
        guider.set_cfg(4.0, 0.75)
        made = CROSS["GUIDER"].back(guider)
        for level, scale in zip((0.8, 0.3), scales, strict=True):
            rule = NODES["PerpNegGuider"](model=model, cfg=scale, neg_scale=0.75, **sides).denoiser
            torch.testing.assert_close(made.denoiser(LATENT, level), rule(LATENT, level).denoised)


def test_the_linear_part_of_a_schedule_is_as_long_and_deep_as_asked(
    model: Model, names: dict[str, dict[str, Any]]
) -> None:
    schedule, levels = names["comfy.samplers"]["linear_quadratic_schedule"], ModelPatcher(model).model.model_sampling
    top = float(levels.sigma_max)
    made = schedule(levels, 10, threshold_noise=0.1, linear_steps=4)
    even = torch.tensor([1 - 0.025 * step for step in range(5)]) * top
    torch.testing.assert_close(made[:5], even)
    falls = made.diff()
    assert (falls[4:].diff() < 0).all(), "then ever faster"
    assert torch.equal(schedule(levels, 10), schedule(levels, 10, 0.025, 5))
    torch.testing.assert_close(schedule(levels, 10), patching.by_schedule("linear_quadratic", levels, 10))
    with pytest.raises(BadValue, match="linear_steps: 10"):
        schedule(levels, 10, linear_steps=10)


def test_conditionings_in_a_list_go_from_node_to_node_of_a_pack_as_they_are() -> None:
    """Some packs hand several on under this type, for a node of theirs that takes them apart."""
    several = [SIDES["pos"], SIDES["neg"]]
    assert CROSS["CONDITIONING"].back(several) is several
    assert CROSS["CONDITIONING"].out(several) is several


def test_packs_read_the_configuration_of_the_network(model: Model) -> None:
    known = ModelPatcher(model).model.model_config.unet_config
    shape = model.spec.shape
    assert known == {
        "in_channels": 16,
        "out_channels": 16,
        "patch_size": 2,
        "depth": shape.depth,
        "adm_in_channels": shape.pooled_width,
    }
    assert known.get("stable_cascade_stage") is None
