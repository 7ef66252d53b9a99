"""Where an allocator says no: `ulimit -v` is seen, and every allocator's words are understood."""

import subprocess
import sys
from pathlib import Path

import pytest

from sigmagraph.engine.errors import is_out_of_memory

LIMITED = """
import resource, sys, torch
from pathlib import Path
from sigmagraph.engine.errors import OutOfMemory, is_out_of_memory
from sigmagraph.engine.host import free_bytes
from sigmagraph.engine.models.files.read import MappedFile

status = Path("/proc/self/status").read_text()
used = int(status.split("VmSize:")[1].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, resource.RLIM_INFINITY))
assert 2**27 < free_bytes() <= 2**28, free_bytes()
try:
    torch.empty(2**30, dtype=torch.uint8)
except RuntimeError as error:
    assert is_out_of_memory(error), error
try:
    MappedFile(Path(sys.argv[1]))
except OutOfMemory as error:
    print("told:", error)
"""


def test_a_limit_of_the_address_space_is_seen_and_told(tmp_path: Path) -> None:
    with (tmp_path / "large.safetensors").open("wb") as file:
        file.truncate(2**30)
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "large.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "large.safetensors: no address space to map the file into" in done.stdout


class OutOfMemoryError(RuntimeError):
    """As torch calls its own, on every device."""


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: ..."),
        OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
        RuntimeError("could not create a memory object"),
        OSError(12, "Cannot allocate memory"),
        MemoryError(),
    ],
)
def test_what_allocators_say_is_out_of_memory(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), ValueError("out of memory"), None, [1]])
def test_what_others_say_is_not(error: object) -> None:
    assert not is_out_of_memory(error)
