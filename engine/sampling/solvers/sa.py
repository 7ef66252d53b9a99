"""SA-Solver, stochastic Adams (Xue 2023, arXiv:2309.05019): predictor and corrector, in half log-SNR.

tau says how stochastic a step is: 0 outside an interval of levels, eta inside it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

from torch import Tensor

from sigmagraph.engine.sampling.options import Interval
from sigmagraph.engine.sampling.solver import SEQUENCE_CHANGED, Context, Evaluate, Noise, Step, Steps, alias, solver
from sigmagraph.engine.sampling.solvers.parts.ancestral import Strength
from sigmagraph.engine.sampling.solvers.parts.lagrange import exponential_integrals
from sigmagraph.engine.sampling.solvers.parts.log_snr import exp_decay
from sigmagraph.engine.sampling.solvers.parts.near_levels import FRESH, apart, steady
from sigmagraph.engine.sampling.solvers.recorded.told import late_start

Fraction = Annotated[float, Interval(0.0, 1.0)]


@dataclass
class _Memory:
    """The last estimates with their log-SNR, oldest first."""

    size: int
    limit: float
    lams: list[float] = field(default_factory=list)
    estimates: list[Tensor] = field(default_factory=list)

    def add(self, lam: float, denoised: Tensor) -> None:
        self.lams, self.estimates = [*self.lams, lam][-self.size :], [*self.estimates, denoised][-self.size :]

    def integral(
        self, count: int, start: float, end: float, tau: float, simple: Callable[..., list[float]] | None
    ) -> Tensor:
        """Integral of the polynomial through the last `count` estimates, against the exponential of this tau."""
        known = [(lam, one) for lam, one in zip(self.lams, self.estimates, strict=True) if math.isfinite(lam)]
        pairs = known[-count:] or [(0.0, self.estimates[-1])]
        lams, rate = [lam for lam, _ in pairs], 1 + tau**2
        weights = self._weights(lams, start, end, rate)
        if simple is not None and len(lams) == 2:
            weights = simple(lams, start, end, rate)
        total = pairs[0][1] * weights[0]
        for (_, estimate), weight in zip(pairs[1:], weights[1:], strict=True):
            total = total + estimate * weight
        return total

    def _weights(self, lams: Sequence[float], start: float, end: float, rate: float) -> list[float]:
        if math.isinf(self.limit):
            return exponential_integrals(lams, start, end, rate)
        of = partial(exponential_integrals, start=start, end=end, rate=rate)
        return steady(of, lams[::-1], -math.expm1(-rate * (end - start)), self.limit)[::-1]


def _simple_corrector(lams: Sequence[float], start: float, end: float, rate: float) -> list[float]:
    newest = 0.5 * rate * (end - start)
    return [-math.expm1(-rate * (end - start)) - newest, newest]


def _simple_predictor(lams: Sequence[float], start: float, end: float, rate: float) -> list[float]:
    oldest = 0.5 * rate * (end - start) ** 2 / (lams[0] - start)
    return [oldest, -math.expm1(-rate * (end - start)) - oldest]


@solver(
    "sa_solver",
    order=3,
    noise=Noise.SEQUENCE,
    source="Xue 2023, arXiv:2309.05019, Alg. 1 (PEC)",
    revision=3,
    remark="revision 1 returns the state one step early when the schedule does not end in 0 and starts at percent 1e-4 "
    "where no signal is left; revision 2 takes levels that are equal to six digits for one; "
    "revision 3 leaves estimates out that lie too near each other for the step",
    fixed={"ends_early": False, "limit": FRESH},
    told=apart,
    older={
        2: {"fixed": {"ends_early": False, "limit": math.inf}},
        1: {"fixed": {"ends_early": True, "limit": math.inf}, "told": late_start, "order": 1},
        SEQUENCE_CHANGED: {"fixed": {"ends_early": False, "limit": math.inf}},
    },
)
def sa_solver(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    predictor_order: Annotated[int, Interval(1, 6)] = 3,
    corrector_order: Annotated[int, Interval(0, 6)] = 4,
    eta: Annotated[float, Interval(0.0, 10.0)] = 1.0,
    s_noise: Strength = 1.0,
    sde_start_percent: Fraction = 0.2,
    sde_end_percent: Fraction = 0.8,
    sde_start_sigma: Annotated[float | None, Interval(0.0, math.inf)] = None,
    sde_end_sigma: Annotated[float | None, Interval(0.0, math.inf)] = None,
    use_pece: bool = False,
    simple_order_2: bool = False,
    ends_early: bool = False,
    limit: Annotated[float, Interval(1.0, math.inf)] = FRESH,
) -> Steps:
    """Adams-Bashforth predictor and Adams-Moulton corrector of the reverse SDE; one evaluation a step, PECE two."""
    process, steps = ctx.process, len(sigmas) - 1
    lams = [process.log_snr(sigma) for sigma in sigmas]
    high = ctx.levels.percent_to_sigma(sde_start_percent) if sde_start_sigma is None else sde_start_sigma
    low = ctx.levels.percent_to_sigma(sde_end_percent) if sde_end_sigma is None else sde_end_sigma
    memory = _Memory(max(predictor_order, corrector_order), limit)
    predicted, tau, noise = x, 0.0, None
    for i, (sigma, sigma_next) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
        denoised: Tensor = yield Evaluate(predicted, sigma)
        memory.add(lams[i], denoised)
        p, k = orders(i, steps, sigmas, predictor_order, corrector_order, len(memory.lams), use_pece)
        if k == 0:
            x = predicted
        else:
            h = lams[i] - lams[i - 1]
            pull = memory.integral(k, lams[i - 1], lams[i], tau, _simple_corrector if simple_order_2 else None)
            x = x * (sigma / sigmas[i - 1] * exp_decay(tau**2, h)) + pull * process.alpha(sigma)
            x = x + noise if noise is not None else x
            if use_pece:
                denoised = yield Evaluate(x, sigma)
                memory.estimates[-1] = denoised
        if sigma_next == 0:
            x = predicted = denoised
        else:
            tau, h = eta if low <= sigma_next <= high else 0.0, lams[i + 1] - lams[i]
            pull = memory.integral(p, lams[i], lams[i + 1], tau, _simple_predictor if simple_order_2 else None)
            predicted = x * (sigma_next / sigma * exp_decay(tau**2, h)) + pull * process.alpha(sigma_next)
            noise = None
            if tau * s_noise > 0:
                noise = ctx.draw() * (sigma_next * math.sqrt(-math.expm1(-2 * tau**2 * h)) * s_noise)
                predicted = predicted + noise
        yield Step(predicted, denoised)
    return x if ends_early else predicted


def orders(
    i: int, steps: int, sigmas: Sequence[float], predictor: int, corrector: int, known: int, use_pece: bool
) -> tuple[int, int]:
    """The orders of the predictor and the corrector in step `i`: raised at the start, lowered before sigma 0."""
    p, k = min(predictor, known), min(corrector, known)
    if i == 0 or (sigmas[i + 1] == 0 and not use_pece):
        k = 0
    if sigmas[-1] == 0:
        p, k = min(p, steps - 1 - i), min(k, steps - i)
    return p, k


alias(
    "sa_solver_pece", "sa_solver", fixed={"use_pece": True}, evaluations=2, source="Xue 2023, arXiv:2309.05019 (PECE)"
)
