from datetime import datetime
from pathlib import Path

import pytest

from sigmagraph.engine.errors import BadValue, WriteFailed
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
