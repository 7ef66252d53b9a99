"""The fixtures of the job layer, and a folder for what machines keep to themselves."""

import tempfile
from pathlib import Path

import pytest

from tests.jobs.cluster.fake_ray import ray
from tests.jobs.conftest import run

__all__ = ["ray", "run"]


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the machines' own folders are."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder
