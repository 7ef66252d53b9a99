"""Free memory goes back to the machine, whatever still lives above it. In processes of their own: they set malloc."""

import subprocess
import sys

import pytest

GROWS_AND_LETS_GO = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from sigmagraph.engine.server.transport.allocator import give_back, keep_little

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

if "few" in sys.argv:
    keep_little()
threads, begun = 4, Barrier(4)

def work(number):
    begun.wait()
    blocks = [bytearray(64 * 1024) for _ in range(400)]  # 26 MB each, below what is mapped
    return blocks[-1]  # the last lives on and holds what is below it

with ThreadPoolExecutor(threads) as pool:
    before = resident_mb()
    kept = list(pool.map(work, range(threads)))
    print(resident_mb() - before)
    give_back()
    print(resident_mb() - before)
"""


def grown_mb(*options: str) -> tuple[float, float]:
    """How much larger the process is before and after it gave memory back."""
    command = [sys.executable, "-c", GROWS_AND_LETS_GO, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    before, after = map(float, done.stdout.split())
    return before, after


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
@pytest.mark.parametrize("options", [(), ("few",)])
def test_what_was_freed_below_a_living_block_goes_back(options: tuple[str, ...]) -> None:
    before, after = grown_mb(*options)
    assert before > 20, "the allocator kept nothing, so this test shows nothing"
    assert after < 5
