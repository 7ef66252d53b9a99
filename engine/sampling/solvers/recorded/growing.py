"""Growing consistency sampling as recorded: its noise goes on behind the initial one, for the batch as a whole."""

from collections.abc import Sequence

from torch import Tensor

from sigmagraph.engine.sampling.solver import Context, Steps
from sigmagraph.engine.sampling.solvers.parts.growing import Method, NoiseOfAnySize, Scale, ScaleSteps, growing


def lcm_upscale(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    scale: Scale = 1.0,
    scale_steps: ScaleSteps = None,
    method: Method = "bislerp",
) -> Steps:
    """The rule of today, with other noise."""
    return (yield from growing(x, sigmas, ctx, scale, scale_steps, method, NoiseOfAnySize(ctx.churn, apart=False)))
