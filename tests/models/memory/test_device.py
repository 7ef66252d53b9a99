"""Limits of control groups, choice of precision."""

from pathlib import Path

import pytest
import torch

from sigmagraph.engine.errors import OutOfMemory
from sigmagraph.engine.models.memory.device import compute_dtype, host_free_bytes, placement, require_room

GIB = 2**30
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def system(root: Path, groups: str, files: dict[str, str]) -> Path:
    contents = {"proc/meminfo": "MemFree: 1 kB\nMemAvailable:   33554432 kB\n", "proc/self/cgroup": groups, **files}
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/memory"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {}, 32 * GIB),
        ("0::/\n", {f"{V2}/memory.max": "max\n"}, 32 * GIB),
        ("0::/\n", {f"{V2}/memory.max": f"{4 * GIB}\n"}, 4 * GIB),
        ("0::/\n", {f"{V2}/memory.max": f"{4 * GIB}\n", f"{V2}/memory.current": f"{GIB}\n"}, 3 * GIB),
        (
            "0::/\n",
            {
                f"{V2}/memory.max": f"{8 * GIB}\n",
                f"{V2}/memory.current": f"{6 * GIB}\n",
                f"{V2}/memory.stat": f"anon 5\ninactive_file {2 * GIB}\nactive_file {GIB}\n",
            },
            5 * GIB,
        ),
        ("0::/job/step\n", {f"{V2}/job/memory.max": f"{3 * GIB}\n", f"{V2}/job/step/memory.max": "max\n"}, 3 * GIB),
        ("0::/not/mounted/here\n", {f"{V2}/memory.max": f"{2 * GIB}"}, 2 * GIB),
        ("5:cpu,cpuacct:/x\n4:memory:/x\n", {f"{V1}/x/memory.limit_in_bytes": f"{GIB}\n"}, GIB),
        ("4:memory:/\n", {f"{V1}/memory.limit_in_bytes": "9223372036854771712\n"}, 32 * GIB),
        ("0::/\n", {f"{V2}/memory.max": f"{64 * GIB}\n"}, 32 * GIB),
        ("0::/\n", {f"{V2}/memory.max": "1000\n", f"{V2}/memory.current": "3000\n"}, 0),
    ],
)
def test_free_memory_is_the_least_that_groups_and_machine_leave(
    tmp_path: Path, groups: str, files: dict[str, str], expected: int
) -> None:
    assert host_free_bytes(system(tmp_path, groups, files)) == expected


def test_this_process_has_memory_left() -> None:
    assert host_free_bytes() > 0


@pytest.mark.parametrize(
    ("device", "stored", "expected"),
    [
        (CPU, torch.float16, torch.float32),
        (CPU, torch.float8_e4m3fn, torch.float32),
        (CUDA, torch.float16, torch.float16),
        (CUDA, torch.bfloat16, torch.bfloat16),
        (CUDA, torch.float8_e4m3fn, torch.bfloat16),
        (CUDA, torch.float32, torch.float32),
    ],
)
def test_the_precision_follows_the_device_and_the_file(
    device: torch.device, stored: torch.dtype, expected: torch.dtype
) -> None:
    assert compute_dtype(device, stored) == expected
    assert placement(stored, device).dtype == expected


def test_what_cannot_fit_is_refused_with_both_figures() -> None:
    with pytest.raises(OutOfMemory, match=r"the model takes 1000000000\.00 GB on cpu, which has \d+\.\d\d GB left"):
        require_room("the model", 10**18, CPU)
    require_room("the model", 1, CPU)
