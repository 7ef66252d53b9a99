"""UniPC as recorded: it stops at sigma 0.001, and does nothing in a single step."""

from collections.abc import Sequence

from torch import Tensor

from sigmagraph.engine.sampling.solver import Context, Evaluate, Step, Steps
from sigmagraph.engine.sampling.solvers.parts.unipc_update import HIGHEST_ORDER, Update, Variant, ve, vp

INSTEAD_OF_ZERO = 0.001


def uni_pc(x: Tensor, sigmas: Sequence[float], ctx: Context, *, variant: Variant = "bh1") -> Steps:
    """Each step: predict from past estimates, evaluate, correct with the new estimate, which is kept."""
    levels, steps = list(sigmas), len(sigmas) - 1
    stops_short = levels[-1] == 0
    if stops_short:
        levels[-1] = INSTEAD_OF_ZERO
    highest = min(HIGHEST_ORDER, steps - 1)
    state = vp(x, levels[0])
    estimates: list[Tensor] = [(yield Evaluate(x, levels[0]))]
    for i in range(1, steps + 1 if highest > 0 else 1):
        update = Update(levels, i, i if i < highest else min(highest, steps + 1 - i), variant)
        carried, pulls = update.base(state, estimates), update.differences(estimates)
        denoised, state = estimates[0], update.shifted(carried, pulls, update.predictor())
        if i < steps:
            fresh: Tensor = yield Evaluate(ve(state, levels[i]), levels[i])
            state = update.shifted(carried, [*pulls, fresh - estimates[0]], update.corrector())
            estimates = [fresh, *estimates][:HIGHEST_ORDER]
        yield Step(ve(state, levels[i]), denoised)
    x = ve(state, levels[-1])
    return x / ctx.process.alpha(INSTEAD_OF_ZERO) if stops_short else x
