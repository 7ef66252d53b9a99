"""`sigmagraph samplers`: every sampler and schedule, or one with its options and revisions."""

from typing import TYPE_CHECKING, Annotated

import typer

from sigmagraph.engine.cli.options import Plugins

if TYPE_CHECKING:
    from rich.table import Table

    from sigmagraph.engine.sampling import Schedule, Solver
    from sigmagraph.engine.sampling.options import Option

__all__ = ["samplers"]


def samplers(
    name: Annotated[str | None, typer.Argument(help="A sampler or schedule, to see its options.")] = None,
    schedules: Annotated[bool, typer.Option("--schedules", help="List the schedules instead.")] = False,
    plugins: Plugins = None,
) -> None:
    """List the samplers: order, evaluations per step, noise, options, revision, source."""
    from sigmagraph.engine.cli.console import out
    from sigmagraph.engine.errors import UnknownName
    from sigmagraph.engine.sampling import SCHEDULES, SOLVERS, find_schedule, find_solver
    from sigmagraph.engine.sampling.versioned import VersionedName

    if name is None:
        out().print(_schedules() if schedules else _samplers())
        return
    bare = VersionedName.parse(name).name
    if bare in SOLVERS:
        solver = find_solver(name)
        facts = f"order {solver.order}, {solver.evaluations} evaluations a step, noise: {solver.noise.value}"
        _describe(solver, solver.summary, facts)
    elif bare in SCHEDULES:
        schedule = find_schedule(name)
        _describe(schedule, (schedule.function.__doc__ or "").partition("\n")[0])
    else:
        raise UnknownName("sampler or schedule", name, {*SOLVERS, *SCHEDULES})


def _samplers() -> "Table":
    from sigmagraph.engine.sampling import SOLVERS

    table = _table("sampler", "order", "evaluations", "noise", "options", "revision", "source")
    for name in sorted(SOLVERS):
        solver = SOLVERS[name]
        options = ", ".join(f"{each.name}={_plain(each.default)}" for each in solver.options)
        numbers = str(solver.order), str(solver.evaluations), solver.noise.value
        table.add_row(name, *numbers, options, str(solver.revision), solver.source)
    return table


def _schedules() -> "Table":
    from sigmagraph.engine.sampling import SCHEDULES

    table = _table("schedule", "options", "revision", "source")
    for name in sorted(SCHEDULES):
        schedule = SCHEDULES[name]
        options = ", ".join(f"{each.name}={_plain(each.default)}" for each in schedule.options)
        table.add_row(name, options, str(schedule.revision), schedule.source)
    return table


def _describe(part: "Solver | Schedule", *words: str) -> None:
    """One part: what it is, its options with their limits, and what became of each revision."""
    from sigmagraph.engine.cli.console import out

    for line in (str(part), *words, part.source, part.remark):
        if line:
            out().print(line, markup=False, soft_wrap=True)
    table = _table("option", "default", "allowed")
    for option in part.options:
        table.add_row(option.name, _plain(option.default), _allowed(option))
    for older in part.older:
        table.add_row(f"@{older.revision}", "", older.remark or "as existing graphs expect it")
    if table.row_count:
        out().print(table)


def _allowed(option: "Option") -> str:
    return option.allowed if option.limits is not None else option.kind.__name__


def _plain(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(*columns: str) -> "Table":
    from rich.table import Table

    return Table(*columns, box=None, pad_edge=False)
