"""Numbers about cells: distance to the reference, and the table as CSV."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import StringIO

from torch import Tensor

from sigmagraph.engine.compose.comparison.cells import Cell, CellOutcome

__all__ = ["csv_bytes", "distances", "mean_distances"]

COLUMNS = ("sampler", "schedule", "steps", "seed", "evaluations", "seconds", "distance", "problem")


def distances(outcomes: Sequence[CellOutcome], reference: Tensor) -> dict[Cell, float]:
    """Root mean square difference of each latent from the reference, in units of the reference's own spread."""
    unit = reference.std()
    found = {each.cell: each.latent for each in outcomes if each.latent is not None}
    return {cell: float((latent - reference).square().mean().sqrt() / unit) for cell, latent in found.items()}


def mean_distances(outcomes: Sequence[CellOutcome], away: Mapping[Cell, float]) -> dict[Cell, float]:
    """The same without seeds: the root mean square over those that worked."""
    found: dict[Cell, list[float]] = {}
    for each in outcomes:
        if each.cell in away:
            found.setdefault(replace(each.cell, seed=None), []).append(away[each.cell])
    return {cell: math.sqrt(sum(one**2 for one in each) / len(each)) for cell, each in found.items()}


def csv_bytes(outcomes: Sequence[CellOutcome], away: Mapping[Cell, float]) -> bytes:
    """One line per cell."""
    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for each in outcomes:
        cell = each.cell
        distance = f"{away[cell]:.6g}" if cell in away else ""
        costs = each.evaluations, f"{each.seconds:.3f}"
        seed = cell.seed if cell.seed is not None else ""
        table.writerow([cell.sampler, cell.schedule, cell.steps, seed, *costs, distance, each.problem])
    return text.getvalue().encode()
