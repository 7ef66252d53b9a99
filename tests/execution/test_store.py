import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.execution.cache.disk import DiskTier
from sigmagraph.engine.execution.cache.memory import Entry, InnerUi, MemoryCache
from sigmagraph.engine.execution.cache.result_store import Found, ResultStore
from sigmagraph.engine.execution.cache.serialise import DamagedError, Packer, Serialiser, UnpackableError
from sigmagraph.engine.execution.cache.settings import CacheSettings, parse_size
from sigmagraph.engine.execution.inline import execute
from sigmagraph.engine.graph.node import node
from sigmagraph.engine.graph.plan import plan
from tests.execution.running import with_nodes
from tests.graph.small import Anything, checked, prompt


@dataclass(frozen=True)
class Pixels:
    """A stand-in for a tensor."""

    data: bytes

    @property
    def nbytes(self) -> int:
        return len(self.data)


@dataclass(frozen=True)
class Latent:
    """A record with a tensor in it."""

    samples: Pixels
    index: tuple[int, ...] | None = None


PACKING = Serialiser([Packer("pixels", lambda value: type(value) is Pixels, lambda p: p.data, Pixels)], [Latent])
KEY = "0123456789abcdef" * 2


@pytest.fixture
def tier(tmp_path: Path) -> Iterator[DiskTier]:
    made = DiskTier(tmp_path / "cache", PACKING, 10_000_000, cheapest_ms=0.0)
    yield made
    made.close()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary().map(Pixels),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=3)
        | st.binary().map(lambda data: Latent(Pixels(data), (1, 2)))
    ),
    max_leaves=10,
)


@given(st.lists(st.lists(VALUES, max_size=3), max_size=3))
def test_what_is_packed_comes_back_exactly(outputs: list[list[Any]]) -> None:
    entry = Entry(tuple(outputs), {"images": [{"filename": "a"}]}, 12.5, (InnerUi(".1", "Show", {"shown": [1]}, "7"),))
    back = PACKING.read(KEY, PACKING.write(KEY, entry))
    assert back == entry
    assert repr(back) == repr(entry)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_any_changed_byte_is_noticed(place: int, change: int) -> None:
    data = bytearray(PACKING.write(KEY, Entry(([1, Pixels(b"abc" * 50)],))))
    data[place % len(data)] ^= change
    with pytest.raises(DamagedError):
        PACKING.read(KEY, bytes(data))


def test_what_no_packer_takes_is_not_written() -> None:
    with pytest.raises(UnpackableError, match="object"):
        PACKING.write(KEY, Entry(([object()],)))


def test_an_entry_of_another_key_is_not_believed() -> None:
    with pytest.raises(DamagedError, match="another key"):
        PACKING.read("f" * 32, PACKING.write(KEY, Entry(([1],))))


def test_entries_survive_a_restart(tier: DiskTier) -> None:
    entry = Entry(([Pixels(b"xyz")],), None, 50.0)
    tier.put(KEY, entry)
    tier.flush()
    again = DiskTier(tier.folder, PACKING, 10_000_000)
    assert KEY in again
    assert again.get(KEY) == entry
    assert again.used_bytes == tier.used_bytes > 0


def test_a_damaged_file_is_reported_removed_and_absent(tmp_path: Path) -> None:
    told: list[str] = []
    tier = DiskTier(tmp_path, PACKING, 10_000, told.append)
    tier.put(KEY, Entry(([1],), None, 50.0))
    tier.close()
    (path,) = tmp_path.glob("??/*.entry")
    path.write_bytes(path.read_bytes()[:-3])
    assert tier.get(KEY) is None
    assert KEY not in tier
    assert not path.exists()
    assert "its digest does not match; the entry is removed and will be computed again" in told[0]


def test_the_disk_budget_holds_and_the_cheapest_per_byte_leave(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path, PACKING, 10_000)
    for i in range(20):
        tier.put(f"{i:032x}", Entry(([Pixels(b"x" * 1_000)],), None, 10.0 if i % 4 else 10_000.0))
    tier.close()
    assert tier.used_bytes <= 10_000
    kept = [i for i in range(20) if f"{i:032x}" in tier]
    assert {0, 4, 8, 12, 16} <= set(kept)


def test_a_folder_that_cannot_be_written_is_reported_and_the_run_goes_on(tmp_path: Path) -> None:
    told: list[str] = []
    tier = DiskTier(tmp_path / "cache", PACKING, 10_000, told.append)
    (tmp_path / "cache" / KEY[:2]).write_text("a file in the way", encoding="utf-8")
    tier.put(KEY, Entry(([1],), None, 50.0))
    tier.close()
    assert "the entry stays in memory only" in told[0]


def test_a_value_that_fails_while_it_is_packed_is_reported_and_the_next_one_is_written(tmp_path: Path) -> None:
    """A device out of memory, say. Results wait for this thread: it must not end."""

    def pack(value: Pixels) -> bytes:
        raise RuntimeError("no memory left on the device")

    told: list[str] = []
    packing = Serialiser([Packer("pixels", lambda value: type(value) is Pixels, pack, Pixels)])
    tier = DiskTier(tmp_path, packing, 10_000, told.append)
    tier.put(KEY, Entry(([Pixels(b"x")],), None, 50.0))
    tier.put(KEY[::-1], Entry(([1],), None, 50.0))
    tier.close()
    assert "RuntimeError: no memory left on the device; it stays in memory only" in told[0]
    assert KEY not in tier
    assert KEY[::-1] in tier


def test_two_files_of_one_key_count_once_and_old_drafts_go(tmp_path: Path) -> None:
    """Two processes that share a folder may write the same entry; one that is killed leaves a draft behind."""
    one, other = (DiskTier(tmp_path, PACKING, 10_000) for _ in range(2))
    one.put(KEY, Entry(([1],), None, 50.0))
    other.put(KEY, Entry(([1],), None, 60.0))
    one.close()
    other.close()
    fresh, stale = (tmp_path / KEY[:2] / f".draft-{name}" for name in ("fresh", "stale"))
    for entry in (fresh, stale):
        entry.write_bytes(b"half")
    os.utime(stale, (time.time() - 7200,) * 2)
    again = DiskTier(tmp_path, PACKING, 10_000)
    (path,) = tmp_path.glob("??/*.entry")
    assert again.used_bytes == path.stat().st_size
    assert again.get(KEY) is not None
    assert fresh.exists()
    assert not stale.exists()


def test_what_another_process_removed_is_computed_again(tmp_path: Path) -> None:
    told: list[str] = []
    tier = DiskTier(tmp_path, PACKING, 10_000, told.append)
    tier.put(KEY, Entry(([1],), None, 50.0))
    tier.close()
    next(tmp_path.glob("??/*.entry")).unlink()
    assert ResultStore(MemoryCache(), tier).claim(KEY, lambda: None) is True
    assert len(told) == 1


def test_an_entry_with_a_packer_nobody_has_any_more_is_damaged() -> None:
    data = PACKING.write(KEY, Entry(([Pixels(b"x")],)))
    with pytest.raises(DamagedError, match="'pixels' that nobody here reads"):
        Serialiser().read(KEY, data)


def test_what_took_no_time_is_not_written(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path, PACKING, 10_000)
    tier.put(KEY, Entry(([1],), None, 0.01))
    tier.close()
    assert len(tier) == 0


# -- whole runs over the two tiers

CALLS: list[str] = []


@node("Sample", category="test")
def sample(*, seed: int = 0, after: Anything = None) -> Anything:
    """A stand-in for a sampler."""
    CALLS.append("Sample")
    return Latent(Pixels(f"{seed}/{after}".encode()))


def twelve() -> dict[str, Any]:
    links = {f"n{i}": ("Sample", {"seed": i, "after": [f"n{i - 1}", 0]} if i else {"seed": 0}) for i in range(11)}
    return prompt(**links, s=("Show", {"value": ["n10", 0]}))


def run_with(store: ResultStore) -> Any:
    return execute(plan(checked(twelve(), with_nodes(sample))), None, store).or_raise()


def test_after_a_restart_nothing_but_the_output_runs_and_the_bytes_are_the_same(tmp_path: Path) -> None:
    CALLS.clear()
    first = run_with(ResultStore(MemoryCache(), DiskTier(tmp_path, PACKING, 10_000_000, cheapest_ms=0.0)))
    second = run_with(ResultStore(MemoryCache(), DiskTier(tmp_path, PACKING, 10_000_000, cheapest_ms=0.0)))
    assert len(CALLS) == 11
    assert second.executed == ["s"]
    assert {report.outcome for node_id, report in second.nodes.items() if node_id != "s"} == {"disk"}
    assert second.ui == first.ui


def test_a_killed_process_leaves_its_results_behind(tmp_path: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "from tests.execution.test_store import DiskTier, MemoryCache, PACKING, ResultStore, run_with\n"
        "tier = DiskTier(Path(sys.argv[1]), PACKING, 10_000_000, cheapest_ms=0.0)\n"
        "print(run_with(ResultStore(MemoryCache(), tier)).ui, flush=True)\ntime.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as child:
        assert child.stdout is not None
        told = child.stdout.readline().strip()
        child.kill()
    CALLS.clear()
    again = run_with(ResultStore(MemoryCache(), DiskTier(tmp_path, PACKING, 10_000_000, cheapest_ms=0.0)))
    assert CALLS == []
    assert str(again.ui) == told
    assert {report.outcome for node_id, report in again.nodes.items() if node_id != "s"} == {"disk"}


def test_a_damaged_entry_is_computed_again_with_the_same_result(tmp_path: Path) -> None:
    first = run_with(ResultStore(MemoryCache(), DiskTier(tmp_path, PACKING, 10_000_000, cheapest_ms=0.0)))
    for path in tmp_path.glob("??/*.entry"):
        path.write_bytes(b"SGENTRY1 rubbish")
    told: list[str] = []
    second = run_with(ResultStore(MemoryCache(), DiskTier(tmp_path, PACKING, 10_000_000, told.append, cheapest_ms=0.0)))
    assert second.ui == first.ui
    assert told


def test_equal_work_of_concurrent_runs_is_done_once() -> None:
    begun = threading.Event()
    calls: list[int] = []

    @node("Slow", category="test")
    def slow(*, value: int = 0) -> int:
        """Takes its time."""
        calls.append(value)
        begun.set()
        time.sleep(0.1)
        return value

    store = ResultStore()
    made = with_nodes(slow)
    results: list[Any] = []

    def run(name: str) -> None:
        document = prompt(**{name: ("Slow", {"value": 7})}, s=("Show", {"value": [name, 0]}))
        results.append(execute(plan(checked(document, made)), None, store).or_raise())

    threads = [threading.Thread(target=run, args=(f"n{i}",)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [7]
    assert [result.ui["s"] for result in results] == [{"shown": [7]}] * 5


def test_a_failure_lets_the_next_one_try() -> None:
    tries: list[int] = []
    entered = threading.Event()

    @node("Once", category="test")
    def once(*, value: int = 0) -> int:
        """Fails the first time."""
        tries.append(value)
        entered.set()
        if len(tries) == 1:
            time.sleep(0.05)
            raise ValueError("not yet")
        return value

    store, made = ResultStore(), with_nodes(once)
    document = prompt(n=("Once", {"value": 3}), s=("Show", {"value": ["n", 0]}))
    errors: list[Any] = []

    def run() -> None:
        errors.append(execute(plan(checked(document, made)), None, store).error)

    first = threading.Thread(target=run)
    first.start()
    entered.wait()
    second = threading.Thread(target=run)
    second.start()
    first.join()
    second.join()
    assert len(tries) == 2
    assert sorted(error is None for error in errors) == [False, True]


def test_a_result_with_a_nan_in_it_is_not_kept() -> None:
    store = ResultStore()
    for at, value in enumerate([float("nan"), [1.0, {"a": float("nan")}], Latent(Pixels(b""), (float("nan"),))]):
        store.keep(str(at), Entry(([value],)))
        assert str(at) not in store
    store.keep("fine", Entry(([1.0, Latent(Pixels(b""), (1,))],)))
    assert "fine" in store


def test_a_claim_finds_what_appeared_meanwhile() -> None:
    store, entry = ResultStore(), Entry(([1],))
    assert store.claim("k", lambda: None) is True
    store.keep("k", entry)
    assert store.claim("k", lambda: None) == Found(entry, "memory")


# -- settings


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4GiB", 4 * 1024**3), ("500MB", 500_000_000), ("2k", 2048), ("1024", 1024), ("1.5 GiB", 1610612736), ("0", 0)],
)
def test_sizes_are_read(text: str, expected: int) -> None:
    assert parse_size(text) == expected


def test_the_cache_option_is_read() -> None:
    assert CacheSettings.parse("memory=4GiB,disk=20GiB") == CacheSettings(4 * 1024**3, 20 * 1024**3)
    assert CacheSettings.parse("off") == CacheSettings(0, 0)
    assert CacheSettings.parse("disk=1GiB").memory_bytes > 0


@pytest.mark.parametrize("text", ["", "memory", "memory=lots", "ram=4GiB", "memory=4XB"])
def test_a_wrong_cache_option_says_what_is_allowed(text: str) -> None:
    with pytest.raises(BadValue, match="such as memory=4GiB,disk=20GiB"):
        CacheSettings.parse(text)
