"""Curves, drawn by matplotlib (the extra `plots`): work against precision, and the noise levels of each schedule."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from sigmagraph.engine.compose.comparison.cells import Cell, CellOutcome
from sigmagraph.engine.compose.comparison.measures import mean_distances

__all__ = ["error_curves", "sigma_curves", "work_precision"]

MARKERS = "osD^vP*Xhd<>p8"
LINES = ("-", "--", ":", "-.")


def work_precision(outcomes: Sequence[CellOutcome], away: Mapping[Cell, float], reference: Cell) -> bytes:
    """Distance to the reference against model evaluations, both logarithmic, a line per kind of run.

    Of several seeds it is the mean. A colour and marker per sampler, a kind of line per schedule; with step caches a
    colour for each of them.
    """
    figure, axes = _figure()
    means = mean_distances(outcomes, away)
    cost = {replace(outcome.cell, seed=None): outcome.evaluations for outcome in outcomes}
    samplers = list(dict.fromkeys(outcome.cell.sampler for outcome in outcomes))
    schedules = list(dict.fromkeys(outcome.cell.schedule for outcome in outcomes))
    caches = list(dict.fromkeys(outcome.cell.cache for outcome in outcomes))
    for name in dict.fromkeys(_line(outcome.cell) for outcome in outcomes):
        line = {cell: mean for cell, mean in means.items() if _line(cell) == name and mean > 0}
        points = sorted((cost[cell], mean) for cell, mean in line.items())
        if points:
            sampler, schedule = samplers.index(name[0]), schedules.index(name[1])
            cache = caches.index(next(iter(line)).cache)
            look = {"color": f"C{(sampler + cache * len(samplers)) % 10}", "linestyle": LINES[schedule % len(LINES)]}
            marker = MARKERS[sampler % len(MARKERS)]
            axes.loglog(*zip(*points, strict=True), **look, marker=marker, markersize=4, label=" / ".join(name))
    if axes.has_data():
        axes.xaxis.set_major_locator(LogLocator(base=2))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("model evaluations")
    axes.set_ylabel("distance to the reference (rms, relative)")
    axes.set_title(f"reference: {reference} steps", fontsize=9)
    return _png(figure, axes)


def _line(cell: Cell) -> tuple[str, ...]:
    """What the cells of one line have in common."""
    return (cell.sampler, cell.schedule, *replace(cell, seed=None).extras)


def sigma_curves(outcomes: Sequence[CellOutcome]) -> bytes:
    """The noise level at each step of the longest run of every schedule."""
    figure, axes = _figure()
    longest: dict[str, CellOutcome] = {}
    for outcome in outcomes:
        best = longest.get(outcome.cell.schedule)
        if outcome.sigmas and (best is None or len(outcome.sigmas) > len(best.sigmas)):
            longest[outcome.cell.schedule] = outcome
    for name, run in longest.items():
        axes.plot(range(len(run.sigmas)), run.sigmas, marker=".", linewidth=1.2, label=name)
    axes.set_xlabel("step")
    axes.set_ylabel("sigma")
    return _png(figure, axes)


def error_curves(errors: Mapping[str, Mapping[int, float]]) -> bytes:
    """Distance from the exact path against steps, both logarithmic, one line per sampler."""
    figure, axes = _figure()
    for place, (name, found) in enumerate(errors.items()):
        points = sorted((steps, error) for steps, error in found.items() if error > 0)
        if points:
            look = {"color": f"C{place % 10}", "linestyle": LINES[place // 10 % len(LINES)]}
            axes.loglog(
                *zip(*points, strict=True), **look, marker=MARKERS[place % len(MARKERS)], markersize=4, label=name
            )
    if axes.has_data():
        axes.xaxis.set_major_locator(LogLocator(base=2))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("steps")
    axes.set_ylabel("distance from the exact path (rms)")
    return _png(figure, axes)


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _png(figure: Figure, axes: Axes) -> bytes:
    axes.grid(True, which="both", alpha=0.25)
    if axes.has_data():
        axes.legend(fontsize=7)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
