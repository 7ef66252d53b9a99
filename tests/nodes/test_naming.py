import time
from datetime import datetime
from pathlib import Path

import pytest

from sigmagraph.engine.errors import BadValue, WriteFailed
from sigmagraph.engine.writing import write_new
from sigmagraph.nodes.support.naming import series

NOON = datetime(2031, 2, 3, 4, 5, 6)


def first(root: Path, prefix: str, batch_index: int = 0) -> str:
    found = series(root, prefix, 640, 480, NOON)
    return f"{found.subfolder}/{next(found.names(batch_index))}".removeprefix("/")


def test_numbers_begin_at_one_and_have_five_digits(tmp_path: Path) -> None:
    assert first(tmp_path, "a") == "a_00001_.png"


def test_the_next_number_follows_the_highest_of_this_prefix_alone(tmp_path: Path) -> None:
    for name in ("a_00003_.png", "a_00007_.webp", "ab_00050_.png", "a_x_.png", "a_00099.png"):
        (tmp_path / name).touch()
    assert first(tmp_path, "a") == "a_00008_.png"


def test_a_folder_is_listed_once_and_again_when_others_write_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listings: list[Path] = []
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: listings.append(folder) or listed(folder))
    found = series(tmp_path, "a", 1, 1, NOON)
    for number in range(1, 21):
        path = write_new(tmp_path, series(tmp_path, "a", 1, 1, NOON).names(0), b"x")
        found.took(path)
        assert path.name == f"a_{number:05}_.png"
    assert len(listings) == 1
    time.sleep(0.02)  # more than a tick of the file system's clock
    (tmp_path / "a_00050_.png").touch()
    assert first(tmp_path, "a") == "a_00051_.png"
    for name in tmp_path.glob("*"):
        name.unlink()
    assert first(tmp_path, "a") == "a_00001_.png"


def test_two_series_of_one_folder_know_of_each_other(tmp_path: Path) -> None:
    for prefix, number in (("a", 1), ("b", 1), ("a", 2), ("b", 2)):
        found = series(tmp_path, prefix, 1, 1, NOON)
        path = write_new(tmp_path, found.names(0), b"x")
        found.took(path)
        assert path.name == f"{prefix}_{number:05}_.png"


def test_a_prefix_may_name_folders_which_are_made(tmp_path: Path) -> None:
    assert first(tmp_path, "day/night/a") == "day/night/a_00001_.png"
    assert (tmp_path / "day/night").is_dir()


def test_a_prefix_that_ends_in_a_slash_has_an_empty_stem(tmp_path: Path) -> None:
    assert first(tmp_path, "day/") == "day/_00001_.png"


def test_tokens_are_filled_in_and_unknown_ones_stay(tmp_path: Path) -> None:
    assert first(tmp_path, "%year%-%month%-%day%_%hour%%minute%%second%_%width%x%height%_%cfg%") == (
        "2031-02-03_040506_640x480_%cfg%_00001_.png"
    )


def test_each_image_of_a_batch_may_carry_its_index(tmp_path: Path) -> None:
    assert first(tmp_path, "a%batch_num%", batch_index=3) == "a3_00001_.png"


@pytest.mark.parametrize("prefix", ["../a", "x/../../a", "/etc/a", "a\0b", "..\\a"])
def test_a_prefix_that_leaves_the_output_folder_is_refused(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(BadValue, match="a path inside the output folder"):
        series(tmp_path, prefix, 1, 1, NOON)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteFailed, match="file: cannot be written"):
        series(tmp_path, "file/a", 1, 1, NOON)
