"""Which noise levels a solver is going to ask about: its rule run once on a state of one number.

Rules do not look at what they compute, but for the adaptive ones, so a rehearsal asks about what the run will.
"""

from collections.abc import Mapping, Sequence

import torch

from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.sampling.noise import ComfyNoise
from sigmagraph.engine.sampling.parameterisation import Parameterisation
from sigmagraph.engine.sampling.sampling import checked_sigmas
from sigmagraph.engine.sampling.solver import Prediction, Solver
from sigmagraph.engine.sampling.solver_run import SolverRun, context_of

MOST_A_STEP = (
    32  # evaluations, the dearest implicit rule takes 29; one that chooses its own steps is rehearsed no further
)


def rehearsed(
    solver: Solver, sigmas: Sequence[float], model: Parameterisation, options: Mapping[str, object] | None = None
) -> list[float]:
    """The levels in the order of the evaluations; the schedule itself where a rehearsal fails."""
    state, found = torch.zeros(1, 1, 1, 1), list[float]()
    try:
        levels = checked_sigmas(sigmas, solver)
        context = context_of(solver, state, levels, model, ComfyNoise(0))
        run = SolverRun(solver, state, levels, context, options or {})
        while run.request is not None and len(found) < MOST_A_STEP * len(levels):
            found.append(run.request.sigma)
            run.answer(Prediction(state, state))
        run.close()
    except (EngineError, ArithmeticError, ValueError):
        return [*sigmas]
    return found
