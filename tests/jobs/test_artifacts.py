"""Files that jobs made: whole or not at all, under names that stay inside."""

from pathlib import Path

import pytest

from sigmagraph.engine.errors import BadValue, MissingFile, WriteFailed
from sigmagraph.engine.jobs.artifacts import Artifact, Artifacts, content_type, entries

PICTURE = Artifact("me", "output", "a/b", "x_00001_.png")


@pytest.fixture(params=["folder", "file url", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Artifacts:
    places = {"folder": str(tmp_path), "file url": f"file://{tmp_path}", "memory": f"memory://{tmp_path.name}"}
    return Artifacts(places[request.param])


def test_what_is_written_is_read_replaced_and_deleted(store: Artifacts) -> None:
    for data in (b"one", b"two"):
        store.write(PICTURE, data)
        assert store.read(PICTURE) == data
    store.delete(PICTURE)
    store.delete(PICTURE)
    with pytest.raises(MissingFile, match="me/output/a/b/x_00001_.png: not there, or no longer kept"):
        store.read(PICTURE)


def test_a_copy_of_a_nodes_file_is_kept(store: Artifacts, tmp_path: Path) -> None:
    (tmp_path / "made.png").write_bytes(b"picture")
    store.keep(PICTURE, tmp_path / "made.png")
    (tmp_path / "made.png").unlink()
    assert store.read(PICTURE) == b"picture"
    with pytest.raises(MissingFile):
        store.keep(PICTURE, tmp_path / "made.png")


def test_a_write_that_fails_leaves_nothing_and_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "me").write_text("in the way")
    with pytest.raises(WriteFailed, match="me/output/a/b/x_00001_.png: cannot be kept"):
        Artifacts(str(tmp_path)).write(PICTURE, b"x")
    assert [path.name for path in tmp_path.rglob("*")] == ["me"]


@pytest.mark.parametrize(
    "bad",
    [
        Artifact("me", "output", "../you", "x.png"),
        Artifact("me", "output", "", "../x.png"),
        Artifact("..", "output", "", "x.png"),
        Artifact("me", "output", "/etc", "x.png"),
        Artifact("me", "output", "", ""),
        Artifact("me", "output", "", "a\\b"),
        Artifact("me", "output", "", "a\0b"),
    ],
)
def test_names_that_lead_outside_are_refused(tmp_path: Path, bad: Artifact) -> None:
    with pytest.raises(BadValue, match="a name inside its owner's folder"):
        Artifacts(str(tmp_path)).write(bad, b"x")


def test_what_could_carry_a_script_is_bytes() -> None:
    assert content_type("A.PNG") == "image/png"
    assert {content_type(f"x.{kind}") for kind in ("svg", "html", "xml", "js", "")} == {"application/octet-stream"}


def test_files_are_found_in_any_list_of_a_record() -> None:
    ui = {"images": [{"filename": "a.png", "type": "temp"}, "b"], "animated": [True], "text": ("c",), "n": 3}
    assert entries(ui) == [{"kind": "temp", "subfolder": "", "filename": "a.png"}]
    assert entries(None) == []
