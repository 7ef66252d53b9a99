"""What ComfyUI's schedules compute where ours differ: revision 1, by which existing graphs were made."""

from typing import Annotated, TypeAlias

import torch

from sigmagraph.engine.sampling.levels import Levels
from sigmagraph.engine.sampling.options import Interval
from sigmagraph.engine.sampling.schedule import with_zero

NotNegative: TypeAlias = Annotated[float, Interval(0.0, 100.0)]
Number: TypeAlias = Annotated[float, Interval(-1000.0, 1000.0)]
NEARLY_ZERO = 1e-5


def normal_shifted_twice(levels: Levels, steps: int) -> list[float]:
    """`normal` as existing graphs have it: on flow the shift is applied to levels that are shifted already."""
    first, last = levels.timestep(levels.sigma_max), levels.timestep(levels.sigma_min)
    scale = levels.timestep_scale
    reaches_zero = float(levels.sigmas_at(torch.tensor(last) / scale)) < NEARLY_ZERO
    sigmas = levels.sigmas_at(torch.linspace(first, last, steps + reaches_zero) / scale)
    return [*sigmas.tolist()[:-1], 0.0] if reaches_zero else with_zero(sigmas)


def ddim_from_entry_one(levels: Levels, steps: int) -> list[float]:
    """Entries 1, 1 + r, 1 + 2r ... of the table, r = floor(M / steps), descending; then 0."""
    table = levels.table.tolist()
    appends = table[1] >= NEARLY_ZERO
    picked = table[1 :: max(len(table) // (steps + (not appends)), 1)][::-1]
    return with_zero(picked) if appends else [*picked[:-1], 0.0]


def turbo_timesteps(levels: Levels, steps: int, denoise: float = 1.0) -> list[float]:
    """The levels of timesteps 999, 899 ... 99 of a thousand, from entry 10 - floor(10 denoise) on; then 0.

    On a flow they lie a thousandth below the table's entries: its timestep 999 is not the highest level.
    """
    first = 10 - int(10 * denoise)
    timesteps = torch.arange(999, 0, -100, dtype=torch.float32)[first : first + steps]
    return with_zero(levels.sigmas_at(timesteps / levels.timestep_scale))


def laplace_without_zero(levels: Levels, steps: int, *, mu: Number = 0.0, beta: NotNegative = 0.5) -> list[float]:
    """Even quantiles of a Laplace density over ln(sigma), within the trained range; the last one stays above 0."""
    x = torch.linspace(0, 1, steps)
    lam = mu - beta * (0.5 - x).sign() * (1 - 2 * (0.5 - x).abs() + 1e-5).log()
    return lam.exp().clamp(levels.sigma_min, levels.sigma_max).tolist()
