"""Adams-Bashforth rules on the slope d = (x - denoised) / sigma: lms, iPNDM and its variable-step form.

All take the last slopes, weight them and step; they differ in the weights. The step onto sigma 0 is x = denoised.
"""

from collections.abc import Sequence
from typing import Annotated

from torch import Tensor

from sigmagraph.engine.sampling.options import Interval
from sigmagraph.engine.sampling.solver import Context, Steps, solver
from sigmagraph.engine.sampling.solvers.parts.multistep import exact, multistep
from sigmagraph.engine.sampling.solvers.recorded import adams as recorded

EXACT = "revision 2 integrates the polynomial through the last slopes exactly"


@solver("lms", order=4, inverts=True, source="Adams-Bashforth in sigma; k-diffusion (Crowson 2022)", revision=2)
def lms(x: Tensor, sigmas: Sequence[float], ctx: Context, *, order: Annotated[int, Interval(1, 100)] = 4) -> Steps:
    """Linear multistep in sigma with exact weights.

    Also known as K-LMS. Not PLMS, whose weights are those of equal steps: that is `ipndm`'s kind.
    """
    return (yield from multistep(x, sigmas, order, exact))


@solver(
    "ipndm",
    order=4,
    inverts=True,
    source="Liu 2022, arXiv:2202.09778; Zhang & Chen 2022, arXiv:2204.13902",
    revision=2,
    remark="revision 1 weights as if steps were equal; " + EXACT,
    older={1: {"function": recorded.ipndm, "order": 2}},
)
def ipndm(x: Tensor, sigmas: Sequence[float], ctx: Context, *, max_order: Annotated[int, Interval(1, 4)] = 4) -> Steps:
    """Improved pseudo numerical method: Adams-Bashforth, order raised step by step.

    A relative of PLMS (PNDM) that begins with lower orders in place of Runge-Kutta steps.
    """
    return (yield from multistep(x, sigmas, max_order, exact))


@solver(
    "ipndm_v",
    order=4,
    inverts=True,
    source="Zhang & Chen 2022, arXiv:2204.13902, variable steps",
    revision=2,
    remark="revision 1 has wrong weights for orders 3 and 4; " + EXACT,
    older={1: {"function": recorded.ipndm_v, "order": 1}},
)
def ipndm_v(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, max_order: Annotated[int, Interval(1, 4)] = 4
) -> Steps:
    """The iPNDM rule for unequal steps."""
    return (yield from multistep(x, sigmas, max_order, exact))
