"""What a solver costs a step beyond the model call: ours beside k-diffusion's functions and diffusers' schedulers.

    python -m benchmarks.solver_overhead [--rounds 15] [--steps 30] [--side 32]

The denoiser is one multiplication, the same for both sides. Runs alternate ours,
theirs, theirs, ours ... so that a busy machine slows both; figures are
medians of processor time, which a busy machine does not stretch. Exit code 1 where a ratio is above 1.

diffusers has dpmpp_2m_sde too, but with one independent draw a step: ours and k-diffusion's read a Brownian tree, some
twenty draws a step on a CPU, so that noise does not depend on the steps. It is compared with k-diffusion alone.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.sampling import ComfyNoise, Prediction, Sampling, edm, find_solver
from tests.oracles import k_diffusion_sampling

VE = edm(0.03, 14.6)
K_DIFFUSION = {
    "euler": "sample_euler",
    "euler_ancestral": "sample_euler_ancestral",
    "heun": "sample_heun",
    "dpm_2": "sample_dpm_2",
    "dpm_2_ancestral": "sample_dpm_2_ancestral",
    "lms": "sample_lms",
    "dpmpp_2s_ancestral": "sample_dpmpp_2s_ancestral",
    "dpmpp_sde": "sample_dpmpp_sde",
    "dpmpp_2m": "sample_dpmpp_2m",
    "dpmpp_2m_sde": "sample_dpmpp_2m_sde",
    "dpmpp_3m_sde": "sample_dpmpp_3m_sde",
    "dpm_fast": "sample_dpm_fast",
    "dpm_adaptive": "sample_dpm_adaptive",
}
ENDS_ALONE = {"dpm_fast", "dpm_adaptive"}  # those that are given the lowest and the highest level, and not the list
DIFFUSERS = {
    "euler": "EulerDiscreteScheduler",
    "euler_ancestral": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "dpm_2": "KDPM2DiscreteScheduler",
    "lms": "LMSDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "deis": "DEISMultistepScheduler",
    "uni_pc": "UniPCMultistepScheduler",
    "sa_solver": "SASolverScheduler",
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "ipndm": "IPNDMScheduler",
    "lcm": "LCMScheduler",
    "dpm_2_ancestral": "KDPM2AncestralDiscreteScheduler",
    "dpmpp_sde": "DPMSolverSDEScheduler",
}


def ours(name: str, sigmas: list[float], x: Tensor) -> None:
    """One run of ours, everything round it included: noise, start state, ticks, NaN check."""

    def denoiser(x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        return Prediction(x * 0.5)

    Sampling(denoiser, x, sigmas, VE, find_solver(name), noise=ComfyNoise(1)).run()


def theirs_k(name: str, sigmas: list[float], x: Tensor) -> None:
    """One run of k-diffusion's function."""
    function = getattr(k_diffusion_sampling(), K_DIFFUSION[name])
    with torch.inference_mode():
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        levels: list[Any] = [torch.tensor(sigmas)] if name not in ENDS_ALONE else [sigmas[-2], sigmas[0]]
        levels += [len(sigmas) - 1] if name == "dpm_fast" else []
        function(lambda x, sigma, **_: x * 0.5, noise * sigmas[0], *levels, disable=True)


def theirs_d(name: str, steps: int, x: Tensor) -> None:
    """One run of diffusers' scheduler, as its pipelines use it."""
    import diffusers  # seconds to import: only where it is measured

    scheduler = getattr(diffusers, DIFFUSERS[name])()
    scheduler.set_timesteps(steps)
    with torch.inference_mode():
        state = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)) * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            scaled = scheduler.scale_model_input(state, timestep)
            state = scheduler.step(scaled * 0.5, timestep, state).prev_sample


def per_step_us(runs: list[Callable[[], None]], rounds: int, steps: int) -> list[float]:
    """Median microseconds a step of each run, taken in turns, forwards and backwards."""
    times: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    for round_number in range(rounds):
        order = range(len(runs)) if round_number % 2 == 0 else range(len(runs) - 1, -1, -1)
        for place in order:
            start = time.process_time()
            runs[place]()
            times[place].append((time.process_time() - start) / steps * 1e6)
    return [statistics.median(one) for one in times]


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 where ours is slower."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--side", type=int, default=32, help="latent height and width")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    x = torch.zeros(1, 16, options.side, options.side)
    sigmas = [*torch.linspace(14.6, 0.03, options.steps).tolist(), 0.0]
    print(f"{'sampler':22s}{'peer':14s}{'ours us':>10s}{'theirs us':>11s}{'ratio':>8s}")
    slower = 0
    for peer, table in (("k-diffusion", K_DIFFUSION), ("diffusers", DIFFUSERS)):
        for name in table:
            other: Any = partial(theirs_k, name, sigmas, x) if table is K_DIFFUSION else None
            other = other or partial(theirs_d, name, options.steps, x)
            mine, their = per_step_us([partial(ours, name, sigmas, x), other], options.rounds, options.steps)
            slower += mine > their
            print(f"{name:22s}{peer:14s}{mine:10.1f}{their:11.1f}{mine / their:8.2f}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
