"""Samplers as node packs handle them: functions of k-diffusion's form, theirs for our driver, ours for their code."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.registry import Registry
from sigmagraph.engine.sampling import Parameterisation, edm
from sigmagraph.engine.sampling.k_diffusion import as_k_diffusion, from_k_diffusion
from sigmagraph.engine.sampling.noise import ComfyNoise
from sigmagraph.engine.sampling.process import RectifiedFlow
from sigmagraph.engine.sampling.solver import Context, Noise, Solver
from sigmagraph.nodes.support.packs.base_model import ModelSampling
from sigmagraph.nodes.support.types import SamplerValue

__all__ = [
    "KSAMPLER",
    "KSamplerX0Inpaint",
    "PackSampler",
    "Sampler",
    "called_by_packs",
    "called_with",
    "sampler_of",
    "sampler_out",
    "solver_of",
]


class Sampler:
    """What packs derive samplers of their own from."""

    def sample(self, *_: Any, **__: Any) -> Tensor:
        """Without a function of k-diffusion's form there is nothing to run."""
        raise NotImplementedError

    def max_denoise(self, model_wrap: Any, sigmas: Tensor) -> bool:
        """Whether a run over these levels begins with nothing but noise."""
        highest, first = float(model_wrap.inner_model.model_sampling.sigma_max), float(sigmas[0])
        return first > highest or math.isclose(first, highest, rel_tol=1e-5)


class KSAMPLER(Sampler):
    """A function `f(model, x, sigmas, extra_args, callback, disable, ...)` and the arguments it is to get."""

    def __init__(
        self,
        sampler_function: Callable[..., Tensor],
        extra_options: Mapping[str, Any] | None = None,
        inpaint_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.sampler_function = sampler_function
        self.extra_options = dict(extra_options or {})
        self.inpaint_options = dict(inpaint_options or {})

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: Mapping[str, Any],
        callback: Callable[[int, Tensor, Tensor, int], None] | None,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """From noise and a latent in the model's units to the latent at the last level, for packs that run it alone."""
        levels = model_wrap.inner_model.model_sampling
        model = KSamplerX0Inpaint(model_wrap, sigmas)
        model.noise, model.latent_image = noise, torch.zeros_like(noise) if latent_image is None else latent_image
        x = levels.noise_scaling(sigmas[0], noise, model.latent_image, self.max_denoise(model_wrap, sigmas))
        extra = {**extra_args, "denoise_mask": denoise_mask}
        made = called_with(self.sampler_function, model, x, sigmas, extra, callback, disable_pbar, self.extra_options)
        unscaled: Tensor = levels.inverse_noise_scaling(sigmas[-1], made)
        return unscaled


class KSamplerX0Inpaint:
    """A guider with what is kept put in: where `denoise_mask` is 0 its estimate is `latent_image` itself."""

    def __init__(self, model: Any, sigmas: Tensor) -> None:
        self.inner_model, self.sigmas = model, sigmas
        self.latent_image: Tensor | None = None
        self.noise: Tensor | None = None

    def __call__(
        self,
        x: Tensor,
        sigma: Tensor,
        denoise_mask: Tensor | None = None,
        model_options: Mapping[str, Any] | None = None,
        seed: int | None = None,
    ) -> Tensor:
        """The estimate of a state."""
        options = dict(model_options or {})
        if denoise_mask is None or self.latent_image is None:
            plain: Tensor = self.inner_model(x, sigma, model_options=options, seed=seed)
            return plain
        if (rule := options.get("denoise_mask_function")) is not None:
            about = {"model": self.inner_model, "sigmas": self.sigmas}
            denoise_mask = rule(sigma, denoise_mask, extra_options=about)
        levels = self.inner_model.inner_model.model_sampling
        kept = levels.noise_scaling(sigma, self.noise, self.latent_image)
        state = torch.lerp(kept, x, denoise_mask)
        made = self.inner_model(state, sigma, model_options=options, seed=seed)
        return torch.lerp(self.latent_image, made, denoise_mask)


def called_with(
    function: Callable[..., Tensor],
    model: Any,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Mapping[str, Any],
    callback: Callable[[int, Tensor, Tensor, int], None] | None,
    disable: bool,
    options: Mapping[str, Any],
) -> Tensor:
    """A function of k-diffusion's form, whose callback is told step, estimate, state and number of steps."""
    steps = len(sigmas) - 1

    def after(state: Mapping[str, Any]) -> None:
        if callback is not None:
            callback(state["i"], state["denoised"], state["x"], steps)

    return function(model, x, sigmas, extra_args=extra_args, callback=after, disable=disable, **options)


class PackSampler(KSAMPLER):
    """A sampler of ours on a pack's side; its noise follows the seed among the arguments that it is called with."""

    def __init__(self, value: SamplerValue) -> None:
        super().__init__(partial(called_by_packs, value.solver), value.options)
        self.value = value
        self._given = self.sampler_function, dict(self.extra_options)

    @property
    def is_untouched(self) -> bool:
        """Whether a pack left it as it came."""
        return (self.sampler_function, self.extra_options) == self._given


def called_by_packs(
    solver: Solver,
    model: Any,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Mapping[str, Any] | None = None,
    callback: Any = None,
    disable: bool | None = None,
    noise_sampler: Any = None,
    **options: Any,
) -> Tensor:
    """One of our solvers, for the family of the model it is called with."""
    seed = (extra_args or {}).get("seed")
    noise = ComfyNoise(int(seed)) if seed is not None else None
    run = as_k_diffusion(solver, _parameterisation(model), noise)
    return run(model, x, sigmas, extra_args, callback, disable, **options)


def _parameterisation(model: Any) -> Parameterisation:
    """Of the model that is wrapped, however deep; EDM's where it does not say, as in k-diffusion."""
    while model is not None:
        levels = getattr(model, "model_sampling", None)
        if isinstance(levels, ModelSampling):
            return levels.parameterisation
        model = getattr(model, "inner_model", None)
    return edm()


def sampler_out(sampler: Any) -> Any:
    """A sampler of ours as packs know it."""
    return PackSampler(sampler) if isinstance(sampler, SamplerValue) else sampler


def sampler_of(sampler: Any) -> Any:
    """The value of ours that a pack's sampler means; its noise, where it takes a sampler of it, follows the seed."""
    if isinstance(sampler, PackSampler) and sampler.is_untouched:
        return sampler.value
    if not isinstance(sampler, Sampler):
        return sampler
    if not isinstance(sampler, KSAMPLER) or type(sampler).sample not in (KSAMPLER.sample, PackSampler.sample):
        allowed = "a KSAMPLER of a function of k-diffusion's form: this engine drives the steps itself"
        raise BadValue("sampler", type(sampler).__qualname__, allowed)
    name = getattr(sampler.sampler_function, "__name__", type(sampler.sampler_function).__name__)
    function = partial(sampler.sampler_function, **sampler.extra_options)
    return SamplerValue(solver_of(function, name))


def solver_of(
    function: Callable[..., Tensor], name: str, registry: Registry[Solver] | None = None, **declared: Any
) -> Solver:
    """A pack's function as a solver that asks, registered where that is wanted."""
    draws = "noise_sampler" in signature(function).parameters
    noise = Noise.SEQUENCE if draws else Noise.NONE
    return from_k_diffusion(function, name, order=1, noise=noise, registry=registry, model=InRun, **declared)


class InRun:
    """What a pack's function is given for its model: it answers, and behind it are the levels where packs look."""

    def __init__(self, answer: Callable[..., Tensor], ctx: Context) -> None:
        is_flow = isinstance(ctx.process, RectifiedFlow)
        levels = ModelSampling(Parameterisation(ctx.levels, "flow" if is_flow else "eps"))
        self._answer = answer
        self.inner_model = SimpleNamespace(inner_model=SimpleNamespace(model_sampling=levels), model_sampling=levels)

    def __call__(self, x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
        """The estimate of a state."""
        return self._answer(x, sigma)
