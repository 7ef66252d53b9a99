"""Files that come home, when two do at once."""

from pathlib import Path

import pytest

from sigmagraph.engine.jobs.cluster import depot
from sigmagraph.engine.jobs.cluster.depot import Depot
from tests.jobs.cluster.nodes import folders

FILE = {"kind": "output", "subfolder": "", "filename": "picture_00001_.bin", "digest": "d" * 64}


def test_two_equal_pictures_that_come_at_once_are_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers that made the same, or two servers with one folder: neither takes the other's draft away."""
    ours, theirs = (Depot(folders(tmp_path), tmp_path / "carried") for _ in range(2))
    took = depot._took
    names = []

    def meanwhile(draft: Path, path: Path) -> bool:
        monkeypatch.setattr(depot, "_took", took)
        names.append(theirs.place("ann", FILE, b"picture"))
        return took(draft, path)

    monkeypatch.setattr(depot, "_took", meanwhile)
    names.append(ours.place("ann", FILE, b"picture"))
    folder = tmp_path / "output" / ".owners" / "ann"
    assert sorted(names) == ["picture_00001_.bin", "picture_00002_.bin"]
    assert sorted((path.name, path.read_bytes()) for path in folder.iterdir()) == [
        (name, b"picture") for name in sorted(names)
    ]
