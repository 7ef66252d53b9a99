import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from sigmagraph.engine.cli.app import app
from sigmagraph.engine.compose.comparison.cells import Cell, CellOutcome
from sigmagraph.engine.compose.comparison.measures import distances
from sigmagraph.engine.compose.comparison.sheet import contact_sheet
from sigmagraph.nodes.sampling.step_caches import written_cache

Graphs = Callable[..., dict[str, Any]]


def compare(home: Path, document: Any, *more: str) -> Result:
    path = home / "workflow.json"
    path.write_text(json.dumps(document))
    arguments = ["compare", str(path), "--home", str(home), "--output", str(home / "out"), *more]
    return CliRunner().invoke(app, arguments)


def cells(home: Path) -> list[dict[str, str]]:
    with (home / "out/cells.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_combination_is_run_and_measured(home: Path, txt2img: Graphs) -> None:
    options = [
        "--samplers",
        "euler,heun",
        "--schedules",
        "normal,karras",
        "--steps",
        "2,4",
        "--reference",
        "heun/normal/16",
    ]
    done = compare(home, txt2img(), *options, "--reference", "heun/normal/16")
    assert done.exit_code == 0, done.output
    found = cells(home)
    assert len(found) == 8
    assert [int(row["evaluations"]) for row in found if row["schedule"] == "normal"] == [2, 4, 3, 7]
    distance = {(row["sampler"], row["schedule"], row["steps"]): float(row["distance"]) for row in found}
    assert distance["euler", "normal", "4"] < distance["euler", "normal", "2"]
    assert distance["heun", "normal", "4"] < distance["euler", "normal", "4"]
    names = {path.name for path in (home / "out").iterdir()}
    assert names == {"cells.csv", "contact_sheet.png", "work_precision.png", "sigmas.png"}
    assert sorted(done.stdout.split()) == sorted(str(home / "out" / name) for name in names)


def test_the_reference_itself_is_at_no_distance(home: Path, txt2img: Graphs) -> None:
    done = compare(home, txt2img(), "--samplers", "euler", "--steps", "3", "--reference", "euler/sgm_uniform/3")
    assert done.exit_code == 0, done.output
    assert float(cells(home)[0]["distance"]) == 0.0


def test_a_first_revision_is_the_bare_name_where_comfyui_still_computes_it(home: Path, txt2img: Graphs) -> None:
    options = ["--samplers", "dpmpp_2m@1,dpmpp_2m,dpmpp_2m@2,ddpm@1,ddpm", "--schedules", "normal@1", "--steps", "2"]
    done = compare(home, txt2img(), *options, "--reference", "euler@1/simple@1/2")
    assert done.exit_code == 0, done.output
    assert [row["sampler"] for row in cells(home)] == ["dpmpp_2m", "dpmpp_2m@2", "ddpm@1", "ddpm"]


def test_where_matplotlib_cannot_be_imported_sheet_and_table_are_still_written(
    home: Path, txt2img: Graphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # there, and broken: the import fails
    done = compare(home, txt2img(), "--samplers", "euler", "--steps", "2", "--reference", "euler/simple/2")
    assert done.exit_code == 0, done.output
    assert {path.name for path in (home / "out").iterdir()} == {"cells.csv", "contact_sheet.png"}
    assert "pip install 'sigmagraph[plots]'" in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--steps", "4,many"], "whole numbers above 0"),
        (["--steps", "0"], "whole numbers above 0"),
        (["--reference", "heun"], "SAMPLER/SCHEDULE"),
        (["--samplers", "eulr"], "did you mean 'euler'"),
        (["--samplers", " ,"], "names, separated by commas"),
        (["--schedules", ""], "--schedules"),
        (["--schedules", "normla"], "did you mean 'normal'"),
    ],
)
def test_bad_options_are_told_before_anything_runs(home: Path, txt2img: Graphs, options: list[str], words: str) -> None:
    done = compare(home, txt2img(), *options)
    assert done.exit_code == 1
    assert words in done.stderr
    assert not list((home / "out").glob("*"))


def test_a_workflow_without_one_sampler_is_refused(home: Path, txt2img: Graphs) -> None:
    graph = txt2img()
    graph["15"] = graph["5"]
    assert "2 of them: nodes 5, 15" in compare(home, graph).stderr
    del graph["15"], graph["6"]
    assert "a VAEDecode behind node 5" in compare(home, graph).stderr


def test_distance_is_relative_to_the_spread_of_the_reference() -> None:
    reference = torch.randn(1, 16, 8, 8) * 3
    cell = Cell("a", "b", 1)
    [distance] = distances([CellOutcome(cell, latent=reference + 0.3)], reference).values()
    assert distance == pytest.approx(0.3 / float(reference.std()))


def test_a_failed_cell_has_its_place_on_the_sheet(tmp_path: Path) -> None:
    red = torch.tensor([1.0, 0.0, 0.0]).expand(32, 48, 3)
    outcomes = [CellOutcome(Cell("a", "b", 1), picture=red), CellOutcome(Cell("a", "b", 2), problem="NaN")]
    (tmp_path / "a.png").write_bytes(contact_sheet(outcomes))
    with Image.open(tmp_path / "a.png") as sheet:
        colours = {colour for _, colour in sheet.getcolors(100_000) or []}
    assert (255, 0, 0) in colours
    assert (179, 38, 30) in colours


def test_guidance_has_a_reference_of_its_own_and_a_column(home: Path, txt2img: Graphs) -> None:
    options = ["--samplers", "euler", "--steps", "2,3", "--guidance", "1,5", "--reference", "euler/sgm_uniform/3"]
    done = compare(home, txt2img(), *options)
    assert done.exit_code == 0, done.output
    away = {(row["steps"], row["guidance"]): float(row["distance"]) for row in cells(home)}
    assert away["3", "1"] == away["3", "5"] == 0.0
    assert 0 < away["2", "1"] != away["2", "5"] > 0
    refused = compare(home, txt2img(), "--samplers", "euler", "--guidance", "high")
    assert refused.exit_code != 0
    assert "--guidance: 'high'" in refused.stderr


def test_step_caches_are_compared_with_the_same_run_without_one(home: Path, txt2img: Graphs) -> None:
    options = ["--samplers", "euler", "--schedules", "normal", "--steps", "6", "--reference", "euler/normal/12"]
    done = compare(home, txt2img(), *options, "--caches", "taylorseer:2,easycache:0")
    assert done.exit_code == 0, done.output
    plain, taylor, easy = cells(home)
    assert [row["cache"] for row in (plain, taylor, easy)] == ["", "taylorseer:2", "easycache:0"]
    assert [float(row["evaluations"]) for row in (plain, taylor, easy)] == [6, 4, 6]
    assert (plain["drift"], plain["drift_estimate"]) == ("", "")
    assert 0 < float(taylor["drift"]) < 1
    assert float(easy["distance"]) == float(plain["distance"]) != float(taylor["distance"])
    assert float(taylor["drift_estimate"]) > 0
    assert (float(easy["drift"]), float(easy["drift_estimate"])) == (0, 0)
    done = compare(home, txt2img(), *options, "--caches", "teacache")
    assert done.exit_code == 1
    assert "NAME:NUMBER" in done.output


def test_a_plan_says_that_a_step_caches_skips_are_not_known_before(home: Path, txt2img: Graphs) -> None:
    graph = txt2img(model=["9", 0])
    graph["9"] = {"class_type": "ApplyFBCacheOnModel", "inputs": {"model": ["1", 0]}}
    for name, value in written_cache("first_block:0.1")[1].items():
        graph["9"]["inputs"][name] = value
    (home / "workflow.json").write_text(json.dumps(graph))
    done = CliRunner().invoke(app, ["plan", str(home / "workflow.json"), "--home", str(home)])
    assert done.exit_code == 0, done.output
    assert "step cache in node 9" in " ".join(done.output.split())
