"""A run of a model on which packs have set functions: these are told of it, surround it, and find its levels.

Where nothing but the network is surrounded the run goes step by step like any other. A function round the whole run
is called once and calls the run: it goes to its end there, and each step is told to who hears of a pack's node.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.results import Progress
from sigmagraph.engine.sampling.guidance import Cfg
from sigmagraph.engine.sampling.solver_run import Tick
from sigmagraph.nodes.support.denoising import LatentRun, Outcome, Sampled, in_model_space
from sigmagraph.nodes.support.packs.conditioning import GuiderEntries
from sigmagraph.nodes.support.packs.inside import RUN, RunNow
from sigmagraph.nodes.support.packs.noise import GivenNoise, PackNoise
from sigmagraph.nodes.support.packs.samplers import sampler_of, sampler_out
from sigmagraph.nodes.support.packs.wrappers import CallbacksMP, WrappersMP, all_wrappers, copied, surrounded
from sigmagraph.nodes.support.types import SamplerValue

__all__ = ["Ears", "surround"]

Hearing = Callable[[float, float, Any], None]
Callbacks = Mapping[Any, Mapping[Any, list[Any]]]
Steps = Generator[Any, Any, Sampled]


class Ears:
    """Who hears of each step of a run inside a pack's code, and may end it by raising.

    Nodes know no execution: whoever puts the engine together says who that is.
    """

    hears: Hearing = staticmethod(lambda step, steps, estimate: None)


def surround(options: dict[str, Any], callbacks: Callbacks, run: LatentRun) -> Outcome:
    """The run with its levels known to what surrounds the network, and by way of what surrounds it all."""
    if len(run.sigmas) < 2:
        return (yield from run.outcome())
    own = copied(options)  # a wrapper may add others, for this run alone
    before = RUN.get()
    sigmas = torch.tensor([float(sigma) for sigma in run.sigmas])
    guider = _guider(run, own)
    now = RunNow(sigmas, {**(before.options if before is not None else {}), id(options): own}, guider)
    network = own.get("transformer_options", {})
    places = WrappersMP.OUTER_SAMPLE, WrappersMP.PREPARE_SAMPLING
    _tell(callbacks, CallbacksMP.ON_PRE_RUN, guider.model_patcher)
    try:
        if any(all_wrappers(place, network) for place in places):
            return _at_once(run, now, network)
        return (yield from _step_by_step(run.outcome(), now))
    finally:
        _tell(callbacks, CallbacksMP.ON_CLEANUP, guider.model_patcher)


def _tell(callbacks: Callbacks, moment: str, patcher: Any) -> None:
    for told in callbacks.get(moment, {}).values():
        for callback in told:
            callback(patcher)


def _guider(run: LatentRun, options: dict[str, Any]) -> Any:
    """What a pack's function finds for the guider of a run: its own, or one with the sides and scale of ours."""
    from sigmagraph.nodes.support.packs.guiders import CFGGuider, PackDenoiser  # which ask for runs themselves
    from sigmagraph.nodes.support.packs.models import ModelPatcher

    if isinstance(run.denoiser, PackDenoiser):
        return run.denoiser.guider
    guider = CFGGuider(ModelPatcher(run.model))
    guider.model_options = guider.model_patcher.model_options = options
    if isinstance(run.denoiser, Cfg):
        guider.cfg = run.denoiser.scale
        sides = {"positive": run.denoiser.positive, "negative": run.denoiser.negative}
        guider.original_conds = {name: GuiderEntries(side) for name, side in sides.items()}
        guider.conds = dict(guider.original_conds)
    return guider


def _step_by_step(steps: Steps, now: RunNow) -> Outcome:
    """Its progress as it comes; what it asks is answered here, while the run is known."""
    answer: Any = None
    try:
        while True:
            token = RUN.set(now)
            try:
                said = steps.send(answer)
            finally:
                RUN.reset(token)
            answer = (yield said) if isinstance(said, Progress) else None
    except StopIteration as end:
        done: Sampled = end.value
        return done
    finally:
        steps.close()


def _to_its_end(steps: Steps, now: RunNow) -> Sampled:
    """All of it, inside a function of a pack."""
    token = RUN.set(now)
    try:
        while True:
            said = next(steps)
            if isinstance(said, Progress):
                Ears.hears(said.value, said.maximum, said.preview)
    except StopIteration as end:
        done: Sampled = end.value
        return done
    finally:
        steps.close()
        RUN.reset(token)


def _at_once(run: LatentRun, now: RunNow, network: dict[str, Any]) -> Sampled:
    """The run by way of functions round it. What they hand on as it came is not made anew: the numbers are the same."""
    start = in_model_space(run.model, run.latent.samples)
    noise = run.noise.initial(start, run.latent.batch_index)
    sampler, seed = sampler_out(SamplerValue(run.solver, dict(run.options))), PackNoise(run.noise).seed
    came = (noise, run.latent.samples, sampler, now.sigmas, run.latent.noise_mask)
    ends: list[Sampled] = []

    def original(
        noise: Tensor,
        latent_image: Tensor,
        sampler: Any,
        sigmas: Tensor,
        denoise_mask: Tensor | None = None,
        callback: Any = None,
        disable_pbar: bool = False,
        seed: int | None = None,
        **_: Any,
    ) -> Tensor:
        given = (noise, latent_image, sampler, sigmas, denoise_mask)
        changed = _changed(run, came, given, int(seed or 0))
        if ends:
            changed = replace(changed, kept=None)  # what was recorded is of the first
        if callback is not None:
            changed = replace(changed, watch=_told_too(run.watch, callback))
        ends.append(_to_its_end(changed.outcome(), replace(now, sigmas=sigmas)))
        return ends[-1].latent.samples

    def prepared(model: Any, _shape: Any, conds: Any, *_: Any, **__: Any) -> tuple[Any, Any, list[Any]]:
        return model.model, conds, []

    conds, shape = now.guider.conds, tuple(noise.shape)
    patcher = now.guider.model_patcher
    surrounded(WrappersMP.PREPARE_SAMPLING, network, prepared)(patcher, shape, conds, now.guider.model_options)
    executor = surrounded(WrappersMP.OUTER_SAMPLE, network, original, now.guider)
    made = executor(*came, _nobody, True, seed, latent_shapes=[shape])
    if not isinstance(made, Tensor) or made.shape != noise.shape:
        found = list(made.shape) if isinstance(made, Tensor) else type(made).__qualname__
        raise BadValue("the result of a pack's outer_sample wrapper", found, f"a tensor {list(noise.shape)}")
    if ends and made is ends[-1].latent.samples:
        return ends[-1]
    latent = run.latent.with_samples(made)
    return replace_latent(ends[-1], latent) if ends else Sampled(latent, latent)


def replace_latent(done: Sampled, latent: Any) -> Sampled:
    """What a run left, with another last state."""
    return done._replace(latent=latent)


def _nobody(step: int, x0: Tensor, x: Tensor, total_steps: int) -> None:
    """Steps are told without it; functions of packs call what they were given for a callback."""


def _told_too(watch: Callable[[Tick], None], callback: Callable[[int, Tensor, Tensor, int], None]) -> Any:
    def told(tick: Tick) -> None:
        watch(tick)
        callback(max(tick.step - 1, 0), tick.denoised, tick.x, tick.steps)

    return told


def _changed(run: LatentRun, came: tuple[Any, ...], given: tuple[Any, ...], seed: int) -> LatentRun:
    """The run with what a function handed on in another form."""
    noise, samples, sampler, sigmas, mask = (None if a is b else b for a, b in zip(came, given, strict=True))
    is_same = all(one is None for one in (noise, samples, sampler, sigmas, mask)) and given[4] is came[4]
    if is_same:
        return run
    latent = run.latent
    if samples is not None:
        latent = latent.with_samples(samples)
    if given[4] is not came[4]:
        latent = replace(latent, noise_mask=mask[:, 0] if mask is not None and mask.ndim == 4 else mask)
    made = replace(run, latent=latent, kept=None)
    if noise is not None:
        made = replace(made, noise=GivenNoise(noise, seed))
    if sampler is not None:
        ours = sampler_of(sampler)
        made = replace(made, solver=ours.solver, options=ours.options)
    if sigmas is not None:
        made = replace(made, sigmas=[float(sigma) for sigma in sigmas.tolist()])
    return made
