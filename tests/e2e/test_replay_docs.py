"""The guide to replays tells the truth: its commands run, its paths are routes."""

import json
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sigmagraph.engine.cli.app import app
from sigmagraph.engine.server.comfy.routes import RUNNING
from sigmagraph.engine.server.replay import REPLAY_ROWS
from sigmagraph.engine.server.workflows import WORKFLOW_ROWS
from tests.e2e.disasters.processes import Server

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


def test_the_requests_are_answered(home: Path, tiny_checkpoint: Path) -> None:
    """Every `curl` of the guide, in its order, against a server on this home."""
    (home / "models/checkpoints/sigmagraph-demo.safetensors").symlink_to(tiny_checkpoint)
    (home / "workflows").symlink_to(ROOT / "workflows")
    (home / "output").symlink_to(home / "out")
    server = Server(home)
    server.start()
    try:
        made = server.call("/replay", {"workflow": json.loads((ROOT / "workflows/txt2img.json").read_text())})
        assert made["image"]["filename"] == "sigmagraph_00001_.png"
        commands = [line.removeprefix("$ ") for block in BLOCKS for line in block.splitlines() if "$ curl" in line]
        assert len(commands) == 13
        for command in commands:
            local = command.replace("127.0.0.1:8188", f"127.0.0.1:{server.port}").replace(
                "curl ", "curl -sS --fail ", 1
            )
            done = subprocess.run(["bash", "-c", local], cwd=home, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, (command, done.stdout, done.stderr)
            check(command, done.stdout)
    finally:
        server.end(signal.SIGKILL)


def check(command: str, answer: str) -> None:
    """What the guide says comes back."""
    if command.endswith("/replay") and "dry_run" not in command and "wait_s" not in command:
        assert json.loads(answer)["verdict"] == "identical"
    if "dry_run" in command:
        assert [difference["field"] for difference in json.loads(answer)["differences"]] == ["graph.5 (KSampler).steps"]
    if command.endswith("/events"):
        first = 4 if "Last-Event-ID" in command else 1
        assert answer.startswith(f"id: {first}\n")
        assert "event: Ended" in answer


def test_every_path_in_the_guide_is_a_route() -> None:
    rows = (*REPLAY_ROWS, *WORKFLOW_ROWS, *RUNNING)
    patterns = [re.compile(re.sub(r"\{\w+\}", "[^/]+", path)) for _, path, _ in rows]
    paths = re.findall(r"http://127\.0\.0\.1:8188(/[\w/-]+)", GUIDE)
    assert len(paths) == 13
    assert [path for path in paths if not any(pattern.fullmatch(path) for pattern in patterns)] == []
