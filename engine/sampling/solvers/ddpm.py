"""Rules that renoise the estimate itself: DDPM's posterior and consistency sampling."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import torch
from torch import Tensor

from sigmagraph.engine.sampling.options import Choices, Range
from sigmagraph.engine.sampling.resize import METHODS, resized
from sigmagraph.engine.sampling.solver import Context, Evaluate, Noise, Step, Steps, solver


@solver(
    "ddpm",
    order=1,
    noise=Noise.SEQUENCE,
    source="Ho 2020, arXiv:2006.11239, eq. 7",
    revision=2,
    remark="revision 1 treats every state as if alpha = 1, which leaves flow states too bright",
)
def ddpm(x: Tensor, sigmas: Sequence[float], ctx: Context) -> Steps:
    """The exact posterior of the next state given this one and the estimate."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised: Tensor = yield Evaluate(x, sigma)
        alpha, alpha_next = (1.0, 1.0) if ctx.as_recorded else (ctx.process.alpha(s) for s in (sigma, sigma_next))
        power, power_next = alpha**2 + sigma**2, alpha_next**2 + sigma_next**2
        kept, kept_next = alpha**2 / power, alpha_next**2 / power_next  # alpha-bar of Ho 2020
        ratio, gone, gone_next = kept / kept_next, sigma**2 / power, sigma_next**2 / power_next
        scale = math.sqrt(power_next)
        x = denoised * (scale * math.sqrt(kept_next) * (1 - ratio) / gone) + x * (
            scale / math.sqrt(power) * math.sqrt(ratio) * gone_next / gone
        )
        if sigma_next > 0:
            x = x + ctx.draw() * (scale * math.sqrt((1 - ratio) * gone_next / gone))
        yield Step(x, denoised)
    return x


@solver("lcm", order=0, noise=Noise.SEQUENCE, source="Luo 2023, arXiv:2310.04378, Alg. 3", revision=2)
def lcm(x: Tensor, sigmas: Sequence[float], ctx: Context) -> Steps:
    """The estimate, noised afresh to the next level (for consistency models; no approximation of the ODE)."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised: Tensor = yield Evaluate(x, sigma)
        x = denoised
        if sigma_next > 0:
            x = denoised * ctx.process.alpha(sigma_next) + ctx.draw() * sigma_next
        yield Step(x, denoised)
    return x


@dataclass
class NoiseOfAnySize:
    """Noise for states that grow: `draw` gives the first state's shape, and what one draw leaves over the next takes.

    `apart`: every image takes from its own draws, so that it does not depend on the batch.
    """

    draw: Callable[[], Tensor]
    apart: bool
    left: Tensor | None = None

    def like(self, x: Tensor) -> Tensor:
        """Unit noise shaped like `x`."""
        rows = x.shape[0] if self.apart else 1
        count = x.numel() // rows
        while self.left is None or self.left.shape[1] < count:
            drawn = self.draw().reshape(rows, -1)
            self.left = drawn if self.left is None else torch.cat([self.left, drawn], dim=1)
        taken, self.left = self.left[:, :count], self.left[:, count:]
        return taken.reshape(x.shape)


@solver(
    "lcm_upscale",
    order=0,
    noise=Noise.SEQUENCE,
    source="Luo 2023, arXiv:2310.04378, Alg. 3; the latent grows between steps",
    revision=2,
    remark="revision 1 adds noise as if alpha = 1, which leaves flow states too bright",
    older={1: {"restarts_seed": False}},  # its noise goes on behind the initial one
)
def lcm_upscale(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    scale: Annotated[float, Range(0.1, 20.0)] = 1.0,
    scale_steps: Annotated[int | None, Range(0, 1000)] = None,
    method: Annotated[str, Choices(METHODS)] = "bislerp",
) -> Steps:
    """The estimate, resized on its way to `scale` times the size in `scale_steps` steps (None: half), noised afresh."""
    height, width = x.shape[-2:]
    growing = max(len(sigmas) // 2, 1) if scale_steps is None else min(scale_steps, len(sigmas))
    noise = NoiseOfAnySize(ctx.churn if ctx.as_recorded else ctx.draw, apart=not ctx.as_recorded)
    for place, (sigma, sigma_next) in enumerate(pairwise(sigmas), 1):
        denoised: Tensor = yield Evaluate(x, sigma)
        x = denoised
        if place <= growing:
            grown = 1.0 + (scale - 1.0) * place / growing
            x = resized(x, max(round(width * grown), 1), max(round(height * grown), 1), method)
        if sigma_next > 0:
            alpha = 1.0 if ctx.as_recorded else ctx.process.alpha(sigma_next)
            x = x * alpha + noise.like(x) * sigma_next
        yield Step(x, denoised)
    return x
