"""Numbers about cells: distance to the reference, and the table as CSV."""

import csv
from collections.abc import Mapping, Sequence
from io import StringIO

from torch import Tensor

from sigmagraph.engine.compose.comparison.cells import Cell, CellOutcome

__all__ = ["csv_bytes", "distances"]

COLUMNS = ("sampler", "schedule", "steps", "evaluations", "seconds", "distance", "problem")


def distances(outcomes: Sequence[CellOutcome], reference: Tensor) -> dict[Cell, float]:
    """Root mean square difference of each latent from the reference, in units of the reference's own spread."""
    unit = reference.std()
    found = {each.cell: each.latent for each in outcomes if each.latent is not None}
    return {cell: float((latent - reference).square().mean().sqrt() / unit) for cell, latent in found.items()}


def csv_bytes(outcomes: Sequence[CellOutcome], away: Mapping[Cell, float]) -> bytes:
    """One line per cell."""
    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for each in outcomes:
        cell = each.cell
        distance = f"{away[cell]:.6g}" if cell in away else ""
        costs = each.evaluations, f"{each.seconds:.3f}"
        table.writerow([cell.sampler, cell.schedule, cell.steps, *costs, distance, each.problem])
    return text.getvalue().encode()
