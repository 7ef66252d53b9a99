"""A model known in closed form, and the recorded runs on it: the posterior mean of a Gaussian mixture per position.

At each position the C-vector of the clean latent is drawn from K isotropic Gaussians; x = a x0 + sigma noise, with
a = 1 - sigma for flow and 1 otherwise. The arrays in tests/data/sampling say how they were made (README.md there).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from sigmagraph.engine.sampling import Cfg, ComfyNoise, Parameterisation, Prediction, Sampling, sd3, sdxl
from sigmagraph.engine.sampling.noise import NoiseSpec, Streams
from sigmagraph.engine.sampling.solver import Solver

DATA = Path(__file__).parents[1] / "data" / "sampling"
SEED = 1234567
SHAPES = {"flow": (2, 16, 6, 4), "eps": (2, 4, 12, 8)}
TWINS = {
    "ddim": "euler",
    "dpmpp_sde_gpu": "dpmpp_sde",
    "dpmpp_2m_sde_gpu": "dpmpp_2m_sde",
    "dpmpp_2m_sde_heun_gpu": "dpmpp_2m_sde_heun",
    "dpmpp_3m_sde_gpu": "dpmpp_3m_sde",
}


@cache
def arrays(name: str) -> dict[str, Tensor]:
    return load_file(DATA / f"{name}.safetensors")


@cache
def facts(name: str) -> Any:
    return json.loads((DATA / f"{name}.json").read_text())


def posterior(x: Tensor, sigma: float, family: str, side: str) -> Tensor:
    """E[x0 | x], float64."""
    mixture = arrays("mixtures")
    means, stds, weights = (mixture[f"{family}/{side}/{part}"].double() for part in ("means", "stds", "weights"))
    a = 1.0 - sigma if family == "flow" else 1.0
    variances = a**2 * stds**2 + sigma**2
    off = x.double()[:, None] - a * means
    log_weights = weights.log() - x.shape[1] / 2 * variances.log()
    logits = log_weights[:, None, None] - (off**2).sum(2) / (2 * variances)[:, None, None]
    parts = means + (a * stds**2 / variances)[:, None, None, None] * off
    return (logits.softmax(1)[:, :, None] * parts).sum(1)


def predict(family: str) -> Callable[[Tensor, float, Sequence[str]], list[Tensor]]:
    return lambda x, sigma, sides: [posterior(x, sigma, family, side).to(x.dtype) for side in sides]


class WideComfyNoise(ComfyNoise):
    """The float32 numbers of `ComfyNoise` as float64: the noise of the float64 recordings."""

    def initial(self, like: Tensor, batch_index: Sequence[int] | None = None) -> Tensor:
        return super().initial(like.float(), batch_index).double()

    def mask_noise(self, like: Tensor) -> Tensor:
        return super().mask_noise(like.float()).double()

    def streams(self, like: Tensor, spec: NoiseSpec) -> Streams:
        narrow = super().streams(like.float(), spec)
        return Streams(
            lambda: narrow.draw().double(),
            lambda: narrow.churn().double(),
            lambda sigma, sigma_next: narrow.brownian(sigma, sigma_next).double(),
        )


class Counting:
    """A denoiser that counts its calls and notes their levels."""

    def __init__(self, denoiser: Any) -> None:
        self.denoiser, self.sigmas = denoiser, list[float]()

    def __call__(self, x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        self.sigmas.append(sigma)
        result: Prediction = self.denoiser(x, sigma, needs_uncond)
        return result


def run(
    solver: Solver,
    sigmas: Sequence[float],
    *,
    family: str = "flow",
    guidance_scale: float = 4.5,
    dtype: torch.dtype = torch.float32,
    latent: Tensor | None = None,
    parameterisation: Parameterisation | None = None,
    mixture: str | None = None,
    options: Mapping[str, object] | None = None,
    noise: Any = None,
    denoiser: Any = None,
    **rest: Any,
) -> tuple[Tensor, list[float]]:
    """One run on the mixture as the recordings made it: the final latent and the levels that were evaluated."""
    counting = Counting(denoiser or Cfg(predict(mixture or family), "pos", "neg", guidance_scale))
    source = noise or (WideComfyNoise(SEED) if dtype == torch.float64 else ComfyNoise(SEED))
    start = torch.zeros(SHAPES[family]) if latent is None else latent
    result = Sampling(
        counting,
        start.to(dtype),
        sigmas,
        parameterisation or (sd3() if family == "flow" else sdxl()),
        solver,
        noise=source,
        options=options,
        **rest,
    ).run()
    return result, counting.sigmas


def relative_error(result: Tensor, recorded: Tensor, rms: float | None = None) -> float:
    scale = recorded.double().square().mean().sqrt().item() if rms is None else rms
    return ((result.double() - recorded.double()).abs().max() / scale).item()


def tolerance(family: str, name: str, dtype: torch.dtype) -> float:
    """1e-9 for float64 (1e-6 where the recordings themselves summed in float32); 3 floors for float32."""
    if dtype == torch.float64:
        return 1e-6 if name == "er_sde" else 1e-9
    return float(3 * max(facts("floors")[family][name], 1e-5))
