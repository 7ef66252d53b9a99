import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigmagraph.engine.errors import BadValue, MissingFile, UnknownName
from sigmagraph.engine.execution.folders import Folders, inside


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    for name in ("models/checkpoints/sub", "models/unet", "input", "output", "temp"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("models/checkpoints/b.safetensors", "models/checkpoints/sub/a.sft", "models/unet/u.safetensors"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "models/checkpoints/readme.md").write_text("no weights", encoding="utf-8")
    (tmp_path / "models/checkpoints/.hidden.safetensors").write_bytes(b"")
    (tmp_path / "input/cat.png").write_bytes(b"cat")
    (tmp_path / "output/dog.png").write_bytes(b"dog")
    (tmp_path / "secret.safetensors").write_bytes(b"secret")
    return Folders(tmp_path / "models", tmp_path / "input", tmp_path / "output", tmp_path / "temp")


def test_files_are_listed_with_their_folder_and_nothing_else_is(folders: Folders) -> None:
    assert folders.files("checkpoints") == ["b.safetensors", "sub/a.sft"]
    assert folders.files("input") == ["cat.png"]
    assert folders.files("no such folder") == []


def test_old_and_new_names_of_a_folder_show_the_same_files(folders: Folders) -> None:
    assert folders.files("diffusion_models") == folders.files("unet") == ["u.safetensors"]
    assert folders.path("diffusion_models", "u.safetensors").name == "u.safetensors"


def test_extra_directories_come_after_ours_unless_they_say_where_ours_stands(folders: Folders, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    for name in ("b.safetensors", "c.safetensors"):
        (tmp_path / "more" / name).write_bytes(b"other")
    own, more = folders.models / "checkpoints", tmp_path / "more"
    for extra, first in (([more], own), ([more, own], more)):
        both = Folders(folders.models, folders.input_dir, folders.output_dir, folders.temp_dir, {"checkpoints": extra})
        assert both.path("checkpoints", "b.safetensors").parent == first
        assert both.path("checkpoints", "c.safetensors").parent == more


def test_a_name_may_say_its_folder(folders: Folders) -> None:
    assert folders.path("input", "dog.png [output]").read_bytes() == b"dog"
    assert folders.path("input", "cat.png [input]").read_bytes() == b"cat"


def test_an_unknown_name_offers_the_nearest(folders: Folders) -> None:
    with pytest.raises(
        UnknownName, match=r"'bb\.safetensors' is not a known file in checkpoints; did you mean 'b\.safetensors'"
    ):
        folders.path("checkpoints", "bb.safetensors")


def test_a_file_in_an_empty_folder_is_missing(folders: Folders) -> None:
    with pytest.raises(MissingFile, match="the folder 'vae' is empty"):
        folders.path("vae", "x.safetensors")


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "sub/../../secret.safetensors", "/etc/passwd", "", "a\0b", ".."]
)
def test_names_that_lead_outside_are_refused(folders: Folders, name: str) -> None:
    with pytest.raises(BadValue, match="a name inside the folder"):
        folders.path("checkpoints", name)


@given(st.text())
def test_no_name_at_all_leads_outside(name: str) -> None:
    root = Path("/srv/models")
    try:
        path = inside(root, name)
    except BadValue:
        return
    assert os.path.commonpath([root, os.path.normpath(path)]) == str(root)


def test_content_hashes_follow_the_content_and_not_the_name(folders: Folders, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"same")
    two.write_bytes(b"same")
    assert folders.content_hash(one) == folders.content_hash(two)
    one.write_bytes(b"else")
    os.utime(one, ns=(1, 1))
    assert folders.content_hash(one) != folders.content_hash(two)


def test_a_hash_is_remembered_while_size_and_time_stay(folders: Folders, tmp_path: Path) -> None:
    path = tmp_path / "one"
    path.write_bytes(b"same")
    os.utime(path, ns=(5, 5))
    before = folders.content_hash(path)
    path.write_bytes(b"diff")
    os.utime(path, ns=(5, 5))
    assert folders.content_hash(path) == before


def test_hashing_a_file_that_is_gone_is_a_missing_file(folders: Folders, tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        folders.content_hash(tmp_path / "gone")


def test_links_that_lead_in_a_circle_are_listed_once(folders: Folders) -> None:
    (folders.models / "checkpoints/sub/again").symlink_to(folders.models / "checkpoints")
    assert folders.files("checkpoints").count("b.safetensors") == 1
