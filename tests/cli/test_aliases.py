import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sigmagraph.engine.cli.app import app
from sigmagraph.engine.compose.aliases import read_aliases
from sigmagraph.engine.errors import BadValue, EngineError, MissingFile
from sigmagraph.engine.execution.folders import Folders

Graphs = Callable[..., dict[str, Any]]
TABLE = '[checkpoints]\n"sd3.5_large.safetensors" = "checkpoints/tiny.safetensors"\n'


def test_a_graph_finds_its_checkpoint_under_the_name_it_was_saved_with(home: Path, txt2img: Graphs) -> None:
    (home / "models/aliases.toml").write_text(TABLE)
    graph = txt2img()
    graph["1"]["inputs"]["ckpt_name"] = "sd3.5_large.safetensors"
    (home / "a.json").write_text(json.dumps(graph))
    (home / "b.json").write_text(json.dumps(txt2img()))
    for name in "ab":
        command = ["run", str(home / f"{name}.json"), "--home", str(home), "--output", str(home / name)]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
    replayed = CliRunner().invoke(
        app, ["replay", str(home / "a/picture_00001_.png"), "--home", str(home), "--output", str(home / "a")]
    )
    assert replayed.stdout.startswith("identical\n")


def test_names_are_listed_and_a_real_file_wins(home: Path) -> None:
    folder = home / "models/checkpoints"
    aliases = {"checkpoints": {"tiny.safetensors": home / "other", "big.safetensors": folder / "tiny.safetensors"}}
    folders = Folders(home / "models", home / "input", home / "out", home / "temp", aliases=aliases)
    assert folders.files("checkpoints") == ["big.safetensors", "tiny.safetensors"]
    assert folders.path("checkpoints", "big.safetensors") == folder / "tiny.safetensors"
    assert folders.path("checkpoints", "tiny.safetensors") == folder / "tiny.safetensors"


def test_twin_folders_share_their_names(home: Path) -> None:
    file = home / "models/checkpoints/tiny.safetensors"
    folders = Folders(home / "models", home, home, home, aliases={"clip": {"t5.safetensors": file}})
    assert folders.path("text_encoders", "t5.safetensors") == file
    assert folders.files("text_encoders") == ["t5.safetensors"]


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("[", BadValue, "expected a TOML file"),
        ("checkpoints = 5", BadValue, 'expected "name" = "folder/file" lines'),
        ("[vae]\na = 5", BadValue, "vae"),
        ('[vae]\na = "../secret"', BadValue, "vae.a: '../secret' is not allowed; expected a file below"),
        ('[vae]\na = "/etc/passwd"', BadValue, "vae.a"),
        ('[vae]\na = "vae/none.safetensors"', MissingFile, "names it for vae.a"),
    ],
)
def test_what_is_no_table_is_refused_with_its_place(
    home: Path, text: str, kind: type[EngineError], message: str
) -> None:
    (home / "aliases.toml").write_text(text)
    with pytest.raises(kind) as refusal:
        read_aliases(home / "aliases.toml", home / "models")
    assert message in str(refusal.value)
    assert "aliases.toml" in str(refusal.value)


def test_a_table_that_was_named_has_to_be_there(home: Path) -> None:
    assert read_aliases(None, home / "models") == {}
    with pytest.raises(MissingFile):
        read_aliases(home / "nowhere.toml", home / "models")
