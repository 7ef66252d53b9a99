"""`sigmagraph check FOLDER`: every file for itself, counted by how far it came."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.PngImagePlugin
import pytest
from typer.testing import CliRunner

from sigmagraph.engine import errors
from sigmagraph.engine.cli.app import app
from sigmagraph.engine.compose.survey import Surveyed, files_in, survey
from sigmagraph.engine.compose.workspace import Workspace
from sigmagraph.engine.graph.reading.document import read_file

SIZES = {"width": 8, "height": 8, "batch_size": 1, "color": 0}
GRAPH: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": SIZES},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}
DRAWING = {
    "nodes": [
        {"id": 1, "type": "EmptyImage", "outputs": [{"links": [1]}], "widgets_values": [8, 8, 1, 0]},
        {"id": 2, "type": "SaveImage", "inputs": [{"name": "images", "link": 1}], "widgets_values": ["y"]},
    ],
    "links": [[1, 1, 0, 2, 0, "IMAGE"]],
}


def folder(root: Path) -> Path:
    made = root / "files"
    made.mkdir()

    def loads(name: str) -> dict[str, Any]:
        return {**GRAPH, "1": {"class_type": "LoadImage", "inputs": {"image": name}}}

    texts = PIL.PngImagePlugin.PngInfo()
    texts.add_text("prompt", json.dumps(GRAPH))
    texts.add_text("workflow", json.dumps(DRAWING))
    PIL.Image.new("RGB", (1, 1)).save(made / "both.png", pnginfo=texts)
    PIL.Image.new("RGB", (1, 1)).save(made / "plain.png")
    documents = {
        "valid": GRAPH,
        "file": loads("nowhere.png"),
        "wrong": {**GRAPH, "1": {"class_type": "EmptyImage", "inputs": {**SIZES, "width": -1}}},
        "strange": {**GRAPH, "3": {"class_type": "Unheard", "inputs": {}}},
        "torn": {"nodes": [1]},
        "settings": {"colour": "blue"},
        "list": [1, 2],
    }
    for name, document in documents.items():
        (made / f"{name}.json").write_text(json.dumps(document))
    return made


def test_each_file_comes_as_far_as_it_can_and_the_totals_say_how_many(tmp_path: Path) -> None:
    command = ["check", str(folder(tmp_path)), "--json", "--home", str(tmp_path)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert {row["file"]: row["state"] for row in told["files"]} == {
        "both.png": "valid",
        "file.json": "files missing",
        "strange.json": "converted",
        "torn.json": "refused",
        "valid.json": "valid",
        "wrong.json": "understood",
    }
    assert told["totals"] == {
        "files": 6,
        "converted": 5,
        "understood": 4,
        "valid but for files": 3,
        "valid": 2,
        "pictures with both": 1,
        "of them equal": 1,
        "missing classes": [{"class": "Unheard", "files": 1}],
    }


def test_in_a_terminal_the_missing_classes_and_the_refused_files_are_listed(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["check", str(folder(tmp_path)), "--home", str(tmp_path)])
    assert "1 files lack Unheard" in done.stdout
    assert "refused: torn.json" in done.stdout


def test_a_picture_whose_drawing_cannot_be_read_is_that_pictures_trouble(tmp_path: Path) -> None:
    texts = PIL.PngImagePlugin.PngInfo()
    texts.add_text("prompt", json.dumps(GRAPH))
    texts.add_text("workflow", json.dumps({"nodes": [1]}))
    (tmp_path / "files").mkdir()
    PIL.Image.new("RGB", (1, 1)).save(tmp_path / "files" / "torn.png", pnginfo=texts)
    done = CliRunner().invoke(app, ["check", str(tmp_path / "files"), "--json", "--home", str(tmp_path)])
    assert done.exit_code == 0, done.stderr
    (row,) = json.loads(done.stdout)["files"]
    assert (row["state"], row["agrees"]) == ("valid", False)
    assert "drawing cannot be read" in row["warnings"][0]


def test_half_a_character_in_a_file_or_its_name_stops_no_list_of_files(tmp_path: Path) -> None:
    root, home = tmp_path / "files", tmp_path / "home"
    root.mkdir()
    (home / "models").mkdir(parents=True)
    (root / "odd\udcff.json").write_text('{"1": {"class_type": "\\ud800", "inputs": {}}}', encoding="utf-8")
    told = CliRunner().invoke(app, ["check", str(root), "--json", "--home", str(home)])
    assert told.exit_code == 0, told.output
    (record,) = json.loads(told.stdout)["files"]
    assert (record["file"], record["missing"]) == ("odd\udcff.json", ["\ud800"])
    assert CliRunner().invoke(app, ["check", str(root), "--home", str(home)]).exit_code == 0


@pytest.mark.parametrize(("command", "said"), [("check", "no workflow in it"), ("packs", "no node packs in it")])
def test_a_folder_with_nothing_to_look_at_is_an_error(tmp_path: Path, command: str, said: str) -> None:
    """A script that names the wrong folder must not hear that all is well."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files/notes.txt").write_text("nothing here")
    done = CliRunner().invoke(app, [command, str(tmp_path / "files"), "--home", str(tmp_path)])
    assert done.exit_code == 1
    assert said in done.stderr


def test_what_shows_no_trace_of_a_workflow_is_passed_over_and_what_does_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "files"
    root.mkdir()
    (root / "icon.svg").write_text('<!DOCTYPE svg><svg xmlns="http://www.w3.org/2000/svg"/>')
    (root / "elsewhere.png").write_text("version https://git-lfs.github.com/spec/v1")
    texts = PIL.PngImagePlugin.PngInfo()
    texts.add_text("workflow", json.dumps(DRAWING))
    PIL.Image.new("RGB", (1, 1)).save(root / "cut.png", pnginfo=texts)
    (root / "cut.png").write_bytes((root / "cut.png").read_bytes()[:120])
    (root / "cut.json").write_text('{"nodes": [')
    done = CliRunner().invoke(app, ["check", str(root), "--json", "--home", str(tmp_path)])
    assert {row["file"]: row["state"] for row in json.loads(done.stdout)["files"]} == {
        "cut.json": "refused",
        "cut.png": "refused",
    }


def test_unknown_classes_of_a_drawing_are_compared_with_no_known_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most drawings name classes of packs that are not here; a search for the nearest of 500 names takes 5 ms each."""
    compared: list[str] = []
    monkeypatch.setattr(errors, "nearest", lambda name, known: compared.append(name))
    (tmp_path / "files").mkdir()
    nodes = [{"id": at, "type": f"Unheard {at}"} for at in range(20)]
    (tmp_path / "files" / "strange.json").write_text(json.dumps({"nodes": nodes, "links": []}))
    done = CliRunner().invoke(app, ["check", str(tmp_path / "files"), "--json", "--home", str(tmp_path)])
    (row,) = json.loads(done.stdout)["files"]
    assert (row["state"], len(row["missing"]), compared) == ("converted", 20, [])


def test_processes_that_share_the_files_say_what_one_says_though_one_of_them_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = files_in(folder(tmp_path)) * 20
    space = Workspace(tmp_path, tmp_path / "output")
    known = tmp_path / "files", space.nodes, space.declarations, space.folders
    done: list[int] = []
    shared = list(survey(files, *known, processes=2, looked_at=done.append))
    assert sum(done) == len(files)

    read, here = read_file, os.getpid()

    def killed(path: Path) -> bytes:
        if path.name == "strange.json" and os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(path)

    monkeypatch.setattr("sigmagraph.engine.compose.survey.read_file", killed)
    after_a_kill = list(survey(files, *known, processes=2))
    monkeypatch.undo()
    alone = list(survey(files, *known, processes=1))
    assert [without_time(record) for record in alone] == [without_time(record) for record in shared]
    assert [without_time(record) for record in alone] == [without_time(record) for record in after_a_kill]


def without_time(record: Surveyed) -> Surveyed:
    return replace(record, ms=0.0)
