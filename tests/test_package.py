"""One name is installed and one is imported: a folder with files called `engine.py` or `nodes.py` is no danger."""

import pkgutil
import subprocess
import sys
from pathlib import Path

import sigmagraph

ALL = sorted(
    module.name
    for module in pkgutil.walk_packages(sigmagraph.__path__, "sigmagraph.")
    if ".migrations" not in module.name and not module.name.endswith("__main__")
)
FOREIGN = ("engine", "nodes", "server", "comfy", "folder_paths", "torch", "json", "typing", "aiohttp")


def test_importing_everything_leaves_no_top_level_name_but_ours() -> None:
    code = f"""
import importlib, sys
for name in {ALL!r}:
    importlib.import_module(name)
print(*sorted(name for name in sys.modules if name.split(".")[0] in ("engine", "nodes")))
"""
    printed = subprocess.run(
        [sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True, timeout=120
    )
    assert printed.stdout.strip() == ""
    assert len(ALL) > 300


def test_the_command_runs_in_a_folder_of_files_with_the_names_of_modules(tmp_path: Path) -> None:
    for name in FOREIGN:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of this folder was imported')")
    command = Path(sys.executable).with_name("sigmagraph")
    printed = subprocess.run(
        [str(command), "nodes", "KSampler"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert printed.returncode == 0, printed.stderr
    assert "latent_image" in printed.stdout
