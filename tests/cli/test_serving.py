"""What is put together for a server: folders that are elsewhere, and what is not put under version control."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sigmagraph.engine.cli.app import app
from sigmagraph.engine.compose.serving import compose
from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.server.settings import Settings
from sigmagraph.engine.shipped import SHIPPED

DEMO = "sigmagraph-demo.safetensors"
CHECKOUT = Path(__file__).resolve().parents[2]


def settings(home: Path, **more: object) -> Settings:
    (home / "models").mkdir(exist_ok=True)
    return Settings.model_validate({"home": home, "output": home / "output", "database": "sqlite://", **more})


def test_the_demo_has_its_checkpoint_wherever_the_home_is(tmp_path: Path) -> None:
    _, folders = compose(settings(tmp_path, demo=True))
    assert folders("local").path("checkpoints", DEMO) == SHIPPED / "models/checkpoints" / DEMO
    assert folders("local").files("checkpoints") == [DEMO]


def test_the_demo_makes_a_home_that_is_not_there(tmp_path: Path) -> None:
    home = tmp_path / "new"
    given = ["serve", "--demo", "--home", str(home), "--print-config"]
    assert CliRunner().invoke(app, given).exit_code == 0
    assert not home.exists()
    _, folders = compose(
        Settings.model_validate({"home": home, "output": home / "o", "database": "sqlite://", "demo": True})
    )
    assert folders("local").files("checkpoints") == [DEMO]
    assert (home / "models").is_dir()


def test_without_the_demo_a_home_elsewhere_has_nothing_of_the_checkout(tmp_path: Path) -> None:
    _, folders = compose(settings(tmp_path))
    with pytest.raises(EngineError, match=DEMO):
        folders("local").path("checkpoints", DEMO)


def test_what_a_run_in_the_checkout_writes_is_not_under_version_control(tmp_path: Path) -> None:
    before = set(tmp_path.iterdir()) | {tmp_path / "models", tmp_path / "input"}
    compose(settings(tmp_path))
    ignored = set((CHECKOUT / ".gitignore").read_text().split())
    made = {path.name for path in set(tmp_path.iterdir()) - before}
    assert made == {"output", "temp", "user"}
    assert {f"/{name}/" for name in {*made, "cache"}} <= ignored
