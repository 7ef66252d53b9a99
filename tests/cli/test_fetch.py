import json
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import huggingface_hub
import pytest
from huggingface_hub import file_download
from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled
from typer.testing import CliRunner

from sigmagraph.engine.cli.app import app
from sigmagraph.engine.cli.fetch import SETS


def gated() -> GatedRepoError:
    return GatedRepoError.__new__(GatedRepoError)  # its constructor wants a live HTTP response


class Hub:
    """Stands in for the two calls that need a network: what a file is, and its bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[str] = []
        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", self.told)
        monkeypatch.setattr(file_download, "http_get", self.get)

    def told(self, url: str, endpoint: str | None = None) -> SimpleNamespace:
        if self.error is not None:
            raise self.error
        return SimpleNamespace(etag="a" * 40, size=len(url))  # of small files: not a SHA-256

    def get(self, url: str, file: BinaryIO, **_: object) -> None:
        self.asked.append(url)
        file.write(url.encode())


def test_files_land_where_the_loaders_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Hub(monkeypatch)
    done = CliRunner().invoke(app, ["fetch", "sd3.5-large", "text-encoders", "--home", str(tmp_path)])
    assert done.exit_code == 0, done.output
    for place in ("checkpoints/sd3.5_large", "text_encoders/clip_g", "text_encoders/t5xxl_fp16"):
        assert (tmp_path / f"models/{place}.safetensors").is_file()
    assert (tmp_path / "models/tokenizers/clip.tokenizer.json").is_file()


def test_what_is_there_already_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Hub(monkeypatch)
    CliRunner().invoke(app, ["fetch", "tokenizers", "--home", str(tmp_path)])
    again = Hub(monkeypatch)
    done = CliRunner().invoke(app, ["fetch", "tokenizers", "--home", str(tmp_path)])
    assert again.asked == []
    assert done.stderr.count("is there already") == len(SETS["tokenizers"].sources)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (gated(), "accept its licence there"),
        (OfflineModeIsEnabled("offline"), "cannot be reached; a tokenizer.json fetched elsewhere belongs at"),
        (OSError("broken pipe"), "could not be fetched: broken pipe"),
    ],
)
def test_a_failure_is_one_message_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    Hub(monkeypatch, error)
    done = CliRunner().invoke(app, ["fetch", "tokenizers", "--home", str(tmp_path)])
    assert done.exit_code == 1
    assert words in done.stderr
    assert "Traceback" not in done.output
    assert not list((tmp_path / "models/tokenizers").glob("*.json"))


def test_a_problem_that_names_a_link_is_told_beside_the_files_that_miss(tmp_path: Path) -> None:
    """A link is a list: the search for files to fetch ended in a traceback."""
    graph = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd3.5_large.safetensors"}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 7]}},
    }
    (tmp_path / "workflow.json").write_text(json.dumps(graph))
    done = CliRunner().invoke(app, ["run", str(tmp_path / "workflow.json"), "--home", str(tmp_path)])
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert "has no output 7" in done.stderr
    assert "`sigmagraph fetch sd3.5-large` brings sd3.5_large.safetensors" in done.stderr
