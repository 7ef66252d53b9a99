"""Digests of weight files outlive the process that made them, and never the file."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from sigmagraph.engine.errors import MissingFile
from sigmagraph.engine.execution import digests
from sigmagraph.engine.execution.digests import Digests


@pytest.fixture(autouse=True)
def _small_files_count_as_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "KEPT_FROM_BYTES", 4)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    return path


def unreadable(*_: object) -> None:
    raise AssertionError("the file was read again")


def test_another_process_reads_nothing_again(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Digests(tmp_path / "temp" / "digests.json").of(weights)
    monkeypatch.setattr("hashlib.file_digest", unreadable)
    assert Digests(tmp_path / "temp" / "digests.json").of(weights) == first


def test_a_changed_file_has_another_digest(weights: Path, tmp_path: Path) -> None:
    kept = tmp_path / "digests.json"
    first = Digests(kept).of(weights)
    weights.write_bytes(b"WEIGHTS")
    os.utime(weights, ns=(1, 1))
    assert Digests(kept).of(weights) != first


def test_two_processes_keep_each_others(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, other = tmp_path / "digests.json", tmp_path / "other.safetensors"
    other.write_bytes(b"other weights")
    one, two = Digests(kept), Digests(kept)
    found = one.of(weights), two.of(other)
    monkeypatch.setattr("hashlib.file_digest", unreadable)
    third = Digests(kept)
    assert (third.of(weights), third.of(other)) == found


@pytest.mark.parametrize("damaged", ["", "[]", '{"a": 1}', '{"a": [1, 2]}', "\x00", "[" * 100_000])
def test_a_damaged_list_is_forgotten(weights: Path, tmp_path: Path, damaged: str) -> None:
    kept = tmp_path / "digests.json"
    kept.write_text(damaged)
    assert Digests(kept).of(weights) == Digests(tmp_path / "none.json").of(weights)


def test_a_list_that_cannot_be_written_is_done_without(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert Digests(tmp_path / "file" / "digests.json").of(weights)


def test_a_file_that_is_gone_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        Digests(tmp_path / "digests.json").of(tmp_path / "gone")


def test_the_digest_of_nothing_is_the_published_one(tmp_path: Path) -> None:
    """The first of BLAKE3's own test vectors, cut to 16 bytes; and BLAKE2b's, as earlier versions wrote it."""
    (tmp_path / "empty").touch()
    digests_ = Digests(tmp_path / "digests.json")
    assert digests_.of(tmp_path / "empty") == "blake3:af1349b9f5f9a1a6a0404dea36dcc949"
    assert digests_.of(tmp_path / "empty", like="0" * 32) == "cae66941d9efbd404e4d88758ea67670"


def test_an_earlier_digest_is_checked_by_its_own_kind(weights: Path, tmp_path: Path) -> None:
    kept = Digests(tmp_path / "digests.json")
    earlier = hashlib.blake2b(b"weights", digest_size=16).hexdigest()
    assert kept.of(weights, like=earlier) == earlier
    assert kept.of(weights, like="blake3:0") == kept.of(weights) != earlier


def test_a_list_of_an_earlier_version_keeps_its_digests(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier, facts = "0" * 32, weights.stat()
    (tmp_path / "digests.json").write_text(json.dumps({str(weights): [facts.st_size, facts.st_mtime_ns, earlier]}))
    now = Digests(tmp_path / "digests.json").of(weights)
    assert now.startswith("blake3:")
    monkeypatch.setattr("hashlib.file_digest", unreadable)
    another = Digests(tmp_path / "digests.json")
    assert (another.of(weights), another.of(weights, like=earlier)) == (now, earlier)
