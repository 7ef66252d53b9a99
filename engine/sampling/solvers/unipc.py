"""UniPC (Zhao 2023, arXiv:2302.04867): one unified predictor-corrector of any order, here up to 3.

It works on the variance-preserving form of the state: a = 1 / sqrt(1 + sigma^2), b = sigma a, lam = -ln(sigma).
"""

from collections.abc import Sequence

from torch import Tensor

from sigmagraph.engine.sampling.solver import Context, Evaluate, Step, Steps, alias, solver
from sigmagraph.engine.sampling.solvers.dpm import DROPPED
from sigmagraph.engine.sampling.solvers.dpmpp import FURTHEST
from sigmagraph.engine.sampling.solvers.recorded import unipc as recorded
from sigmagraph.engine.sampling.solvers.unipc_update import HIGHEST_ORDER, Update, Variant, ve, vp


@solver(
    "uni_pc",
    order=3,
    inverts=True,
    source="Zhao 2023, arXiv:2302.04867, Alg. 1, B1(h) = h",
    revision=2,
    remark=DROPPED + "; revision 1 stops at sigma 0.001 (and does nothing in a single step), revision 2 reaches 0, "
    "and is of first order in a step more than twice the one before",
    older={1: {"function": recorded.uni_pc, "drops_penultimate": True, "order": 2}},
)
def uni_pc(x: Tensor, sigmas: Sequence[float], ctx: Context, *, variant: Variant = "bh1") -> Steps:
    """Each step: predict from past estimates, evaluate, correct with the new estimate, which is kept."""
    levels, steps = list(sigmas), len(sigmas) - 1
    state = vp(x, levels[0])
    estimates: list[Tensor] = [(yield Evaluate(x, levels[0]))]
    for i in range(1, steps + 1):
        update = Update(levels, i, order_of(i, levels), variant)
        if update.is_far(FURTHEST):
            update = Update(levels, i, 1, variant, is_exact=True)
        carried, pulls = update.base(state, estimates), update.differences(estimates)
        denoised, state = estimates[0], update.shifted(carried, pulls, update.predictor())
        if i < steps:
            fresh: Tensor = yield Evaluate(ve(state, levels[i]), levels[i])
            state = update.shifted(carried, [*pulls, fresh - estimates[0]], update.corrector())
            estimates = [fresh, *estimates][:HIGHEST_ORDER]
        yield Step(ve(state, levels[i]), denoised)
    return ve(state, levels[-1])


def order_of(i: int, levels: Sequence[float]) -> int:
    """Raised at the start; lowered on the way into sigma 0 only."""
    steps = len(levels) - 1
    highest = min(HIGHEST_ORDER, max(steps - 1, 1))
    if i < highest:
        return i
    return highest if levels[-1] > 0 else min(highest, steps + 1 - i)


alias("uni_pc_bh2", "uni_pc", fixed={"variant": "bh2"}, source="Zhao 2023, arXiv:2302.04867, Alg. 1, B2(h) = e^h - 1")
