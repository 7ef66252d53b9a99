"""Stochastic flow samplers: every step is a normal distribution with a known density, or a step of Euler's on the ODE.

With e = (x - alpha denoised) / sigma, the noise as the model sees it, the SDE of strength s(sigma) that keeps the
process's marginals is dx = (v + s^2 / (2 sigma) e) dsigma + s dW down in sigma, v the ODE's slope. Over a step it
renews noise at the rate R = integral of s^2 / (2 sigma^2) dsigma: of e, the part exp(-R) is kept.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, NamedTuple, TypeAlias

from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling.options import Choices, Interval
from sigmagraph.engine.sampling.solver import Context, Evaluate, Noise, Step, Steps, alias, solver
from sigmagraph.engine.sampling.solvers.parts.lagrange import exponential_integrals
from sigmagraph.engine.sampling.solvers.parts.near_levels import CURVED
from sigmagraph.engine.sampling.transition import Transition

NoiseLevel: TypeAlias = Annotated[float, Interval(0.0, 100.0)]
Share: TypeAlias = Annotated[float, Interval(0.0, 1.0)]
FirstStep: TypeAlias = Annotated[int, Interval(0, 10_000)]
EndStep: TypeAlias = Annotated[int | None, Interval(1, 10_000)]
Sde: TypeAlias = Annotated[str, Choices(("flow_grpo", "memoryless", "constant", "linear"))]
Rule: TypeAlias = Callable[[Tensor, float, float, Tensor], Transition]
AS_ODE = {"noise_level": 0.0}
NO_SIGNAL = 1e-6  # of alpha: 1 - sigma of a first level that is 1 but for its last bits in single precision
FURTHEST = 2.0  # a polynomial through past estimates is followed at most as far as a doubled step


def in_window(name: str, steps: int, start: int, end: int | None) -> range:
    """The steps that draw noise: from `start` to before `end` (None: the last)."""
    stop = steps if end is None else end
    if not 0 <= start < stop <= steps:
        allowed = f"steps within the run, which has {steps}: sde_start_step from 0, sde_end_step above it"
        raise BadValue(f"sampler {name}: window of stochastic steps", f"{start} to {stop}", allowed)
    return range(start, stop)


def euler_step(x: Tensor, sigma: float, sigma_next: float, denoised: Tensor) -> Transition:
    """A deterministic step along the ODE."""
    return Transition(denoised.lerp(x, sigma_next / sigma), 0.0, sigma, sigma_next)


def stochastic(x: Tensor, sigmas: Sequence[float], ctx: Context, window: range, rule: Rule) -> Steps:
    """Steps of `rule` within the window, of Euler's outside it."""
    for place, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised: Tensor = yield Evaluate(x, sigma)
        transition = (rule if place in window else euler_step)(x, sigma, sigma_next, denoised)
        x = ctx.sample(transition)
        yield Step(x, denoised, transition)
    return x


@solver(
    "flow_grpo",
    order=1,
    noise=Noise.SEQUENCE,
    source="Liu 2025, arXiv:2505.05470 (Flow-GRPO), eq. 8",
    as_ode=AS_ODE,
)
def flow_grpo(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    noise_level: NoiseLevel = 0.7,
    sde_start_step: FirstStep = 0,
    sde_end_step: EndStep = None,
) -> Steps:
    """Euler-Maruyama on the SDE with s = a sqrt(sigma / alpha); the step onto sigma 0 draws noise too.

    Where no signal is left, but for rounding, alpha is the next level's.
    """

    def rule(x: Tensor, sigma: float, sigma_next: float, denoised: Tensor) -> Transition:
        alpha, width = ctx.process.alpha(sigma), sigma - sigma_next
        variance = noise_level**2 * sigma / (alpha if alpha > NO_SIGNAL else ctx.process.alpha(sigma_next))  # s^2
        slope, noise = (x - denoised) / sigma, (x - denoised * alpha) / sigma
        mean = x - (slope + noise * (variance / (2 * sigma))) * width
        return Transition(mean, math.sqrt(variance * width), sigma, sigma_next)

    window = in_window("flow_grpo", len(sigmas) - 1, sde_start_step, sde_end_step)
    return (yield from stochastic(x, sigmas, ctx, window, rule))


@solver("flow_cps", order=0, noise=Noise.SEQUENCE, source="Wang 2025, arXiv:2509.05952 (Flow-CPS)", as_ode=AS_ODE)
def flow_cps(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    noise_level: Share = 0.7,
    sde_start_step: FirstStep = 0,
    sde_end_step: EndStep = None,
) -> Steps:
    """A fixed share of the noise is fresh in every step, however short: std sigma' sin(noise_level pi / 2).

    Coefficients of signal and noise are those of the process. More steps renew more noise: it converges to no SDE.
    """
    turn = noise_level * math.pi / 2

    def rule(x: Tensor, sigma: float, sigma_next: float, denoised: Tensor) -> Transition:
        return _renewed(x, sigma, sigma_next, denoised, math.cos(turn), math.sin(turn), ctx)

    window = in_window("flow_cps", len(sigmas) - 1, sde_start_step, sde_end_step)
    return (yield from stochastic(x, sigmas, ctx, window, rule))


@solver("flow_euler_sde", order=0, noise=Noise.SEQUENCE, source="diffusers: FlowMatchEuler, stochastic sampling")
def flow_euler_sde(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    sde_start_step: FirstStep = 0,
    sde_end_step: EndStep = None,
) -> Steps:
    """The estimate, noised afresh to the next level: like consistency sampling, it converges to no SDE."""

    def rule(x: Tensor, sigma: float, sigma_next: float, denoised: Tensor) -> Transition:
        return Transition(denoised * ctx.process.alpha(sigma_next), sigma_next, sigma, sigma_next)

    window = in_window("flow_euler_sde", len(sigmas) - 1, sde_start_step, sde_end_step)
    return (yield from stochastic(x, sigmas, ctx, window, rule))


def _renewed(
    x: Tensor, sigma: float, sigma_next: float, denoised: Tensor, kept: float, fresh: float, ctx: Context
) -> Transition:
    """Signal and noise put together anew at the next level: `kept` of the noise seen, `fresh` noise beside it."""
    alpha, alpha_next = ctx.process.alpha(sigma), ctx.process.alpha(sigma_next)
    share = kept * sigma_next / sigma
    return Transition(x * share + denoised * (alpha_next - share * alpha), fresh * sigma_next, sigma, sigma_next)


def renewal(sde: str, noise_level: float, sigma: float, sigma_next: float, h: float) -> float:
    """R of a step, h long in half log-SNR, for the named s; infinite where all noise is renewed.

    flow_grpo a sqrt(sigma / alpha), memoryless a sqrt(2 sigma / alpha) (Domingo-Enrich 2024, arXiv:2409.08861, a = 1),
    constant a (Xue 2025, arXiv:2505.07818, DanceGRPO), linear a sigma.
    """
    if noise_level == 0:
        return 0.0
    if sde == "linear":
        return noise_level**2 / 2 * (sigma - sigma_next)
    if sde == "constant":
        return noise_level**2 / 2 * (1 / sigma_next - 1 / sigma) if sigma_next > 0 else math.inf
    return noise_level**2 * h / (2 if sde == "flow_grpo" else 1)


class Before(NamedTuple):
    """A past estimate and how far back it lies in y = lam + R."""

    y: float
    denoised: Tensor


@solver(
    "flow_sde_3m",
    order=3,
    noise=Noise.SEQUENCE,
    source="the SDEs of Liu 2025, arXiv:2505.05470, and others; exponential Adams after Zhang 2023, arXiv:2308.02157",
    as_ode=AS_ODE,
    fixed={"estimates": 3},
)
def flow_sde(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    sde: Sde = "flow_grpo",
    noise_level: NoiseLevel = 0.7,
    sde_start_step: FirstStep = 0,
    sde_end_step: EndStep = None,
    estimates: Annotated[int, Interval(1, 3)] = 3,
) -> Steps:
    """The SDE that `sde` names, integrated exactly for a polynomial through the last estimates, at most `estimates`.

    In y = lam + R, lam the half log-SNR, x' = sigma'/sigma e^-R x + alpha' integral of e^(y - y') D(y) dy + noise.
    """
    window = in_window("precise, flow_sde_2m, flow_sde_3m", len(sigmas) - 1, sde_start_step, sde_end_step)
    past: list[Before] = []
    for place, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised: Tensor = yield Evaluate(x, sigma)
        start, end = ctx.process.log_snr(sigma), ctx.process.log_snr(sigma_next)
        gone = renewal(sde, noise_level if place in window else 0.0, sigma, sigma_next, end - start)
        past = [Before(0.0, denoised), *past][:estimates]
        width = end - start + gone
        if math.isinf(width) or len(past) == 1 or width > FURTHEST * -past[1].y * (1 + 1e-9):
            transition = _renewed(x, sigma, sigma_next, denoised, math.exp(-gone), _fresh(gone), ctx)
        else:
            is_near = len(past) > 2 and width > CURVED * (past[1].y - past[2].y)
            used = past[:2] if is_near else past
            weights = exponential_integrals([one.y for one in used], 0.0, width, 1.0)
            mean = x * (sigma_next / sigma * math.exp(-gone))
            for one, weight in zip(used, weights, strict=True):
                mean = mean + one.denoised * (weight * ctx.process.alpha(sigma_next))
            transition = Transition(mean, sigma_next * _fresh(gone), sigma, sigma_next)
        past = [] if math.isinf(width) else [Before(one.y - width, one.denoised) for one in past]
        x = ctx.sample(transition)
        yield Step(x, denoised, transition)
    return x


def _fresh(gone: float) -> float:
    """The share of fresh noise after a renewal R."""
    return math.sqrt(-math.expm1(-2 * gone))


alias("flow_sde_2m", "flow_sde_3m", order=2, fixed={"estimates": 2})
alias(
    "precise",
    "flow_sde_3m",
    order=1,
    source="arXiv:2605.23522 (2026, Precise): the estimate frozen over the step, the SDE integrated exactly",
    fixed={"estimates": 1},
)
