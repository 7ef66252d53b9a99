"""`sigmagraph samplers`: every sampler and schedule, or one with its options and revisions."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sigmagraph.engine.cli.options import AsJson, CustomNodes, Home, Plugins, load_packs, workspace

if TYPE_CHECKING:
    from rich.table import Table

    from sigmagraph.engine.sampling import Schedule, Solver
    from sigmagraph.engine.sampling.options import Option

__all__ = ["samplers"]


def samplers(
    name: Annotated[str | None, typer.Argument(help="A sampler or schedule, to see its options.")] = None,
    schedules: Annotated[bool, typer.Option("--schedules", help="List the schedules instead.")] = False,
    as_json: AsJson = False,
    custom_nodes: CustomNodes = None,
    home: Home = None,
    plugins: Plugins = None,
) -> None:
    """List the samplers: order, evaluations per step, noise, options; one of them with its source and revisions."""
    from sigmagraph.engine.cli.console import out, write_json
    from sigmagraph.engine.errors import UnknownName
    from sigmagraph.engine.sampling import SCHEDULES, SOLVERS, find_schedule, find_solver
    from sigmagraph.engine.sampling.facts import facts_of
    from sigmagraph.engine.sampling.versioned import VersionedName

    load_packs(workspace(home, None, custom_nodes))
    bare = VersionedName.parse(name).name if name is not None else None
    known: dict[str, Any] = {**SCHEDULES, **SOLVERS}
    if bare is not None and bare not in known:
        raise UnknownName("sampler or schedule", bare, known)
    if as_json:
        chosen = [bare] if bare is not None else sorted(SCHEDULES if schedules else SOLVERS)
        write_json({shown: facts_of(known[shown]) for shown in chosen})
    elif name is None:
        out().print(_schedules() if schedules else _samplers())
    elif bare in SOLVERS:
        solver = find_solver(name)
        evaluations = "adaptive" if solver.is_adaptive else solver.evaluations
        facts = f"order {_order(solver)}, {evaluations} evaluations a step, noise: {solver.noise.value}"
        _describe(solver, solver.summary, facts)
    else:
        schedule = find_schedule(name)
        _describe(schedule, (schedule.function.__doc__ or "").partition("\n")[0])


def _samplers() -> "Table":
    from sigmagraph.engine.cli.console import columns
    from sigmagraph.engine.sampling import SOLVERS

    table = columns("sampler", "order", "evals", "noise", "options", whole=4, right=("order", "evals"))
    for name in sorted(SOLVERS):
        solver = SOLVERS[name]
        options = ", ".join(f"{option.name}={_plain(option.default)}" for option in solver.options)
        table.add_row(name, _order(solver), str(solver.evaluations), solver.noise.value, options)
    return table


def _order(solver: "Solver") -> str:
    """As docs/samplers.md has it: a dash where the rule converges to nothing of its own."""
    return str(solver.order or "-")


def _schedules() -> "Table":
    from sigmagraph.engine.cli.console import columns
    from sigmagraph.engine.sampling import SCHEDULES

    table = columns("schedule", "options", "source")
    for name in sorted(SCHEDULES):
        schedule = SCHEDULES[name]
        options = ", ".join(f"{option.name}={_plain(option.default)}" for option in schedule.options)
        table.add_row(name, options, schedule.source)
    return table


def _describe(part: "Solver | Schedule", *words: str) -> None:
    """One part: what it is, its options with their limits, and what became of each revision."""
    from sigmagraph.engine.cli.console import columns, out, tell

    for line in (str(part), *words, part.source, part.remark):
        if line:
            tell(line)
    table = columns("option", "default", "allowed")
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
