"""What ships beside the code: README's commands, the saved workflows."""

import re
import shlex
from pathlib import Path

import pytest

from sigmagraph.engine.cli.app import app
from sigmagraph.engine.errors import InvalidWorkflow
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.graph.problems import Problem
from sigmagraph.engine.graph.reading.document import load_workflow
from sigmagraph.engine.graph.validate import validate
from sigmagraph.nodes import NODES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
WORKFLOWS = sorted(path.name for path in (ROOT / "workflows").glob("*.json"))


def problems(name: str, folders: Folders) -> list[Problem]:
    workflow = load_workflow(
        ROOT / "workflows" / name, {class_type: node.object_info(folders) for class_type, node in NODES.items()}
    )
    try:
        return list(validate(workflow, NODES, folders).problems)
    except InvalidWorkflow as invalid:
        return [problem for problem in invalid.problems if isinstance(problem, Problem)]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_shipped_workflow_lacks_nothing_but_official_weights(name: str) -> None:
    folders = Folders(ROOT / "models", ROOT / "input", ROOT / "output", ROOT / "temp")
    found = problems(name, folders)
    found = [problem for problem in found if (name, problem.received) != ("repaint.json", "")]  # a picture of one's own
    assert all(problem.code == "value_not_in_list" and ".safetensors" in str(problem.received) for problem in found)


def test_the_demo_workflow_needs_the_demo_checkpoint_alone(tmp_path: Path) -> None:
    empty = Folders(tmp_path / "models", tmp_path / "input", tmp_path / "output", tmp_path / "temp")
    assert [problem.received for problem in problems("txt2img.json", empty)] == ["sigmagraph-demo.safetensors"]


def test_readme_names_commands_and_workflows_that_exist() -> None:
    lines = [line for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.splitlines()]
    used = [shlex.split(line.split("bin/sigmagraph ")[1]) for line in lines if "bin/sigmagraph " in line]
    commands = {command.callback.__name__ for command in app.registered_commands if command.callback is not None}
    assert {arguments[0] for arguments in used} <= commands
    for arguments in used:
        for word in arguments:
            assert not word.startswith("workflows/") or (ROOT / word).is_file()


def test_readme_has_one_demo_command_and_one_test_command() -> None:
    for kind in ("demo", "test"):
        [command] = re.findall(rf"<!-- {kind} command -->\n```sh\n(.*)\n```", README)
        assert command.startswith("python3 -m venv .venv && ")
