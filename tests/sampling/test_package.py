"""The package as seen from outside: its public names, and what importing it brings in."""

import re
import subprocess
import sys
from pathlib import Path

import sigmagraph.engine.sampling as package


def test_public_names_are_sorted_and_there() -> None:
    assert sorted(package.__all__) == sorted(set(package.__all__))
    assert all(hasattr(package, name) for name in package.__all__)


def test_importing_sampling_brings_in_nothing_of_ours_beyond_it() -> None:
    listed = "sorted(name for name in sys.modules if name.startswith('sigmagraph.'))"
    code = f"import sys, sigmagraph.engine.sampling; print(*{listed})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    beyond = [name for name in found if not name.startswith("sigmagraph.engine.sampling")]
    assert beyond == [
        "sigmagraph.engine",
        "sigmagraph.engine.errors",
        "sigmagraph.engine.redaction",
        "sigmagraph.engine.registry",
        "sigmagraph.engine.writing",
    ]


def test_no_more_names_than_one_can_learn() -> None:
    assert len(package.__all__) <= 35


def test_no_solver_asks_which_revision_it_is() -> None:
    for file in (Path(package.__file__).parent / "solvers").rglob("*.py"):
        assert not re.search(r"ctx\.revision|as_recorded", file.read_text()), file
