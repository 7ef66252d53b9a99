"""DPM-Solver++: exponential integrators on the denoised estimate (Lu 2022, arXiv:2211.01095)."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from engine.sampling.solver import Context, Evaluate, Step, Steps, solver


@solver("dpmpp_2m", order=2, source="Lu 2022, arXiv:2211.01095, Alg. 2")
def dpmpp_2m(x: Tensor, sigmas: Sequence[float], ctx: Context) -> Steps:
    """DPM-Solver++(2M): exponential two-step method on denoised.

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
            target = denoised + (denoised - denoised_last) * (half_step / (lam - lam_last))
        x = target + (x - target) * (sigma_next / sigma)
        last = lam, denoised
        yield Step(x, denoised)
    return x
