"""One name is installed and one is imported: a folder with files called `engine.py` or `nodes.py` is no danger."""

import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import sigmagraph
from tests.serving import CHECKOUT, Server

ALL = sorted(
    module.name
    for module in pkgutil.walk_packages(sigmagraph.__path__, "sigmagraph.")
    if ".migrations" not in module.name and not module.name.endswith("__main__")
)
FOREIGN = ("engine", "nodes", "server", "comfy_execution", "folder_paths", "torch", "json", "typing", "aiohttp")


def test_a_wheel_has_every_file_of_data_and_no_link_leads_out_of_the_checkout() -> None:
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    packed = settings["tool"]["setuptools"]["package-data"]
    for file in (file for top in ("engine", "nodes") for file in (CHECKOUT / top).rglob("*")):
        assert file.resolve().is_relative_to(CHECKOUT.resolve()), f"{file} -> {file.resolve()}"
        if file.is_file() and file.suffix not in (".py", ".pyc", ".mako"):  # a mako makes migrations, in the checkout
            package = ".".join(("sigmagraph", *file.parent.relative_to(CHECKOUT).parts))
            assert any(file.match(pattern) for pattern in packed.get(package, ())), file


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


@pytest.mark.parametrize(
    "command", [[str(Path(sys.executable).with_name("sigmagraph"))], [sys.executable, "-m", "sigmagraph"]]
)
def test_the_command_runs_in_a_folder_of_files_with_the_names_of_modules(tmp_path: Path, command: list[str]) -> None:
    lay_traps(tmp_path)
    arguments = [*command, "run", str(CHECKOUT / "workflows/txt2img.json"), "--set", "KSampler.steps=1"]
    printed = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert printed.returncode == 0, printed.stderr
    assert Path(printed.stdout.split()[-1]).is_file()


def test_a_server_and_its_worker_start_in_such_a_folder(tmp_path: Path) -> None:
    lay_traps(tmp_path)
    server = Server(tmp_path / "home")
    server.command = [sys.executable, "-m", "sigmagraph", "serve"]
    try:
        assert server.start(folder=tmp_path).json("/ready") == {"status": "ready"}
    finally:
        server.stop()


def test_a_server_whose_worker_cannot_start_says_why_and_ends(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "torch.py").write_text("raise RuntimeError('driver too old')")
    server = Server(tmp_path / "home")
    try:
        server.start("/health", PYTHONPATH=str(broken))
        assert server.process is not None
        why = ""
        while "driver" not in why:
            why = server.refusal("/ready")["reason"]
        assert why == "no worker is ready: cannot start: RuntimeError: driver too old"
        assert server.process.wait(30) == 1
        last = (tmp_path / "home/server.log").read_text().strip().splitlines()[-1]
        assert last.startswith("error: worker did not start, 3 times in a row: cannot start: RuntimeError: driver")
    finally:
        server.stop()


def lay_traps(folder: Path) -> None:
    """Files of other projects, each of which ends the process that imports it."""
    (folder / "comfy").mkdir()
    for name in (*FOREIGN, "comfy/__init__"):
        (folder / f"{name}.py").write_text("raise SystemExit('a file of this folder was imported')")
