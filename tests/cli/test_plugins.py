import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PLUGIN = '''
from itertools import pairwise

from engine.sampling import Evaluate, Step, schedule, solver


@solver("halfway", order=1, source="a test")
def halfway(x, sigmas, ctx):
    """Straight to the estimate, half of the way each step."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield Evaluate(x, sigma)
        x = denoised + (x - denoised) * (sigma_next / sigma)
        yield Step(x, denoised)
    return x


@schedule("thirds", source="a test")
def thirds(levels, steps):
    """Each level a third of the one before; then 0."""
    return [levels.sigma_max / 3**i for i in range(steps)] + [0.0]
'''


def sigmagraph(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: plugins must not stay in this one's registries."""
    program = "from engine.cli.app import main\nmain()"
    command = [sys.executable, "-B", "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    path = tmp_path / "my_sampler.py"
    path.write_text(PLUGIN)
    return str(path)


def test_a_sampler_in_a_file_runs_in_a_graph(home: Path, plugin: str, txt2img: Callable[..., Any]) -> None:
    path = home / "workflow.json"
    path.write_text(json.dumps(txt2img(sampler_name="halfway", scheduler="thirds")))
    arguments = ["run", str(path), "--home", str(home), "--output", str(home / "out")]
    without = sigmagraph(*arguments)
    assert without.returncode == 1
    assert "'halfway' is not in the list" in without.stderr
    done = sigmagraph(*arguments, "--plugin", plugin)
    assert done.returncode == 0, done.stderr
    assert (home / "out/picture_00001_.png").is_file()


def test_a_sampler_in_a_file_is_listed_with_the_others(home: Path, plugin: str) -> None:
    shown = sigmagraph("samplers", "halfway", "--plugin", plugin)
    assert "halfway@1" in shown.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import nothing_of_that_name", "No module named 'nothing_of_that_name'"),
        ("def (", "SyntaxError"),
        (
            "from engine.sampling import solver\nsolver('euler', order=1)(lambda x, sigmas, ctx: x)",
            "registered already",
        ),
    ],
)
def test_a_file_that_does_not_load_is_one_message(home: Path, tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    done = sigmagraph("samplers", "--plugin", str(path))
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_not_there_is_one_message(home: Path) -> None:
    done = sigmagraph("samplers", "--plugin", str(home / "nowhere.py"))
    assert done.returncode == 1
    assert "there is no such plugin file" in done.stderr
