"""`sigmagraph packs`: what a folder of packs is, with and without running it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sigmagraph.engine.cli.app import app

WORKS = """
import subprocess, urllib.request
from comfy.utils import common_upscale


class Nothing:
    RETURN_TYPES, FUNCTION = (), "go"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def go(self):
        return (eval("1"),)


NODE_CLASS_MAPPINGS = {"Nothing": Nothing}
"""


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    folder = tmp_path / "packs"
    (folder / "works").mkdir(parents=True)
    (folder / "works/__init__.py").write_text(WORKS)
    (folder / "works/LICENSE").write_text("Permission is hereby granted, free of charge, to any person")
    (folder / "bends.py").write_text("raise RuntimeError('not today')\n")
    (folder / "torn.py").write_text("def\n")
    return folder


def test_it_says_what_loads_what_is_reached_for_and_the_licence(packs: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["packs", str(packs), "--json", "--home", str(tmp_path)])
    assert done.exit_code == 0, done.stderr
    bends, torn, works = json.loads(done.stdout)
    assert works["reaches"] == {"network": ["urllib"], "processes": ["subprocess"], "code": ["eval()"]}
    assert (works["licence"], works["imports"]) == ("MIT", ["comfy.utils.common_upscale"])
    assert (works["loads"], works["classes"], works["problems"]) == (True, ["Nothing"], [])
    assert bends["problems"] == ["RuntimeError: not today (bends.py:1)"]
    assert "torn.py" in torn["unreadable"][0]


def test_without_loading_no_code_of_a_pack_runs(packs: Path, tmp_path: Path) -> None:
    (packs / "marks.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    done = CliRunner().invoke(app, ["packs", str(packs), "--no-load"])
    assert done.exit_code == 0
    assert not (tmp_path / "ran").exists()
    assert "works: licence MIT\n    network: urllib\n" in done.stdout


PRINTS = """
import subprocess

class Says:
    RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "go", True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def go(self):
        subprocess.run(["echo", "a line of its program"])
        print("a line of the node")
        return {}

print("loaded")
subprocess.run(["echo", "Collecting"])
NODE_CLASS_MAPPINGS = {"Says": Says}
"""


@pytest.mark.parametrize("command", ["packs", "check", "nodes", "run"])
def test_what_packs_and_their_programs_print_is_not_in_the_answer(command: str, packs: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (packs / "installs.py").write_text(PRINTS)
    graph = tmp_path / "graph.json"
    graph.write_text('{"1": {"class_type": "Says", "inputs": {}}}')
    loads = ["--custom-nodes", packs]
    rest = {"packs": [packs], "check": [tmp_path, *loads], "nodes": loads, "run": [graph, *loads]}[command]
    run = [sys.executable, "-m", "sigmagraph", command, *map(str, rest), "--json", "--home", str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=120)
    assert json.loads(done.stdout), done.stderr
    told = ["loaded", "Collecting", *(["a line of the node", "a line of its program"] if command == "run" else [])]
    assert all(line in done.stderr.splitlines() for line in told)


def test_a_command_without_standard_output_works(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sigmagraph", "plan", "graph.json", "--home", str(tmp_path)]
    (tmp_path / "graph.json").write_text('{"1": {"class_type": "PreviewAny", "inputs": {"source": 1}}}')
    done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *command], stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "1 of 1 node would run\n")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["packs", str(tmp_path / "nope")])
    assert (done.exit_code, done.stderr) == (1, f"error: {tmp_path}/nope: there is no such folder of node packs\n")
