"""The GPU program itself, on a CPU: every section runs, results are there when it is cut short."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ABSENT = ("pydantic", "sqlalchemy", "aiohttp", "alembic", "rich", "prometheus_client", "PIL", "diffusers")
BLOCKED = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({ABSENT}))  # None there: cannot be imported
runpy.run_module("benchmarks.gpu", run_name="__main__", alter_sys=True)
"""
ROOT = Path(__file__).parents[2]


def program(out: Path, *options: str, source: str = "") -> subprocess.CompletedProcess[str]:
    command = ["-c", source] if source else ["-m", "benchmarks.gpu"]
    return subprocess.run(
        [sys.executable, *command, "--out", str(out), *options], cwd=ROOT, text=True, capture_output=True, timeout=300
    )


def test_every_section_runs_dry_without_what_a_bare_machine_lacks(tmp_path: Path) -> None:
    done = program(
        tmp_path, "--dry", "--only", "machine,product,product_fp8,eager,streamed,noise,loading", source=BLOCKED
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "results.json").read_text())
    assert not [row for row in rows if row["what"] == "failed"]
    assert {row["section"] for row in rows} == {
        *("machine", "product", "product_fp8", "eager", "streamed", "noise", "loading")
    }
    assert {row["what"]: row["text"] for row in rows if row["section"] == "streamed"} == {
        "streamed blocks": "needs CUDA: not run"
    }
    recompiles = [row["text"] for row in rows if "recompiles" in row["text"]]
    assert len(recompiles) == 6
    assert all("0 recompiles" in line and "failed" not in line for line in recompiles)
    (equal,) = (row["figures"]["equal"] for row in rows if row["section"] == "noise")
    assert equal


def test_a_section_that_fails_is_a_row_and_the_others_still_run(tmp_path: Path) -> None:
    broken = "def noise(bench): raise RuntimeError('the card is gone')\n"
    source = f"from benchmarks.gpu import sampling\n{broken}sampling.noise = noise\n{BLOCKED}"
    done = program(tmp_path, "--dry", "--only", "noise,loading", source=source)
    assert done.returncode == 1
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [row["text"] for row in rows if row["section"] == "noise"] == ["RuntimeError: the card is gone"]
    assert [row["what"] for row in rows if row["section"] == "loading"] == ["diffusion model"]
    assert "the card is gone" in (tmp_path / "results.md").read_text()


def test_unknown_sections_and_a_missing_card_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.gpu.__main__ import main

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for options, told in (
        (["--dry", "--only", "machin"], "no section machin; there are machine, product"),
        ([], "torch sees no CUDA device here; --dry runs on a CPU"),
    ):
        monkeypatch.setattr("sys.argv", ["gpu", "--out", str(tmp_path / "out"), *options])
        with pytest.raises(SystemExit, match="2"):
            main()
        assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
