"""One person's afternoon with the unmodified editor: make, watch, stop, upload, save, come back."""

import io
import time
from typing import Any

import pytest
from PIL import Image

from tests.browser.conftest import FLAT
from tests.browser.editor import Editor
from tests.serving import Server

pytestmark = pytest.mark.browser


def entries(server: Server, status: str) -> list[Any]:
    return list(server.json(f"/api/jobs?status={status}")["jobs"])


def settled(server: Server) -> None:
    deadline = time.monotonic() + 60
    while server.json("/prompt")["exec_info"]["queue_remaining"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def make_a_picture(editor: Editor, color: int) -> None:
    editor.widget("EmptyImage", "color", color)
    prompt_id = editor.run()
    editor.progress()
    editor.shot("progress")
    source = editor.picture("SaveImage")
    entry = editor.server.ended(prompt_id)
    assert entry["prompt"][2]["1"]["inputs"]["color"] == color
    data = editor.page.request.get(source.split("&rand")[0]).body()
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.convert("RGB").getpixel((0, 0)) == (color >> 16, color >> 8 & 255, color & 255)
    editor.page.wait_for_timeout(1000)
    editor.shot("picture")


def test_a_template_is_changed_run_watched_and_its_picture_seen(editor: Editor) -> None:
    editor.template("flat")
    make_a_picture(editor, 0x3D405B)


def test_a_running_job_is_cancelled_and_a_waiting_one_deleted(editor: Editor) -> None:
    editor.template("flat")
    editor.widget("WaitAndPass", "seconds", 300)
    running = editor.run()
    editor.progress()
    editor.widget("WaitAndPass", "turn", 1)
    waiting = editor.run()
    assert [entry["id"] for entry in entries(editor.server, "pending")] == [waiting]
    editor.page.evaluate("(id) => app.api.deleteItem('queue', id)", waiting)
    editor.page.wait_for_timeout(500)
    assert entries(editor.server, "pending") == []
    editor.shot("running")
    editor.cancel()
    settled(editor.server)
    assert editor.server.ended(running)["status"]["status_str"] == "error"


def test_a_picture_is_uploaded_and_shown(editor: Editor, tmp_path: Any) -> None:
    Image.new("RGB", (32, 32), (129, 178, 154)).save(tmp_path / "mine.png")
    editor.template("load")
    with editor.page.expect_file_chooser() as chooser:
        editor.page.evaluate(
            """() => {
                const node = app.graph._nodes.find((each) => each.type === 'LoadImage');
                node.widgets.find((each) => each.name === 'upload').callback();
            }"""
        )
    with editor.page.expect_response(lambda r: "/upload/image" in r.url) as sent:
        chooser.value.set_files(str(tmp_path / "mine.png"))
    assert sent.value.json() == {"name": "mine.png", "subfolder": "", "type": "input"}
    editor.page.wait_for_timeout(500)
    editor.run()
    editor.picture("PreviewImage")
    editor.shot("upload")


def test_what_was_saved_is_there_after_a_reload_and_after_a_restart(editor: Editor) -> None:
    editor.template("flat")
    editor.widget("EmptyImage", "color", 0x81B29A)
    editor.save("mine")
    editor.page.reload(wait_until="domcontentloaded")
    editor.up()
    assert editor.reopen("mine") == {"nodes": 3, "color": 0x81B29A}
    before = editor.run()
    editor.picture("SaveImage")
    editor.server.ended(before)
    editor.server.stop()
    editor.server.start()
    editor.page.wait_for_function("() => app.api?.socket?.readyState === 1", timeout=60_000)
    assert before in editor.server.json("/history")
    editor.page.reload(wait_until="domcontentloaded")
    editor.up()
    assert editor.reopen("mine")["nodes"] == 3
    make_a_picture(editor, 0xF2CC8F)
    editor.shot("again")


def test_the_menu_leads_to_our_own_pages(editor: Editor) -> None:
    listed = editor.page.evaluate("() => app.extensionManager.command.commands.map((each) => each.id)")
    assert {f"sigmagraph.pages.{name}" for name in ("home", "run", "gallery", "lab", "system")} <= set(listed)
    with editor.page.context.expect_page() as opened:
        editor.page.evaluate("() => { app.extensionManager.command.execute('sigmagraph.pages.gallery') }")
    opened.value.wait_for_url("**/gallery")
    opened.value.get_by_role("link", name="Editor").click()
    opened.value.wait_for_url(f"{editor.server.url}/")


def test_a_job_links_to_the_editor_however_late_the_page_hears_of_one(editor: Editor) -> None:
    """The job's record may be there before the server has said what it has."""
    job_id = editor.server.json("/prompt", {"prompt": FLAT})["prompt_id"]
    held: list[Any] = []
    editor.page.route("**/system_stats", lambda route: held.append(route))
    editor.page.goto(f"{editor.server.url}/gallery#job={job_id}")
    editor.page.get_by_role("button", name="Delete").wait_for()
    link = editor.page.get_by_role("link", name="Open in the editor")
    assert not link.is_visible()
    for route in held:
        route.continue_()
    link.wait_for()
    editor.page.unroute("**/system_stats")


def test_a_job_of_the_gallery_opens_in_the_editor(editor: Editor) -> None:
    graph = {name: node | {"inputs": dict(node["inputs"])} for name, node in FLAT.items()}
    graph["1"]["inputs"]["color"] = 0x3D405B
    graph["2"]["inputs"]["seconds"] = 0.0
    job_id = editor.server.json("/prompt", {"prompt": graph})["prompt_id"]
    editor.server.ended(job_id)
    page = editor.page
    page.goto(f"{editor.server.url}/gallery#job={job_id}")
    page.get_by_role("link", name="Open in the editor").click()
    editor.up()
    page.wait_for_function(
        """(colour) => app.graph._nodes.some((node) => node.type === 'EmptyImage'
            && node.widgets.find((widget) => widget.name === 'color').value === colour)""",
        arg=0x3D405B,
    )
    assert page.evaluate("() => app.graph._nodes.length") == len(FLAT)
    assert "sigmagraph-job" not in page.url
