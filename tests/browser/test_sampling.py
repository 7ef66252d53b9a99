"""The demo checkpoint in the editor: the shipped template, previews while it samples, the picture."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.editor import Editor
from tests.serving import CHECKOUT, Server

pytestmark = pytest.mark.browser
CHECKPOINT = CHECKOUT / "models/checkpoints/sigmagraph-demo.safetensors"


@pytest.fixture
def server(tmp_path: Path, frontend: Path) -> Iterator[Server]:
    """A server as shipped: its workflows, the demo checkpoint."""
    home = tmp_path / "home"
    (home / "models/checkpoints").mkdir(parents=True)
    (home / "models/checkpoints" / CHECKPOINT.name).symlink_to(CHECKPOINT)
    running = Server(home, "--frontend", str(frontend)).start()
    yield running
    running.stop()


def test_the_demo_workflow_shows_previews_and_its_picture(editor: Editor) -> None:
    editor.template("txt2img")
    editor.widget("KSampler", "steps", 40)
    editor.page.evaluate(
        "() => { window.previews = 0; app.api.addEventListener('b_preview_with_metadata', () => window.previews++); }"
    )
    editor.run()
    editor.page.wait_for_function("() => window.previews > 1")
    editor.page.wait_for_timeout(300)
    editor.shot("sampling")
    editor.picture("SaveImage")
    editor.page.wait_for_timeout(1500)
    editor.shot("sampled")
