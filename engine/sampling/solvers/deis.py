"""DEIS (Zhang & Chen 2022, arXiv:2204.13902): polynomial extrapolation of the slope, integrated against d sigma.

rhoab: the polynomial is in sigma itself, where the integrals are closed forms; tab: in the time of a VP process.
"""

from collections.abc import Sequence

from torch import Tensor

from sigmagraph.engine.sampling.solver import Context, Steps, solver
from sigmagraph.engine.sampling.solvers.parts.multistep import exact, multistep
from sigmagraph.engine.sampling.solvers.recorded import deis as recorded
from sigmagraph.engine.sampling.solvers.recorded.deis import MaxOrder, Mode


@solver(
    "deis",
    order=3,
    inverts=True,
    source="Zhang & Chen 2022, arXiv:2204.13902, tAB and rhoAB",
    revision=2,
    remark="revision 1 defaults to tab, a 10,000-point sum over the time of one fixed VP process; revision 2 to rhoab",
    older={1: {"function": recorded.deis}},
)
def deis(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, max_order: MaxOrder = 3, deis_mode: Mode = "default"
) -> Steps:
    """Multistep rule on the slope, with exact weights unless `tab` is asked for."""
    if deis_mode == "tab":
        return (yield from recorded.tab(x, sigmas, ctx, max_order))
    return (yield from multistep(x, sigmas, max_order, exact))
