"""`--json` on every command that reports, tables that keep names whole, and what every command takes."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from sigmagraph.engine.cli import console
from sigmagraph.engine.cli.app import app
from sigmagraph.engine.sampling import SCHEDULES, SOLVERS
from sigmagraph.nodes import NODES
from tests.cli.test_packs import PACK
from tests.cli.test_plan import PLAIN, written
from tests.serving import CHECKOUT

REPORTING = (
    *("check", "plan", "nodes", "samplers", "models", "run", "compare", "replay"),
    *("conform", "convert", "endpoints", "endpoints check", "endpoints try", "fetch", "packs", "publish", "workers"),
    *("keys create", "keys list", "keys revoke", "keys credit"),
)
READING = ("check", "plan", "nodes", "run", "compare", "replay", "publish", "samplers", "conform", "endpoints try")


def answer(*arguments: str, code: int = 0) -> Any:
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def test_check_answers_with_every_problem(tmp_path: Path) -> None:
    home = ["--home", str(tmp_path)]
    assert answer("check", written(tmp_path, PLAIN), *home) == {
        "valid": True,
        "nodes": 2,
        "outputs": ["2"],
        "problems": [],
        "warnings": [],
    }
    wrong = answer("check", written(tmp_path, PLAIN), "--set", "EmptyImage.width=0", *home, code=1)
    assert wrong["valid"] is False
    assert (wrong["problems"][0]["node_id"], wrong["problems"][0]["input"]) == ("1", "width")


def test_plan_and_run_answer_node_by_node(tmp_path: Path) -> None:
    home = [written(tmp_path, PLAIN), "--home", str(tmp_path)]
    assert [(row["node_id"], row["fate"]) for row in answer("plan", *home)] == [("1", "runs"), ("2", "runs")]
    ran = answer("run", *home, "--output", str(tmp_path / "out"))
    assert Path(ran["images"][0]).is_file()
    assert ran["nodes"]["2"]["outcome"] == "executed"
    assert ran["networks"] == []
    assert set(ran["compiled"]) == {"graphs", "recompiles", "failure"}


def test_lists_answer_with_everything_that_is_declared(home: Path) -> None:
    nodes = answer("nodes", "--home", str(home))
    assert set(nodes) == set(NODES)
    assert nodes["KSampler"]["input"]["required"]["steps"][0] == "INT"
    samplers = answer("samplers")
    assert set(samplers) == set(SOLVERS)
    assert (samplers["heun"]["order"], samplers["heun"]["noise"]) == (2, "none")
    assert set(answer("samplers", "--schedules")) == set(SCHEDULES)
    assert answer("samplers", "karras")["karras"]["options"]["rho"]["default"] == 7.0
    [found] = answer("models", "--home", str(home))
    assert (found["folder"], found["file"]) == ("checkpoints", "tiny.safetensors")
    assert set(answer("endpoints")) >= {"stable-diffusion-3.5-large-txt2img"}


def test_keys_answer_once_with_the_key_and_then_without(tmp_path: Path) -> None:
    (tmp_path / "user").mkdir()
    made = answer("keys", "create", "ann", "--credits", "2.5", "--home", str(tmp_path))
    [listed] = answer("keys", "list", "--home", str(tmp_path))
    assert len(made.pop("key")) > 20
    assert made == listed
    assert (listed["name"], listed["credits"], listed["revoked"]) == ("ann", 2.5, False)
    assert answer("keys", "credit", made["id"], "1.5", "--home", str(tmp_path))["credits"] == 4.0
    assert answer("keys", "revoke", made["id"], "--home", str(tmp_path))["revoked"] is True


@pytest.mark.parametrize("command", REPORTING)
def test_every_command_that_reports_offers_json(command: str) -> None:
    assert "--json" in CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "200"}).stdout


@pytest.mark.parametrize("command", READING)
def test_every_command_that_reads_a_workflow_takes_packs_and_plugins(command: str) -> None:
    shown = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "200"}).stdout
    assert "--custom-nodes" in shown
    assert "--plugin" in shown


@pytest.mark.usefixtures("offered_names")
def test_a_picture_made_with_a_pack_is_replayed_with_it(tmp_path: Path) -> None:
    (tmp_path / "packs").mkdir()
    (tmp_path / "packs/half.py").write_text(PACK, encoding="utf-8")
    graph = {
        "1": PLAIN["1"],
        "2": {"class_type": "Half", "inputs": {"image": ["1", 0], "sampler": "euler"}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "half"}},
    }
    options = ["--home", str(tmp_path), "--output", str(tmp_path / "out"), "--custom-nodes", str(tmp_path / "packs")]
    ran = answer("run", written(tmp_path, graph), *options)
    assert answer("replay", ran["images"][0], *options)["verdict"] == "identical"


def test_tables_of_eighty_columns_keep_every_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, names in ((["nodes"], NODES), (["samplers"], SOLVERS), (["samplers", "--schedules"], SCHEDULES)):
        made = Console(width=80, highlight=False)
        monkeypatch.setattr(console, "out", lambda made=made: made)
        with made.capture() as captured:
            CliRunner().invoke(app, arguments)
        lines = captured.get().splitlines()
        assert max(len(line) for line in lines) <= 80
        shown = {line.lstrip().partition("  ")[0].rstrip() for line in lines}  # a node's name may have a blank in it
        assert set(names) - shown == set()


def test_the_table_of_keys_fits_eighty_columns_and_folds_between_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "user").mkdir()
    made = answer("keys", "create", "ann", "--credits", "100", "--endpoint", "e-1", "--home", str(tmp_path))
    console_80 = Console(width=80, highlight=False)
    monkeypatch.setattr(console, "out", lambda: console_80)
    with console_80.capture() as captured:
        CliRunner().invoke(app, ["keys", "list", "--home", str(tmp_path)])
    lines = captured.get().splitlines()
    assert max(len(line) for line in lines) <= 80
    assert lines[0].split() == ["id", "name", "key", "state", "credits", "held", "spent", "may"]
    words = lines[1].split()
    assert (words[0], words[1], words[3:7]) == (made["id"], "ann", ["works", "100", "0", "0"])


def test_the_version_is_the_distributions() -> None:
    from importlib.metadata import version

    assert CliRunner().invoke(app, ["--version"]).stdout == f"sigmagraph {version('sigmagraph')}\n"
    assert "--install-completion" in CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).stdout


def test_a_home_that_is_not_there_is_named() -> None:
    done = CliRunner().invoke(app, ["models"], env={"SIGMAGRAPH_HOME": "/nope"})
    assert (done.exit_code, done.stderr) == (
        1,
        "error: /nope: there is no such folder; --home or SIGMAGRAPH_HOME names it\n",
    )


def test_what_a_run_and_a_server_write_is_ignored_by_git() -> None:
    ignored = (CHECKOUT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {"/output/", "/temp/", "/user/", "/cache/", "/input/*", ".fetch/"} <= set(ignored)


def test_the_order_is_told_as_the_documentation_tells_it() -> None:
    listed = {line.split()[0]: line.split()[1] for line in CliRunner().invoke(app, ["samplers"]).stdout.splitlines()}
    assert (listed["cfgpp_ud10_ab"], listed["dpm_adaptive"]) == ("-", "3")
    assert "order 3, adaptive evaluations" in CliRunner().invoke(app, ["samplers", "dpm_adaptive"]).stdout
