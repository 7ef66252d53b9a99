import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sigmagraph.engine.errors import WriteFailed
from sigmagraph.engine.writing import MOST_WAITING, PLACE, WriteBehind, drafted, make_folder, write_file, write_new


def numbered() -> list[str]:
    return [f"{number}.png" for number in range(1, 100)]


def test_a_file_is_replaced_in_one_step_and_nothing_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_file(path, b"old")
    write_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_takes_the_first_free_name(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"kept")
    assert write_new(tmp_path, numbered(), b"new").name == "2.png"
    assert (tmp_path / "1.png").read_bytes() == b"kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.png", "2.png"]


def test_without_hard_links_a_name_is_still_not_taken_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    names = [write_new(tmp_path, numbered(), b"new").name for _ in range(3)]
    assert names == ["1.png", "2.png", "3.png"]


def test_writers_at_the_same_time_never_share_a_name(tmp_path: Path) -> None:
    def write(index: int) -> None:
        for _ in range(5):
            write_new(tmp_path, numbered(), bytes([index]))

    threads = [threading.Thread(target=write, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    contents = [path.read_bytes()[0] for path in tmp_path.iterdir()]
    assert sorted(contents) == sorted([index for index in range(8) for _ in range(5)])


def test_a_write_that_fails_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(WriteFailed, match="a: cannot be written: No space left on device"):
        write_file(tmp_path / "a", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_a_folder_where_a_file_is_cannot_be_made(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteFailed, match="cannot be written"):
        make_folder(tmp_path / folder)


def test_a_missing_folder_is_an_error_that_names_the_place(tmp_path: Path) -> None:
    with pytest.raises(WriteFailed, match="nowhere.*No such file"):
        write_new(tmp_path / "nowhere", numbered(), b"")


class Slow:
    """A file that waits for leave before each write, and is full after so many bytes."""

    def __init__(self, room: int = 10**9) -> None:
        self.written, self.room, self.leave = list[bytes](), room, threading.Semaphore(0)

    def write(self, data: memoryview) -> None:
        self.leave.acquire()
        if sum(map(len, self.written)) + data.nbytes > self.room:
            raise OSError(28, "No space left on device")
        self.written.append(bytes(data))


def test_what_is_written_behind_comes_in_order_and_at_most_so_much_waits() -> None:
    file, handed = Slow(), list[int]()
    piece = bytes(MOST_WAITING // 4)

    def hand_over() -> None:
        with WriteBehind(file) as write:  # type: ignore[arg-type]
            for number in range(12):
                write(memoryview(bytes([number]) + piece[1:]))
                handed.append(number)

    caller = threading.Thread(target=hand_over)
    caller.start()
    for allowed in range(12):
        reached = min(allowed + 4, 12)  # the one that is being written counts among those that wait
        deadline = time.monotonic() + 10
        while len(handed) < reached and time.monotonic() < deadline:
            time.sleep(0.001)
        assert len(handed) == reached
        file.leave.release()
    caller.join(10)
    assert [data[0] for data in file.written] == list(range(12))
    assert all(data[1:] == piece[1:] for data in file.written)


def test_a_place_is_lent_again_only_when_it_has_been_written() -> None:
    file, places = Slow(), set[int]()

    def make() -> None:
        with WriteBehind(file) as write:  # type: ignore[arg-type]
            for number in range(12):
                place = write.place(PLACE // 2)
                places.add(id(place.obj))
                place[:] = bytes([number]) * (PLACE // 2)
                write(place)

    maker = threading.Thread(target=make)
    maker.start()
    for _ in range(12):
        time.sleep(0.005)  # the maker gets as far as it can
        file.leave.release()
    maker.join(10)
    assert [(data[0], len(set(data))) for data in file.written] == [(number, 1) for number in range(12)]
    assert len(places) == MOST_WAITING // PLACE


def test_a_place_larger_than_those_kept_is_made_for_it() -> None:
    file = Slow()
    file.leave.release()
    with WriteBehind(file) as write:  # type: ignore[arg-type]
        place = write.place(PLACE + 1)
        place[:] = b"x" * (PLACE + 1)
        write(place)
    assert file.written == [b"x" * (PLACE + 1)]


def behind(file: Slow, pieces: int, size: int, then: Callable[[], object] = lambda: None) -> None:
    """So many pieces handed over, then what the maker does next."""
    with WriteBehind(file) as write:  # type: ignore[arg-type]
        for _ in range(pieces):
            write(memoryview(bytes(size)))
        then()


def test_an_error_in_writing_behind_is_the_maker_s_and_leaves_no_thread(tmp_path: Path) -> None:
    def into_a_draft() -> None:
        with drafted(tmp_path, ["a"]):
            behind(file, 1, 20)  # found when the block ends

    before, file = threading.active_count(), Slow(room=10)
    file.leave.release(100)
    with pytest.raises(OSError, match="No space left"):
        behind(file, 1000, 4)
    with pytest.raises(WriteFailed, match="No space left"):
        into_a_draft()
    assert threading.active_count() == before
    assert not list(tmp_path.iterdir())


def test_what_waits_is_dropped_where_its_maker_fails() -> None:
    def fail() -> None:
        late.start()
        raise KeyError("x")

    before, file = threading.active_count(), Slow()
    late = threading.Timer(0.5, file.leave.release, [100])  # the first is being written until then
    with pytest.raises(KeyError):
        behind(file, 3, 4, fail)
    late.join()
    assert len(file.written) <= 1
    assert threading.active_count() == before


def test_what_a_killed_writer_left_goes_and_what_is_being_written_stays(tmp_path: Path) -> None:
    (tmp_path / ".draft-dead").write_bytes(b"half")
    (tmp_path / ".draft-young").write_bytes(b"half")
    with drafted(tmp_path, ["slow"]) as (file, _):
        file.write(b"first")
        file.flush()
        [writing] = set(tmp_path.iterdir()) - {tmp_path / ".draft-dead", tmp_path / ".draft-young"}
        for path in (writing, tmp_path / ".draft-dead"):
            os.utime(path, (0, 0))  # nothing came for a long time
        with drafted(tmp_path, ["quick"]):
            pass
        assert {path.name for path in tmp_path.iterdir()} == {".draft-young", writing.name, "quick"}
        file.write(b", second")
    assert (tmp_path / "slow").read_bytes() == b"first, second"
