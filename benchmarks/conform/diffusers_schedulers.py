"""diffusers' own schedulers, wrapped, for `sigmagraph conform benchmarks/conform/diffusers_schedulers.py`.

A scheduler makes its own levels; here it is given those of the law: `sigmas`, and as `timesteps` their places. It gets
the noise of the run by replacing the one function it draws with. Those that work on the variance-preserving form of the
state are handed that form. What a scheduler refuses or rounds (float32 inside) is its own.
"""

from collections.abc import Callable
from typing import Any

import diffusers
import torch
from torch import Tensor

VP = {"prediction_type": "epsilon", "thresholding": False}
# name: class, settings, order by its own documentation, whether it works on the VP form
WRAPPED: dict[str, tuple[str, dict[str, Any], int, bool]] = {
    "euler": ("EulerDiscreteScheduler", {}, 1, False),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", {}, 1, False),
    "lms": ("LMSDiscreteScheduler", {}, 4, False),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {**VP, "solver_order": 2}, 2, True),
    "dpmpp_3m": ("DPMSolverMultistepScheduler", {**VP, "solver_order": 3}, 3, True),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {**VP, "algorithm_type": "sde-dpmsolver++"}, 2, True),
    "deis": ("DEISMultistepScheduler", {**VP, "solver_order": 3}, 3, True),
    "uni_pc": ("UniPCMultistepScheduler", {**VP, "solver_order": 3}, 3, True),
    "sa_solver": ("SASolverScheduler", {**VP, "tau_func": lambda _: 0.0}, 3, True),
    "sa_solver_sde": ("SASolverScheduler", {**VP, "tau_func": lambda _: 1.0}, 3, True),
}


def wrapped(name: str) -> Callable[..., Any]:
    """One scheduler as a function of k-diffusion's form."""
    kind, settings, order, works_on_vp = WRAPPED[name]
    draws = name in ("euler_ancestral", "dpmpp_2m_sde", "sa_solver_sde")

    def run(model: Any, x: Tensor, sigmas: Tensor, noise_sampler: Any) -> Tensor:
        scheduler = getattr(diffusers, kind)(**settings)
        scheduler.set_timesteps(len(sigmas) - 1)
        scheduler.sigmas, scheduler.timesteps = sigmas.cpu(), torch.arange(len(sigmas) - 1).float()
        scheduler.set_begin_index(0)
        module = __import__(type(scheduler).__module__, fromlist=["randn_tensor"])
        for place in range(len(sigmas) - 1):
            sigma = sigmas[place]
            output = (x - model(x, sigma.expand(x.shape[0]))) / sigma
            state = x / (1 + sigma**2).sqrt() if works_on_vp else x
            scheduler.is_scale_input_called = True
            if noise_sampler is not None:
                drawn = noise_sampler(sigma, sigmas[place + 1]) if sigmas[place + 1] > 0 else torch.zeros_like(x)
                module.randn_tensor = lambda *_, drawn=drawn, **__: drawn
            state = scheduler.step(output, scheduler.timesteps[place], state, return_dict=False)[0]
            x = state * (1 + sigmas[place + 1] ** 2).sqrt() if works_on_vp else state
        return x

    def quiet(
        model: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None, callback: Any = None, disable: Any = None
    ) -> Tensor:
        return run(model, x, sigmas, None)

    def loud(
        model: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None, callback: Any = None, disable: Any = None,
        noise_sampler: Any = None,
    ) -> Tensor:  # fmt: skip
        return run(model, x, sigmas, noise_sampler)

    made: Any = loud if draws else quiet
    made.order = order
    return made


for _name in WRAPPED:
    globals()[f"sample_{_name}"] = wrapped(_name)
