"""One `Sampling`, three ways to have it: run, watched, and answered from outside. And what may be a denoiser."""

from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.errors import BadPrediction, BadValue
from sigmagraph.engine.sampling import (
    SOLVERS,
    Cfg,
    ComfyNoise,
    PhiloxNoise,
    Prediction,
    Recording,
    Sampling,
    Tick,
    edm,
    sd3,
)
from sigmagraph.engine.sampling.denoiser import PredictRequest
from sigmagraph.engine.sampling.guidance import Rescale
from sigmagraph.engine.sampling.mask import DifferentialMask
from tests.sampling.closed_form import bumps
from tests.sampling.mixture import predict

SIGMAS = [1.0, 0.8, 0.4, 0.0]
LATENT = torch.zeros(2, 16, 6, 4)


def halved(x: Tensor, sigma: float) -> Tensor:
    return x * 0.5


def scaled(x: Tensor, sigma: float, by: float) -> Tensor:
    return x * by


def sampling(denoiser: Any, solver: str = "dpmpp_2m", **rest: Any) -> Sampling:
    parts = {"latent": LATENT, "sigmas": SIGMAS, "model": sd3(), "solver": solver, "noise": ComfyNoise(5)} | rest
    return Sampling(denoiser, **parts)


@pytest.mark.parametrize("mask", [None, torch.ones(1, 6, 4).tril()])
def test_run_watched_and_answered_from_outside_are_the_same_run(mask: Tensor | None) -> None:
    one = sampling(Cfg(predict("flow"), "pos", "neg", 3.0), mask=mask)
    ticks: list[Tick] = []

    def watched() -> Generator[Tick, None, None]:
        finals.append((yield from one.ticks()))

    def answered() -> Generator[Tick | PredictRequest, Any, None]:
        finals.append((yield from one.requests()))

    finals = [one.run()]
    ticks.extend(watched())
    steps, answer = answered(), None
    with suppress(StopIteration):
        while True:
            said = steps.send(answer)
            answer = said.answer() if isinstance(said, PredictRequest) else None
    assert [tick.sigma for tick in ticks] == SIGMAS[:-1]
    assert torch.equal(finals[0], finals[1])
    assert torch.equal(finals[0], finals[2])


def test_a_function_of_state_and_level_is_a_denoiser() -> None:
    wrapped = sampling(lambda x, sigma, needs_uncond=False: halved(x, sigma))
    assert torch.equal(sampling(halved).run(), wrapped.run())
    assert torch.equal(sampling(halved, mask=torch.ones(6, 4)).run(), wrapped.run())


@pytest.mark.parametrize("name", SOLVERS)
def test_a_denoiser_that_writes_into_its_input_changes_no_number(name: str) -> None:
    def spoiling(x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        made = bumps(x, sigma)
        x.fill_(1e9)
        return made

    def spoiling_guided(x: Tensor, sigma: float, sides: Sequence[Any]) -> list[Tensor]:
        made = predict("flow")(x, sigma, sides)
        x.fill_(1e9)
        return list(made)

    def finals(denoiser: Any, **rest: Any) -> Tensor:
        return sampling(denoiser, name, **rest).run()

    assert torch.equal(finals(spoiling), finals(bumps))
    mask = torch.ones(6, 4).tril()
    assert torch.equal(finals(spoiling, mask=mask), finals(bumps, mask=mask))
    guided = Cfg(predict("flow"), "pos", "neg", 3.0, adjust=[Rescale(0.5)])
    assert torch.equal(finals(replace(guided, predict=spoiling_guided)), finals(guided))


def test_a_sampler_that_needs_both_estimates_says_so_before_it_runs() -> None:
    with pytest.raises(BadValue, match=r"denoiser: 'halved'.*such as Cfg: sampler euler_cfg_pp needs both"):
        sampling(halved, "euler_cfg_pp")


def test_what_is_no_estimate_is_named() -> None:
    with pytest.raises(BadPrediction, match=r"sigma 1: the denoiser returned list; expected a tensor like x"):
        sampling(lambda x, sigma: [x]).run()
    with pytest.raises(BadPrediction, match=r"step 1, sigma 1: the model returned shape \(1, 16, 6, 4\)"):
        sampling(lambda x, sigma: x[:1]).run()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", SOLVERS)
def test_a_model_that_answers_in_half_precision_is_taken_up_in_the_state_s(name: str, dtype: torch.dtype) -> None:
    def run(answer: Callable[[Tensor], Tensor]) -> Tensor:
        def estimates(x: Tensor, sigma: float, sides: Sequence[Any]) -> list[Tensor]:
            return [answer(x * side) for side in sides]

        guided = Cfg(estimates, 0.5, 0.4, 3.0)
        return Sampling(guided, torch.zeros(1, 1, 4, 4), SIGMAS, sd3(), name, noise=ComfyNoise(2)).run()

    half, widened = run(lambda x: x.to(dtype)), run(lambda x: x.to(dtype).float())
    assert half.dtype == torch.float32
    assert torch.equal(half, widened)


GUIDED = Cfg(predict("flow"), "pos", "neg", 3.0)
OTHERS = {
    "latent": sampling(GUIDED, latent=LATENT + 0.5),
    "mask": sampling(GUIDED, mask=torch.ones(6, 4).tril()),
    "model": sampling(GUIDED, model=sd3(1.0)),
    "prompt": sampling(Cfg(predict("flow"), "pos", "pos", 3.0)),
    "tensor of a prompt": sampling(Cfg(predict("flow"), torch.ones(3), "neg", 3.0)),
    "scale": sampling(Cfg(predict("flow"), "pos", "neg", 3.5)),
    "rule": sampling(Cfg(predict("flow"), "pos", "neg", 3.0, adjust=[Rescale(0.7)])),
    "denoiser": sampling(halved),
    "places": sampling(GUIDED, batch_index=[1, 23]),
}
PLACED = sampling(GUIDED, batch_index=[12, 3])
PARTED = sampling(GUIDED, mask=torch.ones(6, 4).tril() * 0.5)
CLOSE = {
    "places of the same digits": (PLACED, OTHERS["places"]),
    "how the mask changes": (PARTED, replace(PARTED, mask_rule=DifferentialMask(float))),
    "strength of that": (
        replace(PARTED, mask_rule=DifferentialMask(float)),
        replace(PARTED, mask_rule=DifferentialMask(float, 0.5)),
    ),
    "settings of a function": (sampling(partial(scaled, by=0.5)), sampling(partial(scaled, by=0.6))),
}


@pytest.mark.parametrize("changed", OTHERS)
def test_a_recording_is_refused_by_a_run_of_another(changed: str) -> None:
    recording = Recording()
    final = sampling(GUIDED).run(recording)
    with pytest.raises(BadValue, match="recording"):
        OTHERS[changed].run(Recording(recording.predictions, recording.about))
    again = sampling(Cfg(predict("flow"), "pos", "neg", 3.0))
    assert torch.equal(again.run(Recording(recording.predictions, recording.about)), final)


@pytest.mark.parametrize("changed", CLOSE)
def test_a_recording_is_refused_by_a_run_that_is_nearly_its_own(changed: str) -> None:
    recorded, other = CLOSE[changed]
    recording = Recording()
    final = recorded.run(recording)
    with pytest.raises(BadValue, match="recording"):
        other.run(Recording(recording.predictions, recording.about))
    assert torch.equal(recorded.run(Recording(recording.predictions, recording.about)), final)


@pytest.mark.parametrize("latent", [torch.zeros(1, 1, 2, 2).long(), torch.zeros(0, 1, 2, 2)])
def test_a_latent_of_whole_numbers_or_of_no_image_is_an_error(latent: Tensor) -> None:
    with pytest.raises(BadValue, match="latent: .* one image or more"):
        sampling(halved, latent=latent)


def test_a_level_beyond_single_precision_is_named() -> None:
    with pytest.raises(BadValue, match=r"sigmas\[0\]: 1e\+300"):
        Sampling(halved, LATENT, [1e300, 1.0, 0.0], edm(), noise=ComfyNoise(1)).run()


@pytest.mark.parametrize("solver", ["euler", "dpm_adaptive"])
@pytest.mark.parametrize("mask", [torch.ones(6, 4).tril(), torch.stack([torch.ones(6, 4).tril(), torch.zeros(6, 4)])])
def test_a_mask_of_a_latent_with_a_time_axis_keeps_every_frame(mask: Tensor, solver: str) -> None:
    latent = PhiloxNoise(7).initial(torch.zeros(2, 16, 3, 6, 4))
    final = sampling(halved, solver, latent=latent, mask=mask).run()
    kept = (mask.expand(2, 6, 4) == 0)[:, None, None].expand_as(latent)
    assert torch.allclose(final[kept], latent[kept], atol=1e-6)
    assert float((final - latent)[~kept].abs().min()) > 0


def test_levels_above_1_on_a_flow_model_are_named() -> None:
    one = Sampling(halved, LATENT, [14.6, 3.0, 0.5, 0.0], sd3(), noise=ComfyNoise(1))
    with pytest.raises(BadValue, match=r"sigmas: '14\.6'.*rectified flow, at most 1, such as BasicScheduler"):
        one.run()
    assert Sampling(halved, LATENT, [14.6, 3.0, 0.0], edm(), noise=ComfyNoise(1)).run().isfinite().all()


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (torch.full((6, 4), 1.5), "values from 1.5 to 1.5"),
        (torch.full((6, 4), -0.2), "values from -0.2"),
        (torch.ones(4), r"\[H, W\]"),
        (torch.ones(1, 3, 6, 4), r"\[B, 1, H, W\]"),
        (torch.ones(1, 1, 1, 6, 4), r"\[B, 1, H, W\]"),
    ],
)
def test_a_mask_that_is_none_says_what_one_is(mask: Tensor, said: str) -> None:
    with pytest.raises(BadValue, match=said):
        sampling(halved, mask=mask).run()


def test_a_denoiser_may_follow_a_gradient_of_its_own() -> None:
    """Guidance by a loss: a run is in inference mode, a denoiser may leave it for a copy of the state."""
    target = 0.4

    def guided(x: Tensor, sigma: float) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            state = x.clone().requires_grad_()
            estimate = state * (1 - sigma)
            loss = (estimate - target).square().sum()
            (slope,) = torch.autograd.grad(loss, state)
        return estimate.detach() - slope

    latent = torch.zeros(1, 1, 2, 2)
    result = Sampling(guided, latent, [1.0, 0.6, 0.3, 0.0], sd3(), noise=PhiloxNoise(1)).run()
    x = PhiloxNoise(1).initial(latent)
    for sigma, sigma_next in ((1.0, 0.6), (0.6, 0.3), (0.3, 0.0)):
        denoised = x * (1 - sigma) - 2 * (1 - sigma) * (x * (1 - sigma) - target)
        x = x + (x - denoised) / sigma * (sigma_next - sigma)
    torch.testing.assert_close(result, x)
