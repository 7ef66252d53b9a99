"""UniPC (Zhao 2023, arXiv:2302.04867): one unified predictor-corrector of any order, here up to 3.

It works on the variance-preserving form of the state: a = 1 / sqrt(1 + sigma^2), b = sigma a, lam = -ln(sigma).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, TypeAlias

from torch import Tensor

from sigmagraph.engine.sampling.options import Interval
from sigmagraph.engine.sampling.solver import Context, Evaluate, Step, Steps, alias, solver
from sigmagraph.engine.sampling.solvers.dpm import DROPPED
from sigmagraph.engine.sampling.solvers.parts.near_levels import apart
from sigmagraph.engine.sampling.solvers.parts.unipc_update import HIGHEST_ORDER, Update, Variant, ve, vp
from sigmagraph.engine.sampling.solvers.recorded import unipc as recorded

# how much longer than the one before, in ln(sigma), a step of order 2 and of order 3 may be
GROWTH = {"growth_2": 1.3, "growth_3": 1.1, "short": 0.2, "nearest": 20.0}
UNSPACED = GROWTH | {"nearest": math.inf}
DOUBLED = {"growth_2": 2.0, "growth_3": 2.0, "short": 0.0, "nearest": math.inf}
Growth: TypeAlias = Annotated[float, Interval(1.0, math.inf)]
Length: TypeAlias = Annotated[float, Interval(0.0, math.inf)]


@solver(
    "uni_pc",
    order=3,
    inverts=True,
    source="Zhao 2023, arXiv:2302.04867, Alg. 1, B1(h) = h",
    revision=4,
    remark=DROPPED + "; revision 1 stops at sigma 0.001 (and does nothing in a single step), revision 2 reaches 0, "
    "and is of first order in a step more than twice the one before; revision 3 is of third order in steps of at most "
    "1.1 times the one before, of second order in those of at most 1.3 times; revision 4 looks back over no step "
    "shorter than a twentieth of its own",
    fixed=GROWTH,
    told=apart,
    older={
        3: {"fixed": UNSPACED, "told": None},
        2: {"fixed": DOUBLED, "told": None},
        1: {"function": recorded.uni_pc, "told": None, "fixed": {}, "drops_penultimate": True, "order": 2},
    },
)
def uni_pc(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    variant: Variant = "bh1",
    growth_2: Growth = GROWTH["growth_2"],
    growth_3: Growth = GROWTH["growth_3"],
    short: Length = GROWTH["short"],
    nearest: Growth = GROWTH["nearest"],
) -> Steps:
    """Each step: predict from past estimates, evaluate, correct with the new estimate, which is kept.

    Also known as UniPC in its B1 form; `uni_pc_bh2` is the B2 form. UniPCMultistepScheduler has both.
    """
    levels, steps = list(sigmas), len(sigmas) - 1
    state = vp(x, levels[0])
    estimates: list[Tensor] = [(yield Evaluate(x, levels[0]))]
    for i in range(1, steps + 1):
        planned = order_of(i, levels)
        order = bounded_order(planned, i, levels, {2: growth_2, 3: growth_3}, short, nearest)
        update = Update(levels, i, order, variant, is_exact=order < planned)
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


def bounded_order(
    order: int, i: int, levels: Sequence[float], growth: Mapping[int, float], short: float, nearest: float = math.inf
) -> int:
    """The order step i may have: past estimates say little about the end of a step much longer than the last one.

    A step of order k is stable where it is at most `growth[k]` times the one before it in ln(sigma), and at most
    `nearest` times each step it looks back over: two estimates come from states that a correction set apart.
    """
    while order > 1 and levels[i] > 0:
        this, *past = (abs(math.log(levels[j] / levels[j - 1])) for j in range(i, i - order, -1))
        if this <= max(growth[order] * past[0] * (1 + 1e-9), short) and this <= nearest * min(past):
            break
        order -= 1
    return order


alias("uni_pc_bh2", "uni_pc", fixed={"variant": "bh2"}, source="Zhao 2023, arXiv:2302.04867, Alg. 1, B2(h) = e^h - 1")
