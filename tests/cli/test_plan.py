import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sigmagraph.engine.cli.app import app
from tests.cli.test_packs import PACK

PLAIN = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 255}},
    "2": {
        "class_type": "SaveImage",
        "inputs": {"images": ["1", 0], "filename_prefix": "x"},
        "_meta": {"title": "keep"},
    },
}


def written(folder: Path, document: object) -> str:
    path = folder / "workflow.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return str(path)


def test_plan_prints_what_would_run_and_what_each_node_needs(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["plan", written(tmp_path, PLAIN), "--home", str(tmp_path)])
    assert done.exit_code == 0, done.output
    rows = {line.split()[0]: line for line in done.stdout.splitlines()[1:]}
    assert "EmptyImage" in rows["1"]
    assert "runs" in rows["1"]
    assert "keep" in rows["2"]
    assert "images <- 1.0" in rows["2"]
    assert "2 of 2 nodes would run" in done.stderr


def test_a_run_can_leave_a_trace_and_fill_the_disk_cache_that_plan_then_finds(tmp_path: Path) -> None:
    arguments = [written(tmp_path, PLAIN), "--home", str(tmp_path), "--cache", "memory=64MiB,disk=64MiB"]
    trace, output = tmp_path / "trace.json", tmp_path / "out"
    done = CliRunner().invoke(app, ["run", *arguments, "--trace", str(trace), "--output", str(output)])
    assert done.exit_code == 0, done.output
    names = [record["name"] for record in json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]]
    assert names.count("SaveImage") == 2
    assert done.stdout.strip().endswith(".png")


def test_a_wrong_budget_is_one_message(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["plan", written(tmp_path, PLAIN), "--home", str(tmp_path), "--cache", "lots"])
    assert done.exit_code == 1
    assert "such as memory=4GiB,disk=20GiB" in done.stderr


@pytest.mark.usefixtures("offered_names")
def test_custom_nodes_load_only_from_folders_that_are_named(tmp_path: Path) -> None:
    (tmp_path / "packs").mkdir()
    (tmp_path / "packs/half.py").write_text(PACK, encoding="utf-8")
    halved = {**PLAIN, "3": {"class_type": "Half", "inputs": {"image": ["1", 0], "sampler": "euler"}}}
    halved["2"] = {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}}
    arguments = ["plan", written(tmp_path, halved), "--home", str(tmp_path)]
    assert "there is no node class 'Half'" in CliRunner().invoke(app, arguments).stderr
    named = CliRunner().invoke(app, [*arguments, "--custom-nodes", str(tmp_path / "packs")])
    assert named.exit_code == 0, named.output
    assert "nodes: half [" in named.stderr
