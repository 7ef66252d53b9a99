"""What some first revisions are told of their run: another process, another first level."""

import math
from collections.abc import Sequence
from dataclasses import replace

from sigmagraph.engine.sampling.process import VarianceExploding
from sigmagraph.engine.sampling.solver import Context

START = 1e-4  # the percent at which a run starts that would begin with no signal at all


def alpha_1(sigmas: Sequence[float], ctx: Context) -> tuple[Sequence[float], Context]:
    """The signal is never scaled: noise is added to every state as if alpha = 1."""
    return sigmas, replace(ctx, process=VarianceExploding())


def late_start(sigmas: Sequence[float], ctx: Context) -> tuple[Sequence[float], Context]:
    """The first level is moved down a hair where its log-SNR is minus infinity."""
    if len(sigmas) > 1 and math.isinf(ctx.process.log_snr(sigmas[0])):
        return [ctx.rounded(ctx.levels.percent_to_sigma(START)), *sigmas[1:]], ctx
    return sigmas, ctx
