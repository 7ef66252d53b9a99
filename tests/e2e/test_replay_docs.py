"""The guide to replays tells the truth: its commands run, its paths are routes."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.cli.app import app
from engine.server.replay import REPLAY_ROWS
from engine.server.workflows import WORKFLOW_ROWS

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs/replay.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```console\n(.*?)```", GUIDE, re.DOTALL)


def test_the_commands_give_what_the_guide_shows(
    home: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "models/checkpoints/sigmagraph-demo.safetensors").symlink_to(tiny_checkpoint)
    (home / "workflows").symlink_to(ROOT / "workflows")
    monkeypatch.chdir(home)
    lines = BLOCKS[0].splitlines()
    commands = [at for at, line in enumerate(lines) if line.startswith("$ ")]
    for at, end in zip(commands, [*commands[1:], len(lines)], strict=True):
        [program, *arguments] = shlex.split(lines[at].removeprefix("$ "))
        assert program == "sigmagraph"
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        assert done.stdout.replace(f"{home}/", "").splitlines() == lines[at + 1 : end]


def test_every_path_in_the_guide_is_a_route() -> None:
    patterns = [re.compile(re.sub(r"\{\w+\}", "[^/]+", path)) for _, path, _ in (*REPLAY_ROWS, *WORKFLOW_ROWS)]
    paths = re.findall(r"http://127\.0\.0\.1:8188(/[\w/]+)", GUIDE)
    assert len(paths) == 9
    assert [path for path in paths if not any(pattern.fullmatch(path) for pattern in patterns)] == []
