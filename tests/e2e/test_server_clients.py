"""Other projects' API clients against a server of ours. See server_clients/run.sh for what has to be installed."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.serving import CHECKOUT, Server

pytestmark = pytest.mark.clients
SCRIPTS = Path(__file__).with_name("server_clients")
CHECKPOINT = CHECKOUT / "models/checkpoints/sigmagraph-demo.safetensors"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("home")
    (home / "models/checkpoints").mkdir(parents=True)
    (home / "models/checkpoints" / CHECKPOINT.name).symlink_to(CHECKPOINT)
    running = Server(home).start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def clients() -> Path:
    folder = Path(os.environ.get("SIGMAGRAPH_TEST_CLIENTS", CHECKOUT / ".ci/clients"))
    if not (folder / "venv").is_dir():
        pytest.fail("run tests/e2e/server_clients/run.sh")
    return folder


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """The demo workflow with four steps."""
    document = json.loads((CHECKOUT / "workflows/txt2img.json").read_text())
    document["5"]["inputs"]["steps"] = 4
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "up.png"
    Image.new("RGB", (8, 8), (1, 2, 3)).save(path)
    return path


def said(command: list[str], folder: Path) -> Any:
    """The JSON a script printed; clients print lines of their own around it."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(next(line for line in reversed(done.stdout.splitlines()) if line.startswith("{")))


def test_comfy_api_simplified(server: Server, clients: Path, graph: Path, picture: Path, tmp_path: Path) -> None:
    python = str(clients / "venv/bin/python")
    found = said([python, str(SCRIPTS / "simplified.py"), server.url, str(graph), str(picture)], tmp_path)
    assert (found["images"], found["png"], found["uploaded"]) == (1, True, "up.png")
    assert found["queue"] == {"queue_running": [], "queue_pending": []}


def test_comfy_script_turns_every_definition_into_types(server: Server, clients: Path, tmp_path: Path) -> None:
    found = said([str(clients / "venv/bin/python"), str(SCRIPTS / "script.py"), server.url], tmp_path)
    assert found == {"size": [32, 32]}


def test_comfy_cli_checks_runs_and_waits(server: Server, clients: Path, graph: Path, tmp_path: Path) -> None:
    comfy = [str(clients / "venv/bin/comfy"), "--skip-prompt", "--no-enable-telemetry", "--json"]
    place = ["--host", "127.0.0.1", "--port", str(server.port)]
    command = [*comfy, "run", "--workflow", str(graph), "--wait", *place]
    environment = os.environ | {"HOME": str(tmp_path)}
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=180, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "completed" in done.stdout.lower()


@pytest.fixture
def node(clients: Path, tmp_path: Path) -> list[str]:
    """Node, in a folder where it finds the packages."""
    for script in SCRIPTS.glob("*.mjs"):
        shutil.copy(script, tmp_path)
    (tmp_path / "node_modules").symlink_to(clients / "npm/node_modules")
    return ["node"]


def test_saintno_sdk(server: Server, node: list[str], graph: Path, picture: Path, tmp_path: Path) -> None:
    found = said([*node, "sdk.mjs", server.url, str(graph), str(picture)], tmp_path)
    assert found["images"] == 1
    assert set(found["seen"]) >= {"pending", "start", "progress", "output"}
    assert found["uploaded"]["filename"] if isinstance(found["uploaded"], dict) else found["uploaded"] == "sdk.png"
    assert (found["devices"], found["checkpoints"], found["samplers"], found["histories"]) == (1, 1, True, True)


def test_stable_canvas_client(server: Server, node: list[str], graph: Path, tmp_path: Path) -> None:
    found = said([*node, "canvas.mjs", server.url, str(graph)], tmp_path)
    assert (found["images"], found["stats"], found["settings"], found["extensions"]) == (1, 1, "object", True)


SIGHT = {"cancelled": "canceled", "copied": 1, "png": "PNG"}


def test_comfy_sdk_runs_watches_cancels_and_keeps_assets(
    server: Server, clients: Path, graph: Path, picture: Path, tmp_path: Path
) -> None:
    python = str(clients / "venv/bin/python")
    found = said([python, str(SCRIPTS / "comfy_v2.py"), server.url, str(graph), str(picture)], tmp_path)
    assert found == SIGHT | {
        "events": {"Progress": True, "Preview": True, "OutputReady": True, "StatusChange": True},
        "range": "PNG",
        "format": "api",
        "same": [True, False],
        **dict.fromkeys(("listed", "reuse", "invalid", "missing", "deleted"), True),
    }


def test_comfyorg_sdk_runs_watches_cancels_and_keeps_assets(
    server: Server, clients: Path, graph: Path, picture: Path, tmp_path: Path
) -> None:
    script = clients / "npm/comfyorg.mjs"
    shutil.copy(SCRIPTS / script.name, script)
    found = said(["node", str(script), server.url, str(graph), str(picture)], clients / "npm")
    events = ["outputReady", "preview", "progress", "statusChange"]
    assert found == SIGHT | {"events": events, "refused": "invalid_workflow"}


def test_comfyui_utils_runs_three_jobs_at_once(server: Server, clients: Path, graph: Path, tmp_path: Path) -> None:
    found = said([str(clients / "venv/bin/python"), str(SCRIPTS / "utils.py"), server.url, str(graph)], tmp_path)
    assert found == {"images": 3, "fetched": True, "waited": True, "steps": True, "again": True}


def test_comfy_commander_runs_a_drawing_of_the_editor(
    server: Server, clients: Path, graph: Path, tmp_path: Path
) -> None:
    server.json("/workflows/drawn", {"workflow": json.loads(graph.read_text())})
    drawing = tmp_path / "drawing.json"
    drawing.write_text(json.dumps(server.json("/workflows/drawn?form=editor")))
    found = said([str(clients / "venv/bin/python"), str(SCRIPTS / "commander.py"), server.url, str(drawing)], tmp_path)
    assert found == {"drawing": True, "status": "success", "error": None, "images": 1, "png": True}


def test_comfy_ui_client_of_pypi(server: Server, clients: Path, graph: Path, picture: Path, tmp_path: Path) -> None:
    command = [str(clients / "venv/bin/python"), str(SCRIPTS / "ui_client.py"), server.url, str(graph), str(picture)]
    found = said(command, tmp_path)
    assert found == {"uploaded": "ui.png", "png": True, "progress": True, "executed": 1, "looked": [True] * 5}


def test_comfy_ui_client_of_npm(server: Server, node: list[str], graph: Path, picture: Path, tmp_path: Path) -> None:
    found = said([*node, "ui_client.mjs", server.url, str(graph), str(picture)], tmp_path)
    assert found == {"uploaded": "npm.png", "images": 1, "png": "PNG", "queue": 0, "devices": 1, "info": True}


def test_sd_backend_client_draws_changes_and_paints(server: Server, clients: Path, tmp_path: Path) -> None:
    found = said([str(clients / "venv/bin/python"), str(SCRIPTS / "backend.py"), server.url], tmp_path)
    size = [128, 128]
    assert found == {
        "comfyui": True, "drawn": [size, size], "changed": size, "painted": size, "watched": True, "samplers": True,
    }  # fmt: skip
