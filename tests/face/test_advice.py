"""docs/advice.md says what its measurements say."""

import csv
import math
import re

from tests.serving import CHECKOUT

PAGE = (CHECKOUT / "docs/advice.md").read_text(encoding="utf-8")
ROWS = list(csv.DictReader((CHECKOUT / "docs/compare/cells.csv").read_text(encoding="utf-8").splitlines()))


def mean(sampler: str, schedule: str, steps: int) -> float:
    """The distance as the page gives it: root mean square over the seeds."""
    chosen = [row for row in ROWS if (row["sampler"], row["schedule"], row["steps"]) == (sampler, schedule, str(steps))]
    return math.sqrt(sum(float(row["distance"]) ** 2 for row in chosen) / len(chosen))


def test_every_figure_of_the_table_is_the_measured_one() -> None:
    [head, _, *lines] = re.findall(r"^\|.*\|$", PAGE.partition("## Measured")[2], re.MULTILINE)
    counts = [int(word) for word in re.findall(r"(\d+) steps", head)]
    assert len(lines) >= 8
    for line in lines:
        sampler, schedule, evaluations, *figures = (cell.strip(" `*") for cell in line.strip("|").split("|"))
        cost = next(row["evaluations"] for row in ROWS if row["sampler"] == sampler and row["steps"] == str(counts[-1]))
        assert math.isclose(float(evaluations), int(cost) / counts[-1], abs_tol=0.05)
        assert figures == [f"{mean(sampler, schedule, steps):.3f}" for steps in counts], line
