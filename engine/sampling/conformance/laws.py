"""The laws of the registry for one sampler: each says whether it holds, with the figure it was judged by.

Everything is measured on problems with exact answers, in float64, without a model.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadSampler, EngineError
from sigmagraph.engine.sampling.conformance.problems import Mixture, bumps, even_shares, gaussian
from sigmagraph.engine.sampling.noise import NoiseSource, PhiloxNoise
from sigmagraph.engine.sampling.parameterisation import Parameterisation
from sigmagraph.engine.sampling.solver import Noise, Prediction, Solver
from sigmagraph.engine.sampling.solver_run import SolverRun, context_of

Verdict: TypeAlias = Literal["holds", "broken", "not asked"]
STEPS = (16, 32, 64, 128, 256)
SLACK = 0.35  # below the declared order
NO_FALL = 0.65  # below this exponent an error is not said to fall
ROUNDING = 1e-5  # relative; what works in single precision passes
FLOOR = 1e-14  # an error below is rounding
ENDLESS = 300  # evaluations a step, and ten times that beside: no rule asks for so many
SIDE = 64  # of the square of values whose mean and variance are taken
MOMENT_STEPS = (32, 64)


@dataclass(frozen=True)
class Finding:
    """What one law says of one sampler."""

    law: str
    verdict: Verdict
    figure: str


@dataclass(frozen=True)
class Candidate:
    """A sampler and the kind of model it is examined on."""

    name: str
    solver: Solver
    model: Parameterisation
    errors: dict[int, float] = field(default_factory=dict)  # steps -> distance from the exact ODE, once measured

    @property
    def is_stochastic(self) -> bool:
        """Whether it draws noise as it is."""
        return self.solver.noise is not Noise.NONE

    def run(
        self,
        x: Tensor,
        sigmas: Sequence[float],
        denoiser: Callable[..., Prediction],
        options: Mapping[str, object] | None = None,
        noise: NoiseSource | None = None,
    ) -> tuple[Tensor, int]:
        """The final state from a given one, and the number of evaluations. A sampler may write into its state."""
        kept = [*sigmas[:-2], sigmas[-1]] if self.solver.drops_penultimate and len(sigmas) > 2 else list(sigmas)
        context = context_of(self.solver, x, kept, self.model, noise or PhiloxNoise(3))
        with torch.inference_mode():
            run = SolverRun(self.solver, x.clone(), kept, context, options or {})
            try:
                while (request := run.request) is not None:
                    if run.evaluations >= ENDLESS * (10 + run.steps):
                        raise BadSampler(self.name, f"asked {run.evaluations} times", f"an end, in {run.steps} steps")
                    run.answer(denoiser(request.x, request.sigma))
            finally:
                run.close()
        assert run.result is not None
        return run.result, run.evaluations


def order(candidate: Candidate) -> Finding:
    """The exponent with which the error of the ODE falls: over the finest two doublings, or over all."""
    options, declared = candidate.solver.ode_options, candidate.solver.order
    if options is None:
        return Finding("order", "not asked", "no setting without noise")
    if declared == 0:
        return Finding("order", "not asked", "it follows no ODE, by its own declaration")
    if candidate.solver.is_adaptive:
        return Finding("order", "not asked", "it chooses its own steps")
    problem, (first, last) = bumps(candidate.model.process), ends(candidate.model)
    start = problem.quantile(even_shares(41), first)
    exact = problem.carried(start, first, last)
    for steps in STEPS:
        result, _ = candidate.run(start, eased_in(candidate.model, steps), problem, options)
        candidate.errors[steps] = float((result - exact).square().mean().sqrt())
    usable = [steps for steps in STEPS if candidate.errors[steps] > FLOOR]
    if len(usable) < 3:
        return Finding("order", "holds", f"error {candidate.errors[STEPS[0]]:.0e} already at {STEPS[0]} steps")
    measured = max(exponent(candidate.errors, *pair) for pair in ((usable[-3], usable[-1]), (usable[0], usable[-1])))
    wanted = declared - SLACK if declared > 0 else NO_FALL
    said = f"{measured:.2f}" + (f", declared {declared}" if declared > 0 else "")
    return Finding("order", "holds" if measured > wanted else "broken", said)


def exponent(errors: Mapping[int, float], coarse: int, fine: int) -> float:
    """The exponent with which an error falls between two numbers of steps."""
    return math.log(errors[coarse] / errors[fine]) / math.log(fine / coarse)


def exactness(candidate: Candidate) -> Finding:
    """An estimate that does not change is followed exactly: x' = D + (x - D) sigma' / sigma."""
    options = candidate.solver.ode_options
    if options is None or candidate.solver.order == 0:
        return Finding("exactness", "not asked", "no setting without noise" if options is None else "it follows no ODE")
    first, last = ends(candidate.model)
    target = torch.full((1, 1, 1, 9), 0.7, dtype=torch.float64)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(1, 1, 1, 9)
    levels = [first * (last / first) ** (place / 6) for place in range(7)]
    result, _ = candidate.run(x, levels, lambda x, sigma, needs_uncond=False: Prediction(target, target), options)
    away = float((result - (target + (x - target) * (last / first))).abs().max())
    return Finding("exactness", "holds" if away < ROUNDING else "broken", f"{away:.0e} away")


def marginals(candidate: Candidate) -> Finding:
    """From pure noise to a Gaussian: its mean and variance, within three standard errors and a bias of 6 / steps."""
    if candidate.solver.order == 0:
        return Finding("marginals", "not asked", "it follows no process, by its own declaration")
    problem, figures, holds = gaussian(candidate.model.process), [], True
    for steps in MOMENT_STEPS:
        first = candidate.model.levels.sigma_max
        levels = [*_even(candidate.model, first, candidate.model.levels.sigma_min * 2, steps), 0.0]
        shape = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.float64)
        start = PhiloxNoise(5).initial(shape) * math.sqrt(first**2 + (candidate.model.process.alpha(first) * 0.6) ** 2)
        start = start + candidate.model.process.alpha(first) * problem.means[0]
        result, _ = candidate.run(start, levels, problem, noise=PhiloxNoise(77))
        if not result.isfinite().all():
            return Finding("marginals", "broken", f"not finite in {steps} steps onto 0")
        mean = float(result.mean()) - problem.means[0]
        spread = float(result.var()) / problem.stds[0] ** 2 - 1
        bias = 6 / steps
        holds = holds and abs(mean) < 3 * problem.stds[0] / SIDE + bias / 6
        holds = holds and abs(spread) < 3 * math.sqrt(2) / SIDE + bias
        figures.append(f"mean {mean:+.3f}, variance {spread:+.1%} in {steps} steps")
    return Finding("marginals", "holds" if holds else "broken", "; ".join(figures))


def replay(candidate: Candidate) -> Finding:
    """The same run gives the same bits."""
    first, second = (_plain(candidate, 2) for _ in range(2))
    if torch.allclose(first, second, rtol=0.0, atol=0.0, equal_nan=True):
        return Finding("replay", "holds", "bit for bit")
    return Finding("replay", "broken", "another result: it draws from a generator of its own")


def batch_independence(candidate: Candidate) -> Finding:
    """An image of a batch is the image alone."""
    if candidate.solver.splits_batch:
        return Finding("batch independence", "holds", "each image steps alone, by its declaration")
    away = float((_plain(candidate, 3)[:1] - _plain(candidate, 1)).abs().max())
    if math.isnan(away):
        return Finding("batch independence", "not asked", "the run is not finite")
    return Finding("batch independence", "holds" if away < ROUNDING else "broken", f"{away:.0e} apart")


def extremes(candidate: Candidate) -> Finding:
    """One step, two steps, levels that nearly agree, an end above 0: finite; and nearer where 0 is reached."""
    top = candidate.model.levels.sigma_max
    low, high = 0.3 * min(top, 1.0), 0.9 * min(top, 1.0)
    cases = {
        "one step": [top, 0.0],
        "two steps": [top, high, 0.0],
        "levels that nearly agree": [top, high, high * (1 - 1e-7), low, 0.0],
        "an end above 0": [top, high, low],
        "a long last step": [top, high, low, low * 1e-3, 0.0],
    }
    failed = [f"{name}: {said}" for name, sigmas in cases.items() if (said := _odd_end(candidate, sigmas))]
    return Finding("extremes", "broken" if failed else "holds", "; ".join(failed) or f"{len(cases)} cases")


def evaluations(candidate: Candidate) -> Finding:
    """As many evaluations a step as are declared; none declared, what was counted."""
    first, last = ends(candidate.model)
    levels = _even(candidate.model, first, last, 21)
    _, count = candidate.run(
        torch.zeros(1, 1, 1, 4, dtype=torch.float64) + first, levels, bumps(candidate.model.process)
    )
    per_step, declared = count / 20, candidate.solver.evaluations
    if candidate.solver.is_adaptive or declared < 0 or candidate.solver.own_steps:
        return Finding("evaluations", "not asked", f"{per_step:.2f} a step")
    within = abs(per_step - declared) < 0.5 * declared
    return Finding("evaluations", "holds" if within else "broken", f"{per_step:.2f} a step, declared {declared}")


LAWS: Sequence[Callable[[Candidate], Finding]] = (
    order, exactness, marginals, replay, batch_independence, extremes, evaluations,
)  # fmt: skip


def examined(candidate: Candidate, told: Callable[[str], None] = lambda law: None) -> list[Finding]:
    """What every law says. An exception of the sampler's own breaks the law under which it was raised."""
    found = []
    for law in LAWS:
        name = law.__name__.replace("_", " ")
        told(f"{candidate.name}: {name}")
        try:
            found.append(law(candidate))
        except (Exception, SystemExit) as error:  # noqa: BLE001  # anyone's code: whatever it raises is the finding
            found.append(Finding(name, "broken", f"{type(error).__name__}: {error}".partition("\n")[0][:160]))
    return found


def ends(model: Parameterisation) -> tuple[float, float]:
    """From where to where orders are measured: most of the way, neither pure noise nor no noise."""
    return (0.9, 0.1) if model.levels.sigma_max <= 1 else (4.0, 0.2)


def eased_in(model: Parameterisation, steps: int) -> list[float]:
    """Levels even in log-SNR, but for a beginning that grows from steps^-2 by a half each.

    So the low-order steps with which a multistep rule gathers its history do not hide its order.
    """
    process, (first, last) = model.process, ends(model)
    start, end = process.log_snr(first), process.log_snr(last)
    width, growing = (end - start) / steps, [0.0]
    small = width / steps
    while small < width:
        growing.append(growing[-1] + small)
        small *= 1.5
    rest = end - start - growing[-1]
    places = [*growing, *(growing[-1] + rest * i / steps for i in range(1, steps))]
    return [first, *(process.sigma(start + place) for place in places[1:]), last]


def _even(model: Parameterisation, first: float, last: float, count: int) -> list[float]:
    """`count` levels between two, even in sigma on a flow and in its logarithm elsewhere."""
    shares = [place / (count - 1) for place in range(count)]
    if model.levels.sigma_max <= 1:
        return [first + (last - first) * share for share in shares]
    return [first * (last / first) ** share for share in shares]


def _plain(candidate: Candidate, images: int) -> Tensor:
    """A short run of `images` images as the sampler is, noise and all."""
    first = candidate.model.levels.sigma_max
    sigmas = [*_even(candidate.model, first, first / 20, 6), 0.0]
    start = PhiloxNoise(9).initial(torch.zeros(images, 1, 2, 3, dtype=torch.float64)) * first
    return candidate.run(start, sigmas, bumps(candidate.model.process), noise=PhiloxNoise(9))[0]


def _odd_end(candidate: Candidate, sigmas: Sequence[float]) -> str:
    """What is wrong with the end of a run; empty where nothing is."""
    problem: Mixture = bumps(candidate.model.process)
    start = problem.quantile(even_shares(16), sigmas[0])
    try:
        result, _ = candidate.run(start, sigmas, problem)
    except (EngineError, ArithmeticError, RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        return f"{type(error).__name__}"
    if not result.isfinite().all():
        return "not finite"
    farthest, limit = float(result.abs().max()), max(6.0, 0.9 * float(start.abs().max()))
    return f"ends at {farthest:.3g}" if sigmas[-1] == 0 and farthest > limit and candidate.solver.order else ""
