"""Samplers that node packs bring: functions of k-diffusion's form, which our samplers' driver runs."""

from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from typing import Any

from torch import Tensor

from sigmagraph.engine.sampling.k_diffusion import from_k_diffusion
from sigmagraph.engine.sampling.solver import Noise
from sigmagraph.nodes.support.types import SamplerValue

__all__ = ["KSAMPLER", "sampler_of"]


class KSAMPLER:
    """A pack's function `f(model, x, sigmas, extra_args, callback, disable, ...)` and the arguments it is to get."""

    def __init__(
        self,
        sampler_function: Callable[..., Tensor],
        extra_options: Mapping[str, Any] | None = None,
        inpaint_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.sampler_function = sampler_function
        self.extra_options = dict(extra_options or {})
        self.inpaint_options = dict(inpaint_options or {})


def sampler_of(sampler: Any) -> Any:
    """The value of ours that a pack's sampler means; its noise, where it takes a sampler of it, follows the seed."""
    if not isinstance(sampler, KSAMPLER):
        return sampler
    name = getattr(sampler.sampler_function, "__name__", type(sampler.sampler_function).__name__)
    function = partial(sampler.sampler_function, **sampler.extra_options)
    draws = "noise_sampler" in signature(function).parameters
    noise = Noise.SEQUENCE if draws else Noise.NONE
    return SamplerValue(from_k_diffusion(function, name, order=1, noise=noise, registry=None))
