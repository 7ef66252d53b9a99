"""Every sampler's picture replays: the same machine, the same bits; over the registry."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sigmagraph.engine.cli.app import app
from sigmagraph.engine.sampling import SOLVERS

Graphs = Callable[..., dict[str, Any]]
QUICK = ("dpmpp_2m", "euler_ancestral", "dpmpp_sde", "dpm_adaptive")
NAMES = sorted({*SOLVERS})


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in NAMES]
)
def test_a_replay_is_identical_with_every_sampler(home: Path, txt2img: Graphs, name: str) -> None:
    document = home / "workflow.json"
    document.write_text(json.dumps(txt2img(steps=4, sampler_name=name, seed=3)))
    places = ["--home", str(home), "--output", str(home / "out")]
    made = CliRunner().invoke(app, ["run", str(document), *places])
    assert made.exit_code == 0, made.output
    done = CliRunner().invoke(app, ["replay", made.stdout.strip(), "--json", *places])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert (answer["verdict"], answer["max_abs"], answer["differences"]) == ("identical", 0, [])
