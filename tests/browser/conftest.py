"""Debian's Chromium, a server with an editor, and a page in it. See run.sh for what has to be installed."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.editor import Editor
from tests.serving import Server

PACKS = Path(__file__).with_name("packs")
FRONTENDS = "SIGMAGRAPH_TEST_FRONTENDS"
SHOTS = "SIGMAGRAPH_SCREENSHOTS"
CHROMIUM = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
FLAT = {
    "1": {
        "class_type": "EmptyImage",
        "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0xE07A5F},
        "_meta": {"title": "Colour"},
    },
    "2": {"class_type": "WaitAndPass", "inputs": {"image": ["1", 0], "seconds": 1.0, "turn": 0}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "flat"}},
}
LOAD = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "nothing.png"}},
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        launched = playwright.chromium.launch(executable_path=path, args=CHROMIUM)
        yield launched
        launched.close()


@pytest.fixture(params=["1.58.1", "1.27.10"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def frontend(version: str) -> Path:
    """That build of the editor."""
    root = Path(os.environ.get(FRONTENDS, ".ci/frontends")) / version / "comfyui_frontend_package" / "static"
    if not root.is_dir():
        pytest.fail(f"{root} is not there; run tests/browser/run.sh")
    return root.resolve()


@pytest.fixture
def server(frontend: Path, tmp_path: Path) -> Iterator[Server]:
    """A server with that editor, two templates and a slow node."""
    workflows = tmp_path / "workflows"
    workflows.mkdir()
    (workflows / "flat.json").write_text(json.dumps(FLAT))
    (workflows / "load.json").write_text(json.dumps(LOAD))
    options = ("--frontend", str(frontend), "--workflows", str(workflows), "--custom-nodes", str(PACKS), "--slots", "1")
    running = Server(tmp_path / "home", *options).start()
    yield running
    running.stop()


@pytest.fixture
def editor(browser: Any, server: Server, version: str) -> Iterator[Editor]:
    """The editor, open in a fresh profile; the test fails if the page threw anything."""
    from playwright.sync_api import TimeoutError as timeouts  # noqa: N813  # it is a class for `except`

    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(60_000)
    shots = os.environ.get(SHOTS)
    editor = Editor(page, server, version, Path(shots) if shots else None, timeouts)
    editor.open()
    yield editor
    context.close()
    assert editor.errors == []
