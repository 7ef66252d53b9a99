import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sigmagraph.engine.cli.app import app
from sigmagraph.engine.server.library import Library, Stored

Graphs = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(("command", "said"), [("run", "picture_00001_.png"), ("replay", "nothing to compare")])
def test_a_command_takes_the_name_of_a_stored_workflow(home: Path, txt2img: Graphs, command: str, said: str) -> None:
    Library(home / "user/default/stored").save(Stored("shapes", 0, 0.0, txt2img()))
    arguments = [command, "shapes", "--home", str(home), "--output", str(home / "out")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert said in done.stdout


def test_a_file_of_that_name_wins(home: Path, txt2img: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    Library(home / "user/default/stored").save(Stored("shapes", 0, 0.0, {}))
    monkeypatch.chdir(home)
    Path("shapes").write_text(json.dumps(txt2img()))
    done = CliRunner().invoke(app, ["run", "shapes", "--home", str(home), "--output", str(home / "out")])
    assert done.exit_code == 0, done.output
