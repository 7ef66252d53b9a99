"""CLIP's vocabulary as it ships, and tokenizers where other installations have them."""

import gzip
import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from sigmagraph.engine.compose.model_paths import extra_folders, extra_from_environment
from sigmagraph.engine.errors import CorruptFile, MissingFile
from sigmagraph.engine.models.text import clip_vocabulary
from sigmagraph.engine.models.text.tokenizer import Tokenizer, clip_rule
from sigmagraph.engine.models.text.vocabulary import Vocabularies
from tests.models.conftest import DATA
from tests.models.text.test_tokens import PLAIN, TOKENS, recorded

MERGES = gzip.decompress((files(clip_vocabulary.__package__) / clip_vocabulary.SHIPPED).read_bytes()).decode()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a ComfyUI installation has of tokenizers: CLIP's in two files, T5's in one."""
    clip = tmp_path / "ComfyUI" / "comfy" / "sd1_tokenizer"
    clip.mkdir(parents=True)
    ids = clip_vocabulary.shipped_tokenizer().get_vocab()
    (clip / "vocab.json").write_text(json.dumps(ids), "utf-8")
    (clip / "merges.txt").write_text("#version: 0.2\n" + MERGES, "utf-8")
    t5 = tmp_path / "ComfyUI" / "comfy" / "text_encoders" / "t5_tokenizer"
    t5.mkdir(parents=True)
    (t5 / "tokenizer.json").write_text((DATA / "clip_subset.tokenizer.json").read_text("utf-8"), "utf-8")  # a stand-in
    (tmp_path / "ComfyUI" / "models" / "embeddings").mkdir(parents=True)
    return tmp_path / "ComfyUI"


@pytest.mark.parametrize("name", [*PLAIN, "emb_glued"])
@pytest.mark.parametrize("encoder", ["l", "g"])
def test_the_shipped_vocabulary_gives_the_recorded_chunks(name: str, encoder: str) -> None:
    rule = clip_rule(49408, 77, pads_with_end=encoder == "l")
    assert Tokenizer(Vocabularies()[f"clip_{encoder}"], rule)(TOKENS[name]["text"]) == recorded(TOKENS[name][encoder])


def test_the_shipped_vocabulary_has_every_id_once() -> None:
    ids = clip_vocabulary.shipped_tokenizer().get_vocab()
    assert sorted(ids.values()) == list(range(49408))
    assert (ids["<|startoftext|>"], ids["<|endoftext|>"], ids["!"], ids["cat</w>"]) == (49406, 49407, 0, 2368)


def test_the_shipped_vocabulary_is_the_one_a_part_of_which_the_tests_hold() -> None:
    part = json.loads((DATA / "clip_subset.tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    ids = clip_vocabulary.shipped_tokenizer().get_vocab()
    assert {token: ids[token] for token in part} == part


@pytest.mark.parametrize(
    "text", ["a photo of a cat", "Don't 3 cafe\u0301s!! \t\n x", "\U0001f600 <|endoftext|> \u00e9"]
)
def test_a_vocabulary_in_two_files_is_the_same(checkout: Path, text: str) -> None:
    found = Vocabularies(folders=[checkout])["clip_l"]
    assert found(text) == Vocabularies()["clip_l"](text)


def test_an_installation_is_searched_where_it_is_named(checkout: Path, tmp_path: Path) -> None:
    models = tmp_path / "home" / "models"
    for extra in (
        extra_folders([], models, {}, checkout),
        extra_from_environment({"SIGMAGRAPH_COMFYUI_DIR": str(checkout)}, models, {}),
    ):
        found = Vocabularies().looking_in(extra["tokenizers"])
        assert found["t5xxl"]("a cat") == [320, 2368]
        assert extra["embeddings"] == [checkout / "models" / "embeddings"]
    with pytest.raises(MissingFile, match="not a ComfyUI installation"):
        extra_folders([], models, {}, tmp_path)


def test_the_base_path_of_extra_model_paths_brings_its_tokenizers(checkout: Path, tmp_path: Path) -> None:
    file = tmp_path / "extra_model_paths.yaml"
    file.write_text(f"comfyui:\n  base_path: {checkout}\n  embeddings: models/embeddings\n", "utf-8")
    extra = extra_from_environment({"SIGMAGRAPH_EXTRA_MODEL_PATHS": str(file)}, tmp_path / "models", {})
    assert Vocabularies().looking_in(extra["tokenizers"])["t5xxl"]("a cat") == [320, 2368]


def test_a_vocabulary_that_does_not_fit_its_merges_is_told(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text('{"a": 0}', "utf-8")
    (tmp_path / "merges.txt").write_text("a b\n", "utf-8")
    with pytest.raises(CorruptFile, match=r"vocab\.json: is not a CLIP vocabulary for the merges beside it"):
        Vocabularies(folders=[tmp_path])["clip_l"]


def test_without_t5_the_command_that_brings_it_is_named() -> None:
    with pytest.raises(MissingFile, match="`sigmagraph fetch tokenizers` brings it"):
        Vocabularies()["t5xxl"]


def test_every_command_sees_what_the_environment_names(checkout: Path, home: Path, tiny_checkpoint: Path) -> None:
    (checkout / "models" / "checkpoints").mkdir()
    (checkout / "models" / "checkpoints" / "theirs.safetensors").symlink_to(tiny_checkpoint)
    done = subprocess.run(
        [sys.executable, "-m", "sigmagraph", "models", "--home", str(home)],
        env={**os.environ, "SIGMAGRAPH_COMFYUI_DIR": str(checkout)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "theirs.safetensors" in done.stdout
