"""What docs/models.md says of residency, precision and speed on a CPU, in one command: two programs at a time.

    python -m benchmarks.proofs FOLDER [--only NAME]     # root; writes 34 GB there once

Every program has one thread, and judges itself by its exit code. Its output goes to FOLDER/NAME.log. First come the
clock and the processor's time of each, children included; then every row with its bound and figures (MISSED where its
program missed any bound of its own); the last line has the time of the whole, and the machine's load.
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
    "copies": (*PYTEST, "-m", "slow", "tests/models/memory/test_device_traffic.py"),
    "quick": (*PYTEST, *QUICK, "tests/e2e/test_loaded_once.py"),
}
# What is shown, its bound, by which program, and what the lines of its log begin with that have the figure.
ROWS: tuple[tuple[str, str, str, str], ...] = (
    ("three prompts, cache of a quarter of the model", "loaded once", "quick", ""),
    ("Medium + T5, 512, 8 GiB", "a picture", "small_machine", "picture"),
    ("the same, 3 GiB", "refused before reading, with the plan", "small_machine", "refused"),
    ("4.9 GB opens", "<= 1 s, <= 5 % anonymous", "small_machine", "open"),
    ("diffusers' from_pretrained, same run", "takes more, and longer", "small_machine", "peer"),
    ("MMDiT step bf16", "<= 1.03 of diffusers", "diffusers", "real: "),
    ("VAE decode bf16", "<= 0.85 of diffusers", "diffusers", "real: vae"),
    ("VAE decode fp32", "<= 0.85 of diffusers", "diffusers_float32", "real: vae"),
    ("Large + T5, 1024, live bytes", "<= 16 GB, float8 <= 11; LoRA <= +1; tiles of 2048 <= 1", "quick", ""),
    ("decode of 1024, 2 GiB", "in strips", "small_machine", "decode"),
    ("decode under ulimit -v", "a clear OutOfMemory, at once", "small_machine", "ulimit"),
    ("streamed against resident", "equal, peak <= 1/3", "quick", ""),
    ("copies and reads, every sampler", "0 copies; 1 number an evaluation", "copies", ""),
    ("compile: sizes, texts, LoRAs", "<= 2 graphs, 0 recompiles", "quick", ""),
    ("recorded token lists", "equal", "quick", ""),
    ("10,000 jobs over three models", "flat, each load accounted", "jobs", ""),
)


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
    told(given.folder, dict(zip(names, codes, strict=True)))
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


def told(folder: Path, codes: dict[str, int]) -> None:
    """Every row of what was run: its bound, whether its program kept all of its own, and the figures."""
    for what, bound, program, starts in ROWS:
        if program in codes:
            lines = (folder / f"{program}.log").read_text("utf-8", errors="replace").splitlines()
            found = [line for line in lines if starts and line.startswith(starts)] or lines[-1:]
            print(f"{what:46} {bound:54} {'kept  ' if codes[program] == 0 else 'MISSED'}")
            for line in found:
                print(f"    {line[:220]}", flush=True)


def _children(times: os.times_result) -> float:
    return times.children_user + times.children_system


if __name__ == "__main__":
    main()
