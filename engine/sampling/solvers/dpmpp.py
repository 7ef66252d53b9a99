"""DPM-Solver++: exponential integrators on the denoised estimate (Lu 2022, arXiv:2211.01095)."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, TypeAlias

from torch import Tensor

from sigmagraph.engine.sampling.options import Interval
from sigmagraph.engine.sampling.solver import Context, Evaluate, Noise, Step, Steps, solver
from sigmagraph.engine.sampling.solvers.parts.ancestral import Strength, add_noise, ancestral, denoise_and_renoise
from sigmagraph.engine.sampling.solvers.recorded import ancestral as recorded

SOURCE = "Lu 2022, arXiv:2211.01095"
# how far a line through two estimates is followed, in their distances: in half a step, a doubled step at most
FURTHEST = 1.0
Furthest: TypeAlias = Annotated[float, Interval(0.0, math.inf)]
BOUNDED, UNBOUNDED = {"furthest": FURTHEST}, {"furthest": math.inf}


@solver(
    "dpmpp_2m",
    order=2,
    inverts=True,
    source=SOURCE + ", Alg. 2",
    revision=2,
    remark="revision 2 bounds the extrapolation where a step is more than twice the one before",
    fixed=BOUNDED,
    older={1: {"fixed": UNBOUNDED}},
)
def dpmpp_2m(x: Tensor, sigmas: Sequence[float], ctx: Context, *, furthest: Furthest = FURTHEST) -> Steps:
    """DPM-Solver++(2M): exponential two-step method on denoised.

    Also known as "DPM++ 2M", and as DPMSolverMultistepScheduler of order 2. Karras is a schedule beside it.

    Through the last two estimates runs a line in lam = -log(sigma); it is read at the middle of the step.
    The first step and the step onto sigma 0 are first order.
    """
    last: tuple[float, Tensor] | None = None
    for sigma, sigma_next in pairwise(sigmas):
        denoised: Tensor = yield Evaluate(x, sigma)
        lam, target = -math.log(sigma), denoised
        if last is not None and sigma_next > 0:
            lam_last, denoised_last = last
            half_step = (-math.log(sigma_next) - lam) / 2
            target = denoised.add(denoised - denoised_last, alpha=min(half_step / (lam - lam_last), furthest))
        x = target.lerp(x, sigma_next / sigma)
        last = lam, denoised
        yield Step(x, denoised)
    return x


@solver(
    "dpmpp_2s_ancestral",
    order=2,
    evaluations=2,
    noise=Noise.SEQUENCE,
    source=SOURCE + ", 2S with ancestral noise",
    revision=2,
    older={1: {"function": recorded.dpmpp_2s_ancestral}},
)
def dpmpp_2s_ancestral(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, eta: Strength = 1.0, s_noise: Strength = 1.0
) -> Steps:
    """DPM-Solver++(2S) down to `sigma_down`, the middle taken in log-SNR; then fresh noise.

    Also known as "DPM++ 2S a".
    """
    for sigma, sigma_next in pairwise(sigmas):
        denoised: Tensor = yield Evaluate(x, sigma)
        step = ancestral(sigma, sigma_next, eta, ctx)
        down = step.sigma_down
        if down == 0:
            x = denoise_and_renoise(denoised, step, sigma_next, s_noise, ctx)
        else:
            middle = _middle(sigma, down, ctx)
            state = denoised.lerp(x, middle / sigma)
            halfway: Tensor = yield Evaluate(state, middle)
            x = halfway.lerp(x, down / sigma)
            x = add_noise(x, step, s_noise, ctx)
        yield Step(x, denoised)
    return x


def _middle(sigma: float, down: float, ctx: Context) -> float:
    """The level half way in log-SNR; from no signal at all (log-SNR minus infinity) there is no half way.

    There it is the one-point Gauss-Laguerre node of the integral over all of the log-SNR below `down`.
    """
    start, end = ctx.process.log_snr(sigma), ctx.process.log_snr(down)
    if math.isinf(start):
        return ctx.process.sigma(end - 1.0)
    return ctx.process.sigma((start + end) / 2)
