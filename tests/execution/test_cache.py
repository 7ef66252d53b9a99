from dataclasses import dataclass
from typing import Any

from sigmagraph.engine.execution.cache.footprint import size_of
from sigmagraph.engine.execution.cache.memory import Entry, MemoryCache


@dataclass(frozen=True)
class Block:
    """Something that says how large it is."""

    nbytes: int


def entry(size: int, milliseconds: float = 1.0, block: Any = None) -> Entry:
    return Entry(([block or Block(size)],), None, milliseconds)


def test_what_was_put_in_comes_out() -> None:
    cache, made = MemoryCache(), entry(10)
    cache.put("k", made)
    assert cache.get("k") is made
    assert cache.get("other") is None


def test_the_budget_is_never_exceeded() -> None:
    cache = MemoryCache(budget_bytes=10_000)
    for i in range(100):
        cache.put(str(i), entry(900))
        assert cache.used_bytes <= 10_000
    assert len(cache) > 5


def test_what_is_cheap_to_make_again_leaves_first() -> None:
    cache = MemoryCache(budget_bytes=3_500)
    cache.put("dear", entry(1_000, milliseconds=500))
    cache.put("cheap", entry(1_000, milliseconds=1))
    cache.put("third", entry(1_000, milliseconds=100))
    cache.put("fourth", entry(1_000, milliseconds=100))
    assert "cheap" not in cache
    assert "dear" in cache


def test_cost_counts_per_byte() -> None:
    cache = MemoryCache(budget_bytes=12_000)
    cache.put("large", entry(10_000, milliseconds=100))
    cache.put("small", entry(100, milliseconds=50))
    cache.put("next", entry(5_000, milliseconds=100))
    assert "large" not in cache
    assert "small" in cache


def test_a_dear_entry_nobody_asks_for_leaves_in_the_end() -> None:
    cache = MemoryCache(budget_bytes=3_500)
    cache.put("dear", entry(1_000, milliseconds=50))
    for i in range(200):
        cache.put(f"c{i}", entry(1_000, milliseconds=5))
    assert "dear" not in cache


def test_an_entry_larger_than_the_budget_is_not_kept_and_displaces_nothing() -> None:
    cache = MemoryCache(budget_bytes=5_000)
    cache.put("a", entry(1_000))
    cache.put("huge", entry(50_000))
    assert "a" in cache
    assert "huge" not in cache


def test_a_block_that_several_entries_share_is_counted_once() -> None:
    cache, weights = MemoryCache(), Block(1_000_000)
    cache.put("a", entry(0, block=weights))
    cache.put("b", entry(0, block=weights))
    assert cache.used_bytes < 1_001_000
    cache.drop("a")
    assert cache.used_bytes >= 1_000_000
    cache.drop("b")
    assert cache.used_bytes == 0


def test_putting_the_same_key_again_replaces_it() -> None:
    cache = MemoryCache()
    cache.put("a", entry(1_000))
    cache.put("a", entry(10))
    assert cache.used_bytes < 500


def test_clearing_forgets_everything() -> None:
    cache = MemoryCache()
    cache.put("a", entry(1_000))
    cache.clear()
    assert (len(cache), cache.used_bytes) == (0, 0)


def test_sizes_are_found_inside_containers_and_records() -> None:
    @dataclass
    class Latent:
        samples: Block
        mask: Any = None

    block = Block(4096)
    assert size_of({"a": [block], "b": (block, Latent(block))}) >= 4096
    assert size_of([Block(4096), Latent(Block(4096))]) >= 8192
    assert size_of({"a": [block], "b": (block, Latent(block))}) < 6000


def test_a_value_that_contains_itself_has_a_size() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert size_of(loop) > 0
