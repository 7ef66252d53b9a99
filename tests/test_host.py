"""Limits of control groups, read from trees of files as the kernel shows them."""

from pathlib import Path

import pytest

from sigmagraph.engine.host import free_bytes, limit_bytes

GIB = 2**30


def system(root: Path, groups: str, files: dict[str, str]) -> Path:
    contents = {
        "proc/meminfo": "MemTotal: 41943040 kB\nMemFree: 1 kB\nMemAvailable:   33554432 kB\n",
        "proc/self/cgroup": groups,
        **files,
    }
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
    assert free_bytes(system(tmp_path, groups, files)) == expected


def test_this_process_has_memory_left() -> None:
    assert free_bytes() > 0


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {}, 40 * GIB),
        ("0::/\n", {f"{V2}/memory.max": f"{4 * GIB}\n", f"{V2}/memory.current": f"{GIB}\n"}, 4 * GIB),
        ("0::/job/step\n", {f"{V2}/job/memory.max": f"{3 * GIB}\n", f"{V2}/job/step/memory.max": "max\n"}, 3 * GIB),
        ("4:memory:/\n", {f"{V1}/memory.limit_in_bytes": f"{GIB}\n"}, GIB),
        ("4:memory:/\n", {f"{V1}/memory.limit_in_bytes": "9223372036854771712\n"}, 40 * GIB),
    ],
)
def test_the_limit_is_the_least_of_groups_and_machine(
    tmp_path: Path, groups: str, files: dict[str, str], expected: int
) -> None:
    assert limit_bytes(system(tmp_path, groups, files)) == expected


def test_without_the_kernels_files_the_machine_is_the_limit(tmp_path: Path) -> None:
    assert limit_bytes(tmp_path) == free_bytes(tmp_path) > GIB // 4
