"""A report on samplers: the laws of the registry over each, a table, a plot, JSON."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sigmagraph.engine.sampling import Parameterisation, Solver, edm, sd3
from sigmagraph.engine.sampling.conformance.laws import Candidate, Finding, examined
from sigmagraph.engine.writing import make_folder, write_file

__all__ = ["MODELS", "Conformance", "conformance"]

MODELS: Mapping[str, Callable[[], Parameterisation]] = {"ve": lambda: edm(0.03, 14.6), "flow": lambda: sd3(1.0)}
MARKS = {"holds": "yes", "broken": "NO", "not asked": "-"}


@dataclass(frozen=True)
class Conformance:
    """What was found of each sampler, in the order of the laws."""

    model: str
    findings: Mapping[str, Sequence[Finding]]
    errors: Mapping[str, Mapping[int, float]]

    @property
    def broken(self) -> list[str]:
        """The samplers that break a law."""
        return [name for name, found in self.findings.items() if any(one.verdict == "broken" for one in found)]

    @property
    def laws(self) -> list[str]:
        """The laws, in order."""
        return [one.law for one in next(iter(self.findings.values()), ())]

    def as_values(self) -> dict[str, Any]:
        """As JSON values."""
        samplers: dict[str, dict[str, Any]] = {
            name: {"laws": [asdict(one) for one in found], "errors": dict(self.errors[name])}
            for name, found in self.findings.items()
        }
        return {"model": self.model, "samplers": samplers}

    def markdown(self) -> str:
        """A table: a row a sampler, a column a law; what is broken or measured says so."""
        lines = [f"| sampler | {' | '.join(self.laws)} |", f"|---|{'---|' * len(self.laws)}"]
        for name, found in self.findings.items():
            lines.append(f"| {name} | {' | '.join(_cell(one) for one in found)} |")
        return "\n".join(lines) + "\n"

    def write(self, folder: Path) -> list[Path]:
        """The table, the JSON and, where matplotlib is there, the plot of errors."""
        make_folder(folder)
        table, values, plot = (folder / name for name in ("conform.md", "conform.json", "conform.png"))
        write_file(table, self.markdown().encode())
        write_file(values, json.dumps(self.as_values(), indent=1).encode())
        if find_spec("matplotlib") is None or not any(self.errors.values()):
            return [table, values]
        from sigmagraph.engine.compose.comparison.plots import error_curves

        write_file(plot, error_curves(self.errors))
        return [table, values, plot]


def conformance(
    solvers: Mapping[str, Solver], model: str = "ve", told: Callable[[str], None] = lambda law: None
) -> Conformance:
    """Examine every sampler on one kind of model."""
    candidates = {name: Candidate(name, solver, MODELS[model]()) for name, solver in solvers.items()}
    findings = {name: examined(candidate, told) for name, candidate in candidates.items()}
    return Conformance(model, findings, {name: candidate.errors for name, candidate in candidates.items()})


def _cell(one: Finding) -> str:
    figure = one.figure.replace("|", "/")
    shows = one.verdict != "holds" or one.law in ("order", "marginals")
    return f"{MARKS[one.verdict]}: {figure}" if shows else MARKS[one.verdict]
