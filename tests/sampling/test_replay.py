"""Laws over the registry about runs as runs: replay, batches, device reads, extremes, cancelling, bad predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sigmagraph.engine.errors import BadPrediction, BadValue, Cancelled, UnknownName
from sigmagraph.engine.sampling import (
    SCHEDULES,
    SOLVERS,
    Cfg,
    ComfyNoise,
    NoNoise,
    PhiloxNoise,
    Prediction,
    Recording,
    Sampling,
    find_schedule,
    find_solver,
    run_sigmas,
    sd3,
)
from sigmagraph.engine.sampling.guidance import CfgZeroStar, Rescale
from tests.sampling.closed_form import bumps, bumps_below, carried, solve

EVERY = {f"{one.name}@{one.revision}": one for solver in SOLVERS.values() for one in (solver, *solver.older)}
FIVE = [1.0, 0.8, 0.55, 0.3, 0.1, 0.0]


def shaped(*shape: int) -> Tensor:
    return torch.zeros(*shape)


def run(key: str, latent: Tensor | None = None, sigmas: Any = FIVE, denoiser: Any = bumps, **rest: Any) -> Tensor:
    rest.setdefault("noise", ComfyNoise(3))
    watch = {name: rest.pop(name) for name in ("recording", "on_tick", "is_cancelled") if name in rest}
    start = shaped(2, 1, 3, 4) if latent is None else latent
    return Sampling(denoiser, start, sigmas, sd3(), EVERY[key], **rest).run(**watch)


@pytest.mark.parametrize("key", EVERY)
def test_a_run_cut_after_any_evaluation_resumes_to_the_same_bits(key: str) -> None:
    whole = Recording()
    expected = run(key, recording=whole)
    for count in range(len(whole.predictions) + 1):
        asked: list[float] = []

        def counting(x: Tensor, sigma: float, needs_uncond: bool = False, asked: Any = asked) -> Prediction:
            asked.append(sigma)
            return bumps(x, sigma, needs_uncond)

        part = Recording(whole.predictions[:count])
        assert torch.equal(run(key, denoiser=counting, recording=part), expected)
        assert len(asked) == len(whole.predictions) - count
        assert len(part.predictions) == len(whole.predictions)


@pytest.mark.parametrize("name", SOLVERS)
def test_image_k_of_a_batch_equals_the_image_alone(name: str) -> None:
    key = f"{name}@{SOLVERS[name].revision}"
    # 64 elements an image: the test model's own exponentials differ in the last bit where a CPU's vectors end
    batch = run(key, shaped(8, 1, 8, 8), noise=PhiloxNoise(99))
    for image in range(8):
        alone = run(key, shaped(1, 1, 8, 8), noise=PhiloxNoise(99), batch_index=[image])
        assert torch.equal(batch[image : image + 1], alone)


@pytest.mark.parametrize("name", SOLVERS)
def test_runs_by_turns_are_the_runs_alone(name: str) -> None:
    """A solver under way keeps what it knows to itself: evaluation by evaluation beside another, each is as alone."""
    key, latent = f"{name}@{SOLVERS[name].revision}", shaped(1, 1, 4, 4)
    runs = [Sampling(bumps, latent, FIVE, sd3(), EVERY[key], noise=noise) for noise in (ComfyNoise(3), PhiloxNoise(4))]
    last = dict[int, Tensor]()
    for ticks in zip_longest(*(one.ticks() for one in (*runs, runs[0]))):
        last |= {place: tick.x for place, tick in enumerate(ticks) if tick is not None}
    for place, alone in enumerate((*runs, runs[0])):
        assert torch.equal(last[place], alone.run())


class CountReads(TorchDispatchMode):
    """Counts operations that hand a device's number to Python."""

    reads = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        reading = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "unique")
        self.reads += any(func.name().split("::")[1].startswith(name) for name in reading)
        return func(*args, **(kwargs or {}))


def blank(x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
    return Prediction(x * 0.5, x * 0.5)


@pytest.mark.parametrize("key", [key for key, one in EVERY.items() if not one.is_adaptive])
def test_no_step_reads_a_number_back_from_the_device(key: str) -> None:
    with CountReads() as counter:
        run(key, denoiser=blank)
    assert counter.reads == 0


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("key", EVERY)
def test_very_short_runs_from_pure_noise_are_finite_and_end_near_the_data(key: str, steps: int) -> None:
    solver = EVERY[key]
    sigmas = run_sigmas(find_schedule("simple", 1), sd3().levels, steps, 1.0, solver.drops_penultimate)
    result = run(key, sigmas=sigmas)
    assert result.isfinite().all()
    if solver.revision == 2 and solver.order > 0:
        assert result.abs().max() < 6  # the data lies within [-3, 3]


@pytest.mark.parametrize("key", EVERY)
def test_a_repeated_sigma_is_left_out(key: str) -> None:
    assert torch.equal(run(key, sigmas=[1.0, 0.8, 0.8, 0.55, 0.3, 0.3, 0.1, 0.0]), run(key))


@dataclass(frozen=True)
class Rounded(ComfyNoise):
    """Comfy's noise with the initial one rounded to a precision, in float32."""

    dtype: torch.dtype = torch.float16

    def initial(self, like: Tensor, batch_index: Sequence[int] | None = None) -> Tensor:
        return super().initial(like.to(self.dtype), batch_index).float()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", SOLVERS)
def test_half_precision_latents_are_sampled_in_single_precision(name: str, dtype: torch.dtype) -> None:
    latent = torch.linspace(-1, 1, 24).reshape(2, 1, 3, 4).to(dtype)
    result = Sampling(bumps, latent, FIVE, sd3(), name, noise=ComfyNoise(3)).run()
    assert result.dtype == torch.float32
    assert torch.equal(result, Sampling(bumps, latent.float(), FIVE, sd3(), name, noise=Rounded(3, dtype)).run())


@pytest.mark.parametrize("denoise", [0.0, 1e-3])
def test_hardly_any_denoising_leaves_the_latent_nearly_as_it_is(denoise: float) -> None:
    latent = torch.linspace(-1, 1, 12).reshape(1, 1, 3, 4)
    for name, solver in SOLVERS.items():
        sigmas = run_sigmas(SCHEDULES["simple"], sd3().levels, 4, denoise, solver.drops_penultimate)
        result = Sampling(bumps, latent, sigmas, sd3(), name, noise=ComfyNoise(3)).run()
        assert (result - latent).abs().max() < (0.05 if denoise else 1e-9), name


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLVERS)
def test_ten_thousand_steps_stay_finite(name: str) -> None:
    sigmas = run_sigmas(SCHEDULES["normal"], sd3().levels, 10_000)
    result = Sampling(bumps, shaped(1, 1, 2, 2), sigmas, sd3(), name, noise=ComfyNoise(3)).run()
    assert result.isfinite().all()
    assert result.abs().max() < 3  # the data lies within


def test_cancelling_stops_between_two_evaluations() -> None:
    seen: list[int] = []
    with pytest.raises(Cancelled, match=r"after 2 evaluations, step 2 of 5"):
        run("euler@1", on_tick=lambda tick: seen.append(tick.evaluations), is_cancelled=lambda: len(seen) == 2)
    assert seen == [1, 2]


def test_closing_the_steps_closes_the_solver() -> None:
    steps = Sampling(bumps, shaped(1, 1, 2, 2), FIVE, sd3(), "heun", noise=ComfyNoise(1)).ticks()
    next(steps)
    steps.close()
    with pytest.raises(StopIteration):
        next(steps)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_bad_prediction_fails_at_its_step_and_names_it(poison: float) -> None:
    def denoiser(x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        denoised = bumps(x, sigma).denoised.clone()
        if sigma < 0.5:
            denoised[0, 0, 0, 0] = poison
        return Prediction(denoised)

    ticks: list[int] = []
    with pytest.raises(BadPrediction, match=r"step 4, sigma 0\.3: the model returned NaN or infinity"):
        run("euler@1", denoiser=denoiser, on_tick=lambda tick: ticks.append(tick.step))
    assert ticks == [1, 2, 3]


def test_a_prediction_of_the_wrong_shape_names_step_sigma_and_both_shapes() -> None:
    with pytest.raises(BadPrediction, match=r"step 1, sigma 1: .*\(2, 1, 3\) for a state of shape \(2, 1, 3, 4\)"):
        run("euler@1", denoiser=lambda x, sigma, needs_uncond=False: Prediction(x[..., 0]))


def first_image_alone(x: Tensor, sigma: float, sides: Any) -> list[Tensor]:
    """A model that answers for the first image of a batch and leaves the others to broadcasting."""
    return [x[:1] * 0.5 for _ in sides]


def first_image_unguided(x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
    return Prediction(x[:1] * 0.5, x[:1] * 0.5)


@pytest.mark.parametrize(
    ("denoiser", "rest"),
    [
        (Cfg(first_image_alone, "p", "n", 4.5), {"mask": torch.ones(3, 4)}),
        (first_image_unguided, {"mask": torch.ones(3, 4)}),
        (Cfg(first_image_alone, "p", "n", 4.5, adjust=[Rescale(0.7)]), {}),
        (Cfg(first_image_alone, "p", "n", 4.5, combine=CfgZeroStar(4.5)), {}),
    ],
)
def test_a_wrong_shape_is_told_also_where_blending_or_guidance_would_broadcast_it(denoiser: Any, rest: Any) -> None:
    with pytest.raises(BadPrediction, match=r"step 1, sigma 1: .*\(1, 1, 3, 4\) for a state of shape \(2, 1, 3, 4\)"):
        run("euler@1", denoiser=denoiser, **rest)


def test_an_unconditional_estimate_of_the_wrong_shape_or_with_nan_is_told() -> None:
    with pytest.raises(BadPrediction, match=r"step 1, sigma 1: .*\(1, 1, 3, 4\)"):
        run("euler_cfg_pp@1", denoiser=lambda x, sigma, needs_uncond=False: Prediction(x * 0.5, x[:1] * 0.5))
    with pytest.raises(BadPrediction, match=r"step 1, sigma 1: the model returned NaN"):
        run("euler_cfg_pp@1", denoiser=lambda x, sigma, needs_uncond=False: Prediction(x * 0.5, x * float("nan")))


@pytest.mark.parametrize("places", [[0], [0, 1, 2], [0, -1]])
@pytest.mark.parametrize("noise", [ComfyNoise(3), PhiloxNoise(3)])
@pytest.mark.parametrize("key", ["euler@1", "dpm_adaptive@2"])
def test_places_in_a_batch_are_as_many_as_its_images(key: str, noise: Any, places: list[int]) -> None:
    with pytest.raises(BadValue, match="batch_index.*each of the latent's 2 images"):
        run(key, noise=noise, batch_index=places)


def test_a_sampler_that_needs_the_unconditional_estimate_says_so() -> None:
    with pytest.raises(BadPrediction, match="needs the unconditional estimate"):
        run("euler_cfg_pp@1", denoiser=lambda x, sigma, needs_uncond=False: Prediction(x))


@pytest.mark.parametrize(
    ("sigmas", "place"),
    [
        ([1.0, float("nan"), 0.0], r"sigmas\[1\]"),
        ([1.0, -0.1], r"sigmas\[1\]"),
        ([1.0, float("inf")], r"sigmas\[1\]"),
        ([float("nan"), 0.5], r"sigmas\[0\]"),
    ],
)
def test_sigmas_below_0_or_not_finite_are_refused(sigmas: list[float], place: str) -> None:
    with pytest.raises(BadValue, match=place):
        run("euler@1", sigmas=sigmas)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"eta": -1.0}, "float from 0 to 100"), ({"eta": "much"}, "float from"), ({"eta": True}, "float from")],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(BadValue, match=message):
        run("euler_ancestral@2", options=options)


def test_options_of_another_sampler_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownName, match="did you mean 's_churn'"):
        run("euler@2", options={"churn": 1.0})


def test_unknown_names_and_revisions_are_refused_with_what_there_is() -> None:
    with pytest.raises(UnknownName, match="did you mean 'dpmpp_2m'"):
        find_solver("dpmp_2m")
    with pytest.raises(UnknownName, match="did you mean 'karras'"):
        find_schedule("karas")
    with pytest.raises(BadValue, match="1 to 2"):
        find_solver("euler@7")
    with pytest.raises(BadValue, match="whole number"):
        find_solver("euler@new")


def test_a_name_carries_its_revision_and_a_bare_one_means_what_the_caller_says() -> None:
    assert find_solver("ddpm@1").revision == 1
    assert find_solver("ddpm", bare_revision=1).revision == 1
    assert find_solver("ddpm").revision == 2


def test_an_empty_schedule_returns_the_latent_untouched() -> None:
    latent = torch.linspace(-1, 1, 12).reshape(1, 1, 3, 4)
    result = run("euler@1", latent, sigmas=[])
    assert torch.equal(result, latent)
    assert result is not latent


@pytest.mark.parametrize("key", EVERY)
def test_where_no_level_has_noise_the_latent_is_what_it_was(key: str) -> None:
    latent = torch.linspace(-1, 1, 12).reshape(1, 1, 3, 4)
    assert torch.equal(run(key, latent, sigmas=[0.0, 0.0]), latent)


def test_results_can_be_used_outside_inference_mode() -> None:
    result = run("euler@1")
    assert not result.is_inference()


@pytest.mark.parametrize("name", [name for name, one in SOLVERS.items() if one.inverts])
def test_a_rising_schedule_turns_an_image_into_the_noise_it_came_from(name: str) -> None:
    latent = torch.linspace(-1.5, 1.5, 12, dtype=torch.float64).reshape(1, 1, 3, 4)
    down = [0.98 * (1 - i / 200) + 0.005 * i / 200 for i in range(201)]
    noise = Sampling(bumps, latent, down[::-1], sd3(), name, noise=NoNoise(ComfyNoise(1))).run()
    back = Sampling(bumps, noise, down, sd3(), name, noise=NoNoise(ComfyNoise(1))).run()
    assert (back - latent).abs().max() < 0.05


@pytest.mark.parametrize("key", [key for key, one in EVERY.items() if one.inverts])
def test_a_rising_schedule_may_end_where_no_signal_is_left(key: str) -> None:
    latent = torch.linspace(-1.5, 1.5, 12, dtype=torch.float64).reshape(1, 1, 3, 4)
    rising = [1e-4, *(i / 200 for i in range(1, 201))]
    noise = run(key, latent, sigmas=rising, noise=NoNoise(ComfyNoise(1)))
    quantiles = bumps_below(latent, 0.0)
    # the exact flow keeps quantiles, and at sigma 1 the density is the standard normal one
    limit = 0.3 if EVERY[key].order == 1 else 0.12
    assert (torch.special.ndtr(noise) - quantiles).abs().max() < limit


@pytest.mark.parametrize("key", [key for key, one in EVERY.items() if not one.inverts])
def test_a_rising_schedule_is_refused_where_the_sampler_cannot_invert(key: str) -> None:
    with pytest.raises(
        BadValue, match=r"sigmas\[1\]: 0\.5 is not allowed; expected at most .*0\.1: of samplers only .* euler, "
    ):
        run(key, sigmas=[0.1, 0.5, 0.9])


def test_levels_rise_from_above_0_and_each_is_there_once() -> None:
    with pytest.raises(BadValue, match="0 as the last level only"):
        run("euler@2", sigmas=[0.0, 0.5, 0.9])
    with pytest.raises(BadValue, match="0.5 on the way up and on the way down' is not allowed"):
        run("euler@2", sigmas=[0.5, 0.9, 0.5, 0.0])


@pytest.mark.parametrize("key", [key for key, one in EVERY.items() if one.inverts])
def test_a_first_level_below_the_second_leads_up_and_then_down(key: str) -> None:
    latent = torch.linspace(-1.5, 1.5, 12, dtype=torch.float64).reshape(1, 1, 3, 4)
    fine = [0.4, *(0.9 - i / 400 for i in range(341)), 0.05 - 1e-9]  # as SetFirstSigma leaves it
    exact = carried(latent, 0.4, 0.05)
    result = solve(EVERY[key], latent, fine, bumps)
    plain = solve(EVERY["euler@1"], latent, fine, bumps)
    assert (result - exact).abs().max() < max(0.5, 2 * float((plain - exact).abs().max()))


def test_euler_goes_up_and_down_by_its_formula() -> None:
    latent = torch.linspace(-1.5, 1.5, 12, dtype=torch.float64).reshape(1, 1, 3, 4)
    result = Sampling(bumps, latent, [0.5, 0.9, 0.3, 0.0], sd3(), "euler@1", noise=NoNoise(ComfyNoise(1))).run()
    start = latent * 0.5  # the signal's share at the first level; no noise
    for sigma, sigma_next in ((0.5, 0.9), (0.9, 0.3), (0.3, 0.0)):
        start = start + (start - bumps(start, sigma).denoised) / sigma * (sigma_next - sigma)
    torch.testing.assert_close(result, start)


@pytest.mark.parametrize("key", EVERY)
def test_progress_ends_with_the_run_and_not_before(key: str) -> None:
    solver = EVERY[key]
    sigmas = run_sigmas(find_schedule("simple", 1), sd3().levels, 9, 1.0, solver.drops_penultimate)
    latent = torch.zeros(1, 1, 2, 2)
    ticks = [*Sampling(bumps, latent, sigmas, sd3(), solver, noise=ComfyNoise(3)).ticks()]
    done = [tick.step for tick in ticks]
    assert done == sorted(done)
    assert done[-1] == ticks[-1].steps
    assert done.count(ticks[-1].steps) == 1


def test_menus_show_existing_names_first_and_in_their_order() -> None:
    assert list(SOLVERS)[:3] == ["euler", "euler_cfg_pp", "euler_ancestral"]
    assert list(SCHEDULES)[:3] == ["simple", "sgm_uniform", "karras"]
    assert list(SOLVERS).index("uni_pc_bh2") < list(SOLVERS).index("res_2s")
