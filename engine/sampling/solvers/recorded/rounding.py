"""Levels within a step, with torch's float32 functions: a Brownian tree is asked with six decimals of them.

The last bit of a level may flip its sixth decimal, and another time of the tree is other noise.
"""

import torch
from torch import Tensor

from sigmagraph.engine.sampling.process import Process
from sigmagraph.engine.sampling.solver import Context
from sigmagraph.engine.sampling.solvers.parts.log_snr import at_fraction


def rounded_middle(sigma: float, sigma_next: float, r: float, ctx: Context) -> float:
    """The level at the fraction `r` of the step in log-SNR, as tensors of the state's precision give it."""
    if ctx.dtype == torch.float64:
        return at_fraction(sigma, sigma_next, r, ctx)
    start, end = _log_snr(torch.tensor([sigma, sigma_next], dtype=torch.float32), ctx.process)
    return float(_sigma(start + r * (end - start), ctx.process))


def _scales_signal(process: Process) -> bool:
    return process.alpha(0.5) != 1.0


def _log_snr(sigmas: Tensor, process: Process) -> Tensor:
    return -sigmas.logit() if _scales_signal(process) else -sigmas.log()


def _sigma(log_snr: Tensor, process: Process) -> Tensor:
    return (-log_snr).sigmoid() if _scales_signal(process) else (-log_snr).exp()
