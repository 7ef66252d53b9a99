"""Numbers about cells: distance to the reference, and the table as CSV."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import StringIO

from torch import Tensor

from sigmagraph.engine.compose.comparison.cells import Cell, CellOutcome
from sigmagraph.nodes.support.distances import relative_distance

__all__ = ["csv_bytes", "distances", "drifts", "mean_distances"]

COLUMNS = ("sampler", "schedule", "steps", "guidance", "seed", "evaluations", "seconds", "distance", "problem")
OF_CACHES = ("cache", "drift_estimate", "drift")  # further columns, where step caches are compared


def distances(outcomes: Sequence[CellOutcome], reference: Tensor) -> dict[Cell, float]:
    """Root mean square difference of each latent from the reference, in units of the reference's own spread."""
    found = {outcome.cell: outcome.latent for outcome in outcomes if outcome.latent is not None}
    return {cell: relative_distance(latent, reference) for cell, latent in found.items()}


def mean_distances(outcomes: Sequence[CellOutcome], away: Mapping[Cell, float]) -> dict[Cell, float]:
    """The same without seeds: the root mean square over those that worked."""
    found: dict[Cell, list[float]] = {}
    for outcome in outcomes:
        if outcome.cell in away:
            found.setdefault(replace(outcome.cell, seed=None), []).append(away[outcome.cell])
    return {cell: math.sqrt(sum(one**2 for one in errors) / len(errors)) for cell, errors in found.items()}


def drifts(outcomes: Sequence[CellOutcome]) -> dict[Cell, float]:
    """How far each cell under a step cache is from the same cell without one, measured as `distances` are."""
    whole = {outcome.cell: outcome.latent for outcome in outcomes if not outcome.cell.cache}
    found = {}
    for outcome in outcomes:
        twin = whole.get(replace(outcome.cell, cache=""))
        if outcome.cell.cache and outcome.latent is not None and twin is not None:
            found[outcome.cell] = relative_distance(outcome.latent, twin)
    return found


def csv_bytes(outcomes: Sequence[CellOutcome], away: Mapping[Cell, float]) -> bytes:
    """One line per cell."""
    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    apart, has_caches = drifts(outcomes), any(outcome.cell.cache for outcome in outcomes)
    table.writerow(COLUMNS + OF_CACHES * has_caches)
    for outcome in outcomes:
        cell = outcome.cell
        distance = f"{away[cell]:.6g}" if cell in away else ""
        costs = outcome.evaluations, f"{outcome.seconds:.3f}"
        seed = cell.seed if cell.seed is not None else ""
        scale = f"{cell.guidance:g}" if cell.guidance is not None else ""
        estimate = f"{outcome.drift_estimate:g}" if outcome.drift_estimate is not None else ""
        cached = [cell.cache, estimate, f"{apart[cell]:.6g}" if cell in apart else ""] if has_caches else []
        row = [cell.sampler, cell.schedule, cell.steps, scale, seed, *costs, distance, outcome.problem]
        table.writerow([*row, *cached])
    return text.getvalue().encode()
