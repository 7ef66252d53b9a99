"""The table of machines in docs/models.md against the plan that `check --memory` prints, with files of full size."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from benchmarks.layouts import LARGE, MEDIUM, Shapes, plain, quantised, shapes_of, t5_shapes
from benchmarks.sparse_files import Tensors, safetensors
from sigmagraph.engine.cli.app import app
from sigmagraph.engine.models import load_diffusion_model, load_text_encoders
from sigmagraph.engine.models.arch import MMDiT
from sigmagraph.engine.models.memory import device, residency
from sigmagraph.engine.models.memory.choices import MemoryChoices
from sigmagraph.engine.models.memory.plan import Placed
from sigmagraph.engine.models.memory.recipe import Recipe
from sigmagraph.engine.models.memory.residency import RESIDENCY

GUIDE = Path(__file__).parents[3] / "docs" / "models.md"
FREE_GB = {"8 GB card": 8, "12 GB card": 12, "16 GB card": 16, "24 GB card": 24, "laptop, 16 GB": 12}
FREE_GB |= {"workstation, 64 GB": 56}
MODELS = ("SD3.5 Medium", "SD3.5 Large and Turbo")
ROW = re.compile(
    r"^\| ([^|]*(?:card|laptop|workstation)[^|]*) \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE
)


def medium() -> Shapes:
    return shapes_of(lambda: MMDiT(MEDIUM))


def large() -> Shapes:
    return shapes_of(lambda: MMDiT(LARGE))


FORMS: dict[str, Callable[[], Tensors]] = {
    "SD3.5 Medium, bfloat16": lambda: plain(medium(), "BF16"),
    "SD3.5 Medium, float16": lambda: plain(medium(), "F16"),
    "SD3.5 Large and Turbo, bfloat16": lambda: plain(large(), "BF16"),
    "SD3.5 Large and Turbo, scaled float8": lambda: quantised(large(), "F8_E4M3", "scale_weight", {}),
    "T5 float16": lambda: plain(t5_shapes(), "F16"),
    "T5 float8": lambda: plain(t5_shapes(), "F8_E4M3"),
}


def rows() -> list[tuple[str, str, str, str, str]]:
    return [(a, b, c, d, e.strip("`")) for a, b, c, d, e in ROW.findall(GUIDE.read_text("utf-8"))]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Sparse files as large as the published ones, written once."""
    folder, made = tmp_path_factory.mktemp("published"), dict[str, Path]()

    def file(form: str) -> Path:
        if form not in made:
            made[form] = safetensors(folder, FORMS[form](), form.replace(" ", "_") + ".safetensors")
        return made[form]

    return file


@pytest.fixture(autouse=True)
def own_choices(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with a recent card, and a processor that multiplies bfloat16."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(device, "_has_bf16_processor", lambda: True)
    before = RESIDENCY.choices
    RESIDENCY.free()
    yield
    RESIDENCY.choices = before


def t5(path: Path) -> Recipe[Any]:
    """The recipe of the encoder in a file of T5 alone."""
    encoder: Any = load_text_encoders([path]).encoders["t5xxl"]
    recipe: Recipe[Any] = encoder.recipe
    return recipe


def kept(placed: Placed, name: str) -> str:
    """How the table says where a network is."""
    leaves = ", modulations from tables" if placed.leaves else ""
    if placed.mode == "mapped":
        return f"{name} mapped, {placed.paged_bytes / 1e9:.1f} GB of pages"
    return f"{name} {placed.mode} {placed.bytes_ / 1e9:.1f} GB{leaves}"


def planned(machine: str, model: str, text: str, flags: str, file: Callable[[str], Path]) -> str:
    """What the plan says of a row, in the table's words."""
    options = command_options(flags)
    where = "cuda" if machine.endswith("card") else "cpu"
    RESIDENCY.choices = MemoryChoices.parse(options.get("precision") or "auto", options.get("memory") or "auto", where)
    recipes: list[Recipe[Any]] = [
        load_diffusion_model(file(model)).recipe,
        t5(file(text)),
    ]
    found = RESIDENCY.plan(recipes)
    found.require()
    first, second = found.placed
    return f"{kept(first, 'model')}; {kept(second, 'T5')}; peak {found.peak_bytes / 1e9:.1f} GB"


def command_options(flags: str) -> dict[str, Any]:
    """The flags as `sigmagraph run` takes them; one that it does not know is an error."""
    command = typer.main.get_command(app)
    run = command.commands["run"]  # type: ignore[attr-defined]  # a group
    words = [] if flags == "none" else flags.split()
    context = run.make_context("run", ["workflow.json", *words], resilient_parsing=False)
    found: dict[str, Any] = context.params
    return found


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row[0]}: {row[1]}, {row[4]}")
def test_the_table_of_machines_is_what_the_plan_says(
    row: tuple[str, str, str, str, str], files: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, model, download, said, flags = row
    monkeypatch.setattr(residency, "available_bytes", lambda _: FREE_GB[machine] * 10**9)
    text = "T5 float8" if "T5 float8" in download else "T5 float16"
    sizes = [f"{files(form).stat().st_size / 1e9:.1f} GB" for form in (model, text)]
    assert download == f"{sizes[0]}, {text} {sizes[1]}"
    assert said == planned(machine, model, text, flags, files)


def test_every_machine_has_every_model() -> None:
    found = {(machine, model.rpartition(",")[0]) for machine, model, *_ in rows()}
    assert found == {(machine, model) for machine in FREE_GB for model in MODELS}


def test_what_is_not_small_in_its_file_is_not_counted_as_if_it_stayed_so(
    files: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """T5 of 16 bits computes in float32: on a card of 12 GB it was planned for 9.7 GB and took 19."""
    monkeypatch.setattr(residency, "available_bytes", lambda _: 12 * 10**9)
    RESIDENCY.choices = MemoryChoices.parse(device="cuda")
    encoder = t5(files("T5 float16")).part()
    assert encoder.small_bytes == encoder.dense_bytes
    small = t5(files("T5 float8")).part()
    assert small.small_bytes < 0.3 * small.dense_bytes
