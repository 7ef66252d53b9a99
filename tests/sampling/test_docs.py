"""The documentation is what the code declares, and its examples run as written."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sigmagraph.engine.errors import MissingFile
from sigmagraph.engine.sampling import SCHEDULES, SOLVERS, ComfyNoise
from sigmagraph.engine.sampling.plugins import load_file, load_installed
from sigmagraph.engine.sampling.table import generated

DOCS = Path(__file__).parents[2] / "docs"


def test_the_tables_in_the_docs_are_the_generated_ones() -> None:
    text = (DOCS / "samplers.md").read_text()
    assert generated() in text, "run python -m sigmagraph.engine.sampling.table and paste what it prints"


@pytest.mark.parametrize("kind", ["SOLVERS", "SCHEDULES"])
def test_every_part_has_a_source_and_a_summary(kind: str) -> None:
    for name, part in {"SOLVERS": SOLVERS, "SCHEDULES": SCHEDULES}[kind].items():  # type: ignore[attr-defined]
        assert part.source, name
        assert (part.function.__doc__ or "").strip(), name


@pytest.fixture
def _registries_as_they_were(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(SOLVERS, "_parts", dict(SOLVERS._parts))
    monkeypatch.setattr(SCHEDULES, "_parts", dict(SCHEDULES._parts))
    yield
    for name in [name for name in sys.modules if name.startswith("sigmagraph_plugin_")]:
        del sys.modules[name]


@pytest.mark.usefixtures("_registries_as_they_were")
def test_the_page_on_writing_a_sampler_works_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "your-own-sampler.md").read_text(), re.DOTALL)
    (tmp_path / "ralston.py").write_text(blocks[0])
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks[1:]:
        exec(compile(block, "your-own-sampler.md", "exec"), names)
    assert names["latent"].shape == (1, 16, 64, 64)
    exact = ComfyNoise(1).initial(names["latent"]) / 2  # that denoiser's flow is x proportional to 1 + sigma
    assert (names["latent"] - exact).abs().max() < 0.05
    assert SOLVERS["ralston"].options[0].name == "c2"
    assert SCHEDULES["even_log"].source == "this page"
    assert load_file(Path("ralston.py")) is load_file(tmp_path / "ralston.py")


def test_a_plugin_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="no such plugin file"):
        load_file(tmp_path / "none.py")


def test_installed_packages_register_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name, loaded = "mine", False

        def load(self) -> None:
            Point.loaded = True

    monkeypatch.setattr("sigmagraph.engine.sampling.plugins.entry_points", lambda group: [Point()] if group else [])
    assert load_installed() == ["mine"]
    assert Point.loaded
