"""What docs/models.md says of residency, precision and speed on a CPU, in one command: two programs at a time.

    python -m benchmarks.proofs FOLDER [--only NAME]     # root; writes 34 GB there once

Every program has one thread, and judges itself by its exit code. Its output goes to FOLDER/NAME.log. The table has the
clock and the processor's time of each, children included; the last line those of the whole, and the machine's load.
"""

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

AT_ONCE = 2
PYTEST = ("pytest", "-q", "-p", "no:cacheprovider")
QUICK = (
    "tests/models/memory",
    "tests/models/text",
    "tests/models/test_autoencoding.py",
    "tests/models/test_compiled.py",
)
# The longest first. What follows `python -m`; FOLDER stands for the folder.
PROGRAMS: dict[str, tuple[str, ...]] = {
    "small_machine": ("benchmarks.small_machine", "FOLDER"),
    "jobs": (*PYTEST, "-m", "slow", "tests/e2e/test_ten_thousand_jobs.py"),
    "diffusers": (
        "benchmarks.mmdit_vae_vs_diffusers",
        *["--threads", "1", "--clock", "cpu", "--rounds", "2", "--only", "bf16"],
    ),
    "diffusers_float32": (
        "benchmarks.mmdit_vae_vs_diffusers",
        *["--threads", "1", "--clock", "cpu", "--rounds", "1"],
        "--only",
        "decode, 512 px, fp32",
    ),
    "quick": (*PYTEST, *QUICK, "tests/e2e/test_loaded_once.py"),
}


def main() -> None:
    """Run them all; exit code 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=tuple(PROGRAMS), default=None)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    names = [name for name in PROGRAMS if given.only in (None, name)]
    began, worked = time.perf_counter(), os.times()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        codes = list(pool.map(partial(ran, given.folder), names))
    spent = _children(os.times()) - _children(worked)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{'all':18} {time.perf_counter() - began:7.0f} s  {spent:7.0f} s of processor; load {load}")
    raise SystemExit(max(codes))


def ran(folder: Path, name: str) -> int:
    """One program's line; its exit code."""
    command = [sys.executable, "-m", *(str(folder) if word == "FOLDER" else word for word in PROGRAMS[name])]
    began = time.perf_counter()
    with (folder / f"{name}.log").open("w") as log:
        program = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
        _, status, used = os.wait4(program.pid, 0)
    code = program.returncode = os.waitstatus_to_exitcode(status)
    took, spent = time.perf_counter() - began, used.ru_utime + used.ru_stime
    print(
        f"{name:18} {took:7.0f} s  {spent:7.0f} s of processor; {'passed' if code == 0 else f'FAILED ({code})'}",
        flush=True,
    )
    return abs(code)


def _children(times: os.times_result) -> float:
    return times.children_user + times.children_system


if __name__ == "__main__":
    main()
