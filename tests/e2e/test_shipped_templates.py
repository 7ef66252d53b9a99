"""The templates that come with the program make the pictures that stand beside them."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sigmagraph.engine.cli.app import app

WORKFLOWS = Path(__file__).parents[2] / "workflows"
DEMO = sorted(path.stem for path in WORKFLOWS.glob("*.webp"))
OWN = {"repaint"}  # begins with a picture of one's own
LEAST_DB = 30.0  # the pictures beside them are kept small, as lossy WebP: 32 to 43 dB


def psnr(one: Image.Image, other: Image.Image) -> float:
    first, second = (np.asarray(picture.convert("RGB"), dtype=np.float64) for picture in (one, other))
    error = float(np.mean((first - second) ** 2))
    return 10 * math.log10(255**2 / error) if error else math.inf


@pytest.mark.parametrize("name", DEMO)
def test_a_template_makes_the_picture_beside_it(name: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["run", str(WORKFLOWS / f"{name}.json"), "--output", str(tmp_path)])
    assert done.exit_code == 0, done.output
    with Image.open(done.stdout.split()[-1]) as made, Image.open(WORKFLOWS / f"{name}.webp") as shown:
        assert made.size == shown.size
        assert psnr(made, shown) > LEAST_DB


def test_every_template_is_described() -> None:
    named = {path.stem for path in WORKFLOWS.glob("*.json")}
    assert {path.stem for path in WORKFLOWS.glob("*.md")} == named
    assert set(DEMO) == {name for name in named if not name.startswith("sd3.5")} - OWN
