"""Noise scalers of ER-SDE (Cui 2023, arXiv:2309.06169): how strongly noise of a level is replaced by fresh noise."""

import math
from collections.abc import Callable
from typing import Annotated, TypeAlias

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling.options import Interval
from sigmagraph.engine.sampling.solver import Context

Scaler: TypeAlias = Callable[[float], float]
Stages: TypeAlias = Annotated[int, Interval(1, 3)]
Power: TypeAlias = Annotated[float | None, Interval(0.0, 101.0)]
LARGEST = 600.0  # of a logarithm, so that a level's power and its inverse are numbers


def noise_scaler(power: float | None, eta: float = 1.0) -> Scaler:
    """The paper's ER-SDE 5 or a plain power (1 is the ODE), f; of strength `eta`, lam^(1 - eta) f^eta.

    That leads from the ODE (0) to f (1) as eta scales the SDE's noise, for every f (ComfyUI, pull request 15428).
    """
    f = _whole(power)
    if eta == 1:
        return f
    return lambda lam: to_the(lam, 1 - eta) * to_the(f(lam), eta) if math.isfinite(lam) else math.inf


def _whole(power: float | None) -> Scaler:
    if power is None:
        return lambda lam: lam * (math.exp(lam**0.3) + 10.0) if lam < 1e8 else math.inf
    return lambda lam: to_the(lam, power) if math.isfinite(lam) else math.inf


def to_the(lam: float, power: float) -> float:
    """lam^power; refused where it is not a number above 0 any more."""
    if abs(power * math.log(lam)) > LARGEST:
        raise BadValue(
            "sampler er_sde.noise_scaler_power", power, f"a power whose values are numbers, also of {lam:.3g}"
        )
    return float(lam**power)


def relative(sigma: float, ctx: Context) -> float:
    """Lam = sigma / alpha, infinite where no signal is left."""
    alpha = ctx.process.alpha(sigma)
    return sigma / alpha if alpha > 0 else math.inf
