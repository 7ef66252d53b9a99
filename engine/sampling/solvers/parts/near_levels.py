"""Levels so near each other that a slope over them is noise: one of them is left out."""

from collections.abc import Sequence

from sigmagraph.engine.sampling.solver import Context

NEAREST = 1e-6  # of a level: fresh noise of such a step moves the estimate a thousand times as far as the step is long


def apart(sigmas: Sequence[float], ctx: Context) -> tuple[Sequence[float], Context]:
    """The levels without those within a millionth of the one before them; the last one stays."""
    kept = [*sigmas[:1]]
    for sigma in sigmas[1:-1]:
        if abs(sigma - kept[-1]) > NEAREST * kept[-1]:
            kept.append(sigma)
    return [*kept, *sigmas[1:][-1:]], ctx
