"""What the registries declare, as rows: for the command line, and for the generated part of docs/samplers.md.

python -m sigmagraph.engine.sampling.table    writes that part to standard output
"""

import sys
from collections.abc import Iterator, Mapping, Sequence

from sigmagraph.engine.sampling.noise import Seeding
from sigmagraph.engine.sampling.options import Choices, Interval, Option
from sigmagraph.engine.sampling.schedule import SCHEDULES, Schedule
from sigmagraph.engine.sampling.solver import SOLVERS, Noise, Solver

LEGEND = """\
*First noise*: revision 1 begins its own noise with the run's initial noise (on a CPU), as existing seeds expect;
revision 2 draws from a derived seed. *Kept region*: revision 1 leaves a masked run as its last step left it; revision 2
puts the kept region back.
"""
SAMPLER_COLUMNS = ("name", "order", "evaluations a step", "noise", "options", "source", "revision")
SCHEDULE_COLUMNS = ("name", "steps kept", "options", "source", "revision")


def sampler_rows(solvers: Mapping[str, Solver] = SOLVERS) -> Iterator[tuple[str, ...]]:
    """One row a sampler, by name."""
    for name, solver in sorted(solvers.items()):
        yield (
            name,
            _order(solver),
            "adaptive" if solver.is_adaptive else str(solver.evaluations),
            solver.noise.value,
            ", ".join(described(option) for option in solver.options) or "none",
            solver.source,
            str(solver.revision),
        )


def schedule_rows(schedules: Mapping[str, Schedule] = SCHEDULES) -> Iterator[tuple[str, ...]]:
    """One row a schedule."""
    for name, schedule in sorted(schedules.items()):
        options = ", ".join(described(option) for option in schedule.options) or "none"
        kept = "all" if schedule.exact_length else "may differ"
        yield (name, kept, options, schedule.source, str(schedule.revision))


def revision_rows() -> Iterator[tuple[str, str]]:
    """What sets revision 2 apart, for every sampler and schedule that has one."""
    yield from ((name, "; ".join(_changes(solver))) for name, solver in sorted(SOLVERS.items()) if solver.older)
    yield from ((name, schedule.remark) for name, schedule in sorted(SCHEDULES.items()) if schedule.older)


def _changes(solver: Solver) -> Iterator[str]:
    """What its declaration says of its first revision, then what only words can say."""
    first = solver.at(1)
    if first.seeding is Seeding.SAME and solver.noise is Noise.SEQUENCE:
        yield "first noise"
    if first.composes_mask != solver.composes_mask:
        yield "kept region"
    if first.masks_with_next_seed != solver.masks_with_next_seed:
        yield "revision 1 shows the model other noise there than the run started from"
    if solver.remark:
        yield solver.remark


def described(option: Option) -> str:
    """An option with its default and its limits: `eta 1 (0 to 100)`."""
    default = f"{option.default:g}" if isinstance(option.default, (int, float)) else str(option.default)
    if isinstance(option.limits, Interval):
        return f"{option.name} {default} ({option.limits.low:g} to {option.limits.high:g})"
    if isinstance(option.limits, Choices):
        return f"{option.name} {default} ({', '.join(option.limits.values)})"
    return f"{option.name} {default}"


def markdown(columns: Sequence[str], rows: Iterator[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join(lines)


def generated() -> str:
    """The generated part of docs/samplers.md."""
    parts = (
        ("## Samplers", markdown(SAMPLER_COLUMNS, sampler_rows())),
        ("## Schedules", markdown(SCHEDULE_COLUMNS, schedule_rows())),
        ("## What revision 2 changes", markdown(("name", "change"), revision_rows())),
    )
    return "\n\n".join(f"{title}\n\n{body}" for title, body in parts) + f"\n\n{LEGEND}"


def _order(solver: Solver) -> str:
    """The order, with that of revision 1 where it differs; a dash where it converges to nothing of its own."""
    shown = str(solver.order) if solver.order else "-"
    first = next((one.order for one in solver.older if one.revision == 1), solver.order)
    return shown if first == solver.order else f"{shown} (revision 1: {first or '-'})"


if __name__ == "__main__":
    sys.stdout.write(generated())
