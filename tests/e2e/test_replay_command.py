import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image, PngImagePlugin
from typer.testing import CliRunner, Result

from sigmagraph.engine.cli.app import app
from tests.tiny import write_checkpoint

Graphs = Callable[..., dict[str, Any]]


def command(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--home", str(home), "--output", str(home / "out")])


@pytest.fixture
def made(home: Path, txt2img: Graphs) -> Path:
    """A picture of the tiny checkpoint."""
    path = home / "workflow.json"
    path.write_text(json.dumps(txt2img()))
    done = command(home, "run", str(path))
    assert done.exit_code == 0, done.output
    return Path(done.stdout.strip())


def test_the_same_machine_makes_the_same_picture(home: Path, made: Path) -> None:
    done = command(home, "replay", str(made))
    assert done.exit_code == 0, done.output
    first, second = done.stdout.splitlines()
    assert first == "identical"
    assert Path(second).read_bytes() == made.read_bytes()


def test_a_picture_carries_a_lock_without_time_or_place(home: Path, made: Path) -> None:
    with Image.open(made) as picture:
        lock = json.loads(picture.text["lock"])  # type: ignore[attr-defined]
    assert sorted(lock) == ["environment", "files", "form", "graph", "image", "nodes", "output", "samplers"]
    assert lock["samplers"] == {"euler": 1, "normal": 1}
    assert list(lock["files"]) == ["checkpoints/tiny.safetensors"]
    assert sorted(lock["nodes"]) == list("1234567")
    assert lock["environment"]["precision"] == "float32"
    assert str(home) not in json.dumps(lock)


def test_a_changed_input_is_named_by_a_title_and_makes_another_picture(home: Path, made: Path) -> None:
    done = command(home, "replay", str(made), "--set", "Prompt.text=a blue square", "--set", "KSampler.steps=3")
    assert done.exit_code == 3, done.output
    assert done.stdout.startswith("different: max abs ")
    assert "graph.2 (CLIPTextEncode).text: was 'a red circle', now 'a blue square'" in done.stdout
    assert "graph.5 (KSampler).steps: was 2, now 3" in done.stdout


def test_a_dry_run_names_a_changed_weight_file_and_runs_nothing(home: Path, made: Path) -> None:
    target = home / "models/checkpoints/tiny.safetensors"
    target.unlink()
    write_checkpoint(target, seed=1)
    before = sorted((home / "out").iterdir())
    done = command(home, "replay", str(made), "--dry-run")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("files.checkpoints/tiny.safetensors: was ")
    assert len(done.stdout.splitlines()) == 1
    assert sorted((home / "out").iterdir()) == before


def test_a_dry_run_of_an_unchanged_picture_finds_nothing(home: Path, made: Path) -> None:
    assert command(home, "replay", str(made), "--dry-run").stdout == "nothing recorded differs\n"


def test_another_sampler_revision_is_named(home: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sigmagraph.nodes.support.provenance.revisions", lambda names: {name: 2 for _, name in names})
    done = command(home, "replay", str(made), "--dry-run")
    assert done.stdout == "samplers.euler: was 1, now 2\nsamplers.normal: was 1, now 2\n"


def test_another_precision_or_version_is_named(home: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sigmagraph.nodes.support import provenance

    now = provenance.environment() | {"precision": "bfloat16", "torch": "9.9"}
    monkeypatch.setattr(provenance, "environment", lambda: now)
    monkeypatch.setattr(provenance, "RESIDENCY", SimpleNamespace(precisions={}))  # no file was computed with yet
    done = command(home, "replay", str(made), "--dry-run", "--json")
    named = [line.split(":")[0] for line in json.loads(done.stdout)["differences"]]
    assert named == ["environment.precision", "environment.torch"]


def test_another_node_schema_is_named(home: Path, made: Path, tmp_path: Path) -> None:
    with Image.open(made) as picture:
        texts = dict(picture.text)  # type: ignore[attr-defined]
        lock = json.loads(texts["lock"])
        lock["nodes"]["5"] = "KSampler 0123456789abcdef.1"
        texts["lock"] = json.dumps(lock)
        chunks = PngImagePlugin.PngInfo()
        for name, text in texts.items():
            chunks.add_text(name, text)
        old = tmp_path / "old.png"
        picture.save(old, pnginfo=chunks)
    done = command(home, "replay", str(old), "--json")
    answer = json.loads(done.stdout)
    assert answer["verdict"] == "identical"
    assert [difference["field"] for difference in answer["differences"]] == ["nodes.5"]


def test_a_picture_that_is_nearly_the_same_is_within_tolerance(home: Path, made: Path, tmp_path: Path) -> None:
    with Image.open(made) as picture:
        chunks = PngImagePlugin.PngInfo()
        for name, text in picture.text.items():  # type: ignore[attr-defined]
            chunks.add_text(name, text)
        off = picture.point(lambda value: min(255, value + 1))
        near = tmp_path / "near.png"
        off.save(near, pnginfo=chunks)
    done = command(home, "replay", str(near))
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("within tolerance: max abs 1/255, PSNR 48.")
    assert command(home, "replay", str(near), "--psnr", "60").exit_code == 3


def test_a_picture_of_another_program_runs_from_its_prompt(home: Path, made: Path, tmp_path: Path) -> None:
    with Image.open(made) as picture:
        chunks = PngImagePlugin.PngInfo()
        chunks.add_text("prompt", picture.text["prompt"])  # type: ignore[attr-defined]
        chunks.add_text("workflow", json.dumps({"nodes": [], "links": [], "version": 0.4}))
        foreign = tmp_path / "foreign.png"
        picture.save(foreign, pnginfo=chunks)
    done = command(home, "replay", str(foreign))
    assert done.stdout.splitlines()[:2] == ["identical", '  lock: was absent, now "this program\'s"']


def test_a_plain_document_runs_and_has_nothing_to_compare_with(home: Path, txt2img: Graphs) -> None:
    path = home / "workflow.json"
    path.write_text(json.dumps(txt2img()))
    done = command(home, "replay", str(path))
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("nothing to compare\n")


@pytest.mark.parametrize(
    ("suffix", "how", "verdicts"),
    [("webp", {"lossless": True}, ["identical"]), ("jpeg", {"quality": 95}, ["within tolerance", "different"])],
)
def test_a_webp_or_jpeg_with_a_workflow_runs(
    home: Path, made: Path, suffix: str, how: dict[str, Any], verdicts: list[str]
) -> None:
    with Image.open(made) as picture:
        exif = picture.getexif()
        exif[0x0110] = "prompt:" + picture.text["prompt"]  # type: ignore[attr-defined]
        target = home / f"made.{suffix}"
        picture.save(target, exif=exif, **how)
    done = command(home, "replay", str(target), "--json")
    assert done.exit_code in (0, 3), done.output
    answer = json.loads(done.stdout)
    assert answer["verdict"] in verdicts
    assert [difference["field"] for difference in answer["differences"]] == ["lock"]
    [remade] = [path for path in (home / "out").glob("*.png") if path != made]
    assert Image.open(remade).tobytes() == Image.open(made).tobytes()
