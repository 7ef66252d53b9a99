"""docs/four-solvers.ipynb: its cells run, and its curves have the slopes that it says."""

import json
import math
from typing import Any

import matplotlib as mpl
import pytest
from matplotlib import pyplot

from sigmagraph.engine.sampling import SOLVERS
from tests.serving import CHECKOUT

CELLS = json.loads((CHECKOUT / "docs/four-solvers.ipynb").read_text(encoding="utf-8"))["cells"]


@pytest.fixture(scope="module")
def space() -> Any:
    names: dict[str, Any] = {"__name__": "__main__"}
    with mpl.rc_context({"backend": "Agg", "figure.max_open_warning": 0}):
        for number, cell in enumerate(CELLS):
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
        yield names
        pyplot.close("all")
    SOLVERS.discard("by_ratio")


@pytest.mark.parametrize(("name", "order"), [("euler", 1.0), ("heun", 2.0), ("dpmpp_2m", 2.0), ("deis", 3.0)])
def test_the_error_falls_as_the_notebook_says(space: Any, name: str, order: float) -> None:
    (fewer, coarse), (more, fine) = space["curves"][name][-2:]
    assert math.log(coarse / fine) / math.log(more / fewer) == pytest.approx(order, abs=0.3)


def test_the_solver_written_in_the_notebook_is_euler(space: Any) -> None:
    assert float((space["mine"] - space["theirs"]).abs().max()) < 1e-12


def test_both_figures_are_kept_in_the_file() -> None:
    pictures = [output for cell in CELLS for output in cell.get("outputs", ()) if "image/png" in output.get("data", {})]
    assert len(pictures) == 2
