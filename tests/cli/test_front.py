import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from sigmagraph.engine.cli import fetch
from sigmagraph.engine.cli.app import app

HEAVY = {"torch", "transformers", "numpy", "pydantic", "PIL", "huggingface_hub", "sqlalchemy", "aiohttp", "nodes"}


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys; from sigmagraph.engine.cli.app import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "run" in done.stdout
    assert done.stderr == "[]\n"


def test_every_command_explains_itself() -> None:
    front = CliRunner().invoke(app, ["--help"])
    for command in ("run", "check", "nodes", "models", "fetch"):
        assert command in front.stdout
        shown = CliRunner().invoke(app, [command, "--help"])
        assert shown.exit_code == 0
        assert "Usage" in shown.stdout


def test_wrong_usage_is_exit_code_two_without_a_traceback() -> None:
    for arguments in (["run"], ["rnu"], ["run", "a.json", "--outptu", "x"]):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 2, arguments
        assert "Traceback" not in done.output


def test_nodes_lists_every_node_and_shows_one(home: Path) -> None:
    listed = CliRunner().invoke(app, ["nodes", "--home", str(home)])
    assert "CheckpointLoaderSimple" in listed.stdout
    shown = CliRunner().invoke(app, ["nodes", "CheckpointLoaderSimple", "--home", str(home)])
    assert "tiny.safetensors" in shown.stdout
    assert "MODEL" in shown.stdout


def test_an_unknown_node_is_told_with_the_nearest() -> None:
    done = CliRunner().invoke(app, ["nodes", "KSmapler"])
    assert done.exit_code == 1
    assert done.stderr == "error: 'KSmapler' is not a known node; did you mean 'KSampler'?\n"


def test_models_says_what_each_file_holds_or_what_is_wrong_with_it(home: Path) -> None:
    (home / "models/vae").mkdir()
    (home / "models/vae/broken.safetensors").write_bytes(b"\x80\x04pickle")
    done = CliRunner().invoke(app, ["models", "--home", str(home)])
    assert done.exit_code == 0
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert "a diffusion model, a VAE, clip_l, clip_g, t5xxl" in lines["checkpoints/tiny.safetensors"]
    assert "pickle" in lines["vae/broken.safetensors"]


def test_models_without_any_file_names_the_command_that_brings_some(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["models", "--home", str(tmp_path)])
    assert done.exit_code == 0
    assert "sigmagraph fetch" in done.stderr


def test_fetch_lists_what_there_is_and_refuses_unknown_names() -> None:
    listed = CliRunner().invoke(app, ["fetch"])
    assert all(name in listed.stdout for name in fetch.SETS)
    done = CliRunner().invoke(app, ["fetch", "sd3.5-lrage"])
    assert done.exit_code == 1
    assert "did you mean 'sd3.5-large'" in done.stderr
