"""Schedules that pick from the levels a model was trained at: table entries, timesteps, quantiles."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from statistics import NormalDist
from typing import Annotated, TypeAlias

import torch
from torch import Tensor

from sigmagraph.engine.sampling.levels import Levels
from sigmagraph.engine.sampling.options import Interval
from sigmagraph.engine.sampling.schedule import schedule, with_zero
from sigmagraph.engine.sampling.schedules import recorded
from sigmagraph.engine.sampling.schedules.beta_quantile import beta_quantile, regularised

Positive: TypeAlias = Annotated[float, Interval(1e-3, 100.0)]
Number: TypeAlias = Annotated[float, Interval(-1000.0, 1000.0)]

TIE = 1e-11
SEARCH = 8  # integrals that the search for one quantile takes, about


def _even_positions(levels: Levels, steps: int) -> Tensor:
    return torch.linspace(levels.position(levels.sigma_max), levels.position(levels.sigma_min), steps)


@schedule(
    "normal",
    source="even timesteps, both ends included",
    revision=2,
    remark="revision 1 shifts a flow model's levels twice, which makes the last step above 0 thirty-fold",
    older={1: {"function": recorded.normal_shifted_twice}},
)
def normal(levels: Levels, steps: int) -> list[float]:
    """Even steps on the coordinate the model was trained on, both ends included; then 0."""
    sigmas = levels.sigmas_at(_even_positions(levels, steps)).tolist()
    return with_zero([levels.sigma_max, *sigmas[1:]])


@schedule("simple", source="every M/N-th trained level, from the top")
def simple(levels: Levels, steps: int) -> list[float]:
    """Evenly spaced entries of the model's own table; then 0."""
    table = levels.table.tolist()
    return with_zero([table[len(table) - 1 - int(i * (len(table) / steps))] for i in range(steps)])


@schedule("sgm_uniform", source="Stability AI generative-models: even timesteps, the last one left out")
def sgm_uniform(levels: Levels, steps: int) -> list[float]:
    """Even steps in timestep, stopping one short of the last; then 0."""
    first, last = levels.timestep(levels.sigma_max), levels.timestep(levels.sigma_min)
    return with_zero(levels.sigmas_at(torch.linspace(first, last, steps + 1)[:-1] / levels.timestep_scale))


@schedule(
    "ddim_uniform",
    source="Song 2020, arXiv:2010.02502; trailing spacing of Lin 2023, arXiv:2305.08891",
    revision=2,
    remark="revision 1 starts below the highest level, may give another number of steps, and on flow ends too high",
    older={1: {"function": recorded.ddim_from_entry_one, "exact_length": False}},
)
def ddim_uniform(levels: Levels, steps: int) -> list[float]:
    """Every M/N-th entry of the table, counted from the top: entries round(M - i M/N); then 0."""
    table = levels.table.tolist()
    if steps > len(table):
        return with_zero(levels.sigmas_at(_even_positions(levels, steps)))
    return with_zero([table[round(len(table) * (1 - i / steps)) - 1] for i in range(steps)])


@schedule("beta", source="Lee 2024, arXiv:2407.12173", exact_length=False)
def beta(levels: Levels, steps: int, *, alpha: Positive = 0.6, beta: Positive = 0.6) -> list[float]:
    """Table entries at the quantiles of a beta distribution: dense at both ends; repeated entries are dropped."""
    table = levels.table.tolist()
    return _beta_entries(table, steps, alpha, beta)


@schedule("beta57", source="beta with alpha 0.5, beta 0.7 (RES4LYF)", exact_length=False)
def beta57(levels: Levels, steps: int) -> list[float]:
    """The beta schedule with more steps at low levels."""
    return _beta_entries(levels.table.tolist(), steps, 0.5, 0.7)


def _beta_entries(table: Sequence[float], steps: int, alpha: float, beta: float) -> list[float]:
    shares, last = [1 - i / steps for i in range(steps)], len(table) - 1

    def nearest(share: float) -> int:
        return round(beta_quantile(share, alpha, beta) * last)

    if steps * SEARCH <= last:
        at = [nearest(share) for share in shares]
    else:  # one integral for each place between two entries, not a search for each step; but on a tie
        edges = list(accumulate((regularised((k + 0.5) / last, alpha, beta) for k in range(last)), max))
        found = [bisect_left(edges, share - TIE) for share in shares]
        ties = [bisect_left(edges, share + TIE) for share in shares]
        at = [one if one == two else nearest(share) for share, one, two in zip(shares, found, ties, strict=True)]
    return with_zero([table[index] for place, index in enumerate(at) if place == 0 or index != at[place - 1]])


@schedule("logit_normal", source="Esser 2024, arXiv:2403.03206, eq. 19: levels as densely as training drew them")
def logit_normal(levels: Levels, steps: int, *, mean: Number = 0.0, std: Positive = 1.0) -> list[float]:
    """Even quantiles of a logit-normal density over the trained coordinate; then 0."""
    first, last = levels.position(levels.sigma_max), levels.position(levels.sigma_min)
    quantiles = [mean + std * NormalDist().inv_cdf(1 - i / steps) for i in range(1, steps)]
    shares = torch.tensor([1 / (1 + math.exp(-z)) for z in quantiles])
    return with_zero([levels.sigma_max, *levels.sigmas_at(last + (first - last) * shares).tolist()])
