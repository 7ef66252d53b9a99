"""Rules that renoise the estimate itself: DDPM's posterior and consistency sampling."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, TypeAlias

from torch import Tensor

from sigmagraph.engine.sampling.noise import Seeding
from sigmagraph.engine.sampling.options import Interval
from sigmagraph.engine.sampling.solver import Context, Evaluate, Noise, Step, Steps, solver
from sigmagraph.engine.sampling.solvers.parts.growing import Method, NoiseOfAnySize, Scale, ScaleSteps, growing
from sigmagraph.engine.sampling.solvers.recorded import growing as recorded
from sigmagraph.engine.sampling.solvers.recorded.told import alpha_1

Multiplier: TypeAlias = Annotated[float, Interval(0.0, 64.0)]


@solver(
    "ddpm",
    order=1,
    noise=Noise.SEQUENCE,
    source="Ho 2020, arXiv:2006.11239, eq. 7",
    revision=2,
    remark="revision 1 treats every state as if alpha = 1, which leaves flow states too bright",
    older={1: {"told": alpha_1}},
)
def ddpm(x: Tensor, sigmas: Sequence[float], ctx: Context) -> Steps:
    """The exact posterior of the next state given this one and the estimate.

    Also known as ancestral sampling in the DDPM paper (Ho 2020).
    """
    for sigma, sigma_next in pairwise(sigmas):
        denoised: Tensor = yield Evaluate(x, sigma)
        alpha, alpha_next = (ctx.process.alpha(level) for level in (sigma, sigma_next))
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
def lcm(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    s_noise: Multiplier = 1.0,
    s_noise_end: Multiplier = 1.0,
    noise_clip_std: Annotated[float, Interval(0.0, 10.0)] = 0.0,
) -> Steps:
    """The estimate, noised afresh to the next level (for consistency models; no approximation of the ODE).

    Also known as multistep consistency sampling.

    The noise is multiplied by `s_noise` in the first step, `s_noise_end` in the last, and evenly between; it is cut at
    `noise_clip_std` standard deviations (0: nowhere).
    """
    last = max(len(sigmas) - 2, 1)
    for place, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised: Tensor = yield Evaluate(x, sigma)
        x = denoised
        if sigma_next > 0:
            noise = ctx.draw()
            if noise_clip_std > 0:
                noise = noise.clamp(-noise_clip_std, noise_clip_std)
            scale = s_noise + (s_noise_end - s_noise) * (place / last)
            x = denoised * ctx.process.alpha(sigma_next) + noise * (sigma_next * scale)
        yield Step(x, denoised)
    return x


@solver(
    "lcm_upscale",
    order=0,
    noise=Noise.SEQUENCE,
    source="Luo 2023, arXiv:2310.04378, Alg. 3; the latent grows between steps",
    revision=2,
    remark="revision 1 adds noise as if alpha = 1, which leaves flow states too bright",
    older={1: {"function": recorded.lcm_upscale, "told": alpha_1, "seeding": Seeding.DERIVED}},
)
def lcm_upscale(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    scale: Scale = 1.0,
    scale_steps: ScaleSteps = None,
    method: Method = "bislerp",
) -> Steps:
    """The estimate, resized on its way to `scale` times the size in `scale_steps` steps (None: half), noised afresh."""
    return (yield from growing(x, sigmas, ctx, scale, scale_steps, method, NoiseOfAnySize(ctx.draw, apart=True)))
