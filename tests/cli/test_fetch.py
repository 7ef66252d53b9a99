from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError
from typer.testing import CliRunner

from sigmagraph.engine.cli.app import app
from sigmagraph.engine.cli.fetch import SETS


def gated() -> GatedRepoError:
    return GatedRepoError.__new__(GatedRepoError)  # its constructor wants a live HTTP response


class Hub:
    """Stands in for the one call that needs a network."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[tuple[str, str]] = []

    def __call__(self, repository: str, file: str, local_dir: Path, endpoint: str | None = None) -> str:
        self.asked.append((repository, file))
        if self.error is not None:
            raise self.error
        path = local_dir / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{repository}/{file}")
        return str(path)


@pytest.fixture(autouse=True)
def no_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files: their tag is not a SHA-256."""
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *_, **__: SimpleNamespace(etag="a" * 40))


def test_files_land_where_the_loaders_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
    done = CliRunner().invoke(app, ["fetch", "sd3.5-large", "text-encoders", "--home", str(tmp_path)])
    assert done.exit_code == 0, done.output
    for place in ("checkpoints/sd3.5_large", "text_encoders/clip_g", "text_encoders/t5xxl_fp16"):
        assert (tmp_path / f"models/{place}.safetensors").is_file()
    assert (tmp_path / "models/tokenizers/clip.tokenizer.json").is_file()


def test_what_is_there_already_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", Hub())
    CliRunner().invoke(app, ["fetch", "tokenizers", "--home", str(tmp_path)])
    again = Hub()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", again)
    done = CliRunner().invoke(app, ["fetch", "tokenizers", "--home", str(tmp_path)])
    assert again.asked == []
    assert done.stderr.count("is there already") == len(SETS["tokenizers"].sources)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (gated(), "accept its licence there"),
        (LocalEntryNotFoundError("offline"), "cannot be reached; a tokenizer.json fetched elsewhere belongs at"),
        (OSError("broken pipe"), "could not be fetched: broken pipe"),
    ],
)
def test_a_failure_is_one_message_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", Hub(error))
    done = CliRunner().invoke(app, ["fetch", "tokenizers", "--home", str(tmp_path)])
    assert done.exit_code == 1
    assert words in done.stderr
    assert "Traceback" not in done.output
    assert not list((tmp_path / "models/tokenizers").glob("*.json"))
