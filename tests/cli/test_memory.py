"""`check --memory`, and the choices of `run`: what is told before a run, what a picture's lock says of it."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sigmagraph.engine.cli.app import app
from sigmagraph.engine.compose import caching
from sigmagraph.engine.execution.cache.disk import DiskTier
from sigmagraph.engine.graph.reading.image_metadata import carried_texts
from sigmagraph.engine.models.memory.residency import RESIDENCY
from sigmagraph.nodes import NODES

OTHER_FILES = {
    "input",
    "output",
    "temp",
    "latents",
    "loras",
    "embeddings",
    "upscale_models",
}  # no networks whose precision is chosen
Graph = dict[str, dict[str, Any]]


@pytest.fixture(autouse=True)
def own_choices() -> Iterator[None]:
    before = RESIDENCY.choices
    yield
    RESIDENCY.choices = before


@pytest.fixture
def workflow(home: Path, txt2img: Callable[..., Graph]) -> Path:
    (home / "workflow.json").write_text(json.dumps(txt2img()))
    return home / "workflow.json"


def called(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output + str(result.exception or "")


def test_check_says_what_the_models_take_without_reading_them(home: Path, workflow: Path) -> None:
    loads = RESIDENCY.load_count
    code, said = called("check", workflow, "--home", home, "--memory", "--device", "cpu")
    assert code == 0, said
    for part in (
        "clip_l (float32)",
        "clip_g (float32)",
        "t5xxl (float32)",
        "diffusion model (float32)",
        "VAE (float32)",
    ):
        assert f"tiny.safetensors: {part}: resident" in said
    assert "the most needed at once: " in said
    assert RESIDENCY.load_count == loads


def test_a_budget_below_everything_is_refused_by_check_and_by_run(home: Path, workflow: Path) -> None:
    loads = RESIDENCY.load_count
    code, said = called("check", workflow, "--home", home, "--memory", "--budget", "1kB", "--device", "cpu")
    assert (code != 0, "diffusion model takes" in said, "the plan: " in said) == (True, True, True)
    code, said = called("run", workflow, "--home", home, "--output", home / "out", "--memory", "1kB", "--device", "cpu")
    assert (code != 0, "diffusion model takes" in said) == (True, True)
    assert RESIDENCY.load_count == loads


def test_a_run_says_how_each_network_was_kept(home: Path, workflow: Path) -> None:
    RESIDENCY.free()
    given = ("--home", home, "--output", home / "out", "--device", "cpu", "--precision", "model=bf16")
    code, said = called("run", workflow, *given, "--memory", "resident", "--json")
    assert code == 0, said
    told = {each["network"].rpartition("/")[2]: each for each in json.loads(said[said.index("{") :])["networks"]}
    model = told["tiny.safetensors: diffusion model"]
    assert (model["mode"], model["precision"], model["device"]) == ("resident", "bfloat16", "cpu")
    assert model["bytes"] > 0 < len(told) == 5
    RESIDENCY.free()
    code, said = called("run", workflow, *given, "--memory", "stream")
    assert "tiny.safetensors: diffusion model: streamed, bfloat16 on cpu" in " ".join(said.split()), said


@pytest.mark.parametrize(("choice", "expected"), [("auto", "float32"), ("model=bf16", "bfloat16; model=bf16")])
def test_the_lock_names_the_precision(home: Path, workflow: Path, choice: str, expected: str) -> None:
    given = ("--home", home, "--output", home / "out", "--precision", choice, "--device", "cpu")
    code, said = called("run", workflow, *given)
    assert code == 0, said
    (picture,) = (home / "out").glob("*.png")
    assert json.loads(carried_texts(picture.read_bytes())["lock"])["environment"]["precision"] == expected


def test_a_streamed_run_makes_the_resident_runs_picture(home: Path, workflow: Path) -> None:
    found = []
    for memory in ("resident", "stream"):
        folder = home / memory
        code, said = called("run", workflow, "--home", home, "--output", folder, "--memory", memory, "--device", "cpu")
        assert code == 0, said
        found += [picture.read_bytes() for picture in folder.glob("*.png")]
    assert len(found) == 2
    assert found[0] == found[1]


def test_results_of_one_precision_are_not_taken_for_those_of_another(
    home: Path, workflow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kept cache folder: each precision has its own pictures there, and `plan` says which would be made."""
    monkeypatch.setattr(caching, "DiskTier", partial(DiskTier, cheapest_ms=0.0))

    def picture(precision: str, cache: str, folder: str) -> bytes:
        given = ("--home", home, "--output", home / folder, "--precision", precision, "--device", "cpu")
        code, said = called("run", workflow, *given, "--cache", cache)
        assert code == 0, said
        (made,) = (home / folder).glob("*.png")
        return made.read_bytes()

    kept, fresh = "memory=64MiB,disk=64MiB", "memory=64MiB,disk=0"
    first, second = picture("fp32", kept, "a"), picture("model=bf16,vae=bf16", kept, "b")
    assert first != second == picture("model=bf16,vae=bf16", fresh, "c")
    for precision, runs in (("fp32", 1), ("model=bf16,vae=bf16", 1), ("model=fp16", 6)):
        given = ("--home", home, "--cache", kept, "--precision", precision, "--device", "cpu")
        code, said = called("plan", workflow, *given)
        assert (code, f"{runs} of 7 nodes would run" in said) == (0, True), said


def test_every_node_that_opens_a_models_file_keeps_its_results_by_what_is_computed_in() -> None:
    opens = {
        name: node.fingerprint is not None
        for name, node in NODES.items()
        if any(declared.file is not None and declared.file.folder not in OTHER_FILES for declared in node.inputs)
    }
    assert len(opens) >= 11
    assert all(opens.values()), opens
