import os
from pathlib import Path

from sigmagraph.engine.execution.cache.checkpoint import Checkpoints


def test_records_outlive_the_log_that_wrote_them(tmp_path: Path) -> None:
    first = Checkpoints(tmp_path).of("key").begin()
    for record in (b"one", b"", b"three"):
        first.append(record)
    first.close()
    again = Checkpoints(tmp_path).of("key").begin()
    assert again.records() == [b"one", b"", b"three"]


def test_a_record_cut_short_is_left_out_and_what_follows_is_whole(tmp_path: Path) -> None:
    log = Checkpoints(tmp_path).of("key").begin()
    log.append(b"whole")
    log.append(b"cut off")
    log.close()
    [path] = tmp_path.iterdir()
    os.truncate(path, path.stat().st_size - 2)
    second = Checkpoints(tmp_path).of("key").begin()
    assert second.records() == [b"whole"]
    second.append(b"next")
    second.close()
    assert Checkpoints(tmp_path).of("key").begin().records() == [b"whole", b"next"]


def test_a_damaged_record_ends_what_is_believed(tmp_path: Path) -> None:
    log = Checkpoints(tmp_path).of("key").begin()
    for record in (b"a" * 50, b"b" * 50):
        log.append(record)
    log.close()
    [path] = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[70] ^= 1
    path.write_bytes(data)
    assert Checkpoints(tmp_path).of("key").begin().records() == [b"a" * 50]


def test_each_piece_of_a_nodes_work_has_its_own_log(tmp_path: Path) -> None:
    work = Checkpoints(tmp_path).of("key")
    one, two = work.begin(), work.begin()
    one.append(b"1")
    two.append(b"2")
    one.close()
    two.close()
    again = Checkpoints(tmp_path).of("key")
    assert [again.begin().records(), again.begin().records()] == [[b"1"], [b"2"]]


def test_two_at_once_do_not_mix_their_records(tmp_path: Path) -> None:
    holder = Checkpoints(tmp_path).of("key").begin()
    holder.append(b"mine")
    other = Checkpoints(tmp_path).of("key").begin()
    other.append(b"not kept")
    other.discard()
    holder.close()
    assert Checkpoints(tmp_path).of("key").begin().records() == [b"mine"]


def test_finished_work_leaves_no_file(tmp_path: Path) -> None:
    log = Checkpoints(tmp_path).of("key").begin()
    log.append(b"x")
    log.discard()
    log.append(b"after the end")
    assert list(tmp_path.iterdir()) == []


def test_work_goes_on_where_nothing_can_be_kept(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    log = Checkpoints(blocked / "inside").of("key").begin()
    log.append(b"x")
    assert log.records() == []


def test_what_nobody_came_back_for_goes_and_the_oldest_make_room(tmp_path: Path) -> None:
    for age, name in ((0, "new"), (50, "older"), (500, "oldest")):
        path = tmp_path / f"{name}.part"
        path.write_bytes(b"x" * 100)
        os.utime(path, (1000 - age, 1000 - age))
    Checkpoints(tmp_path, keep_s=100).sweep(now=1000)
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["new", "older"]
    Checkpoints(tmp_path, max_bytes=150).sweep(now=1000)
    assert [path.stem for path in tmp_path.iterdir()] == ["new"]
