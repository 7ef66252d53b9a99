"""What one tab knows of another and of its own past, and what a page says in another language than its nodes."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.conftest import FLAT
from tests.browser.pages import made_server, watched
from tests.browser.test_pages import MAKE, template
from tests.serving import Server

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = made_server(tmp_path_factory.mktemp("tabs") / "home").start()
    running.json("/api/workflows/flat", {"workflow": FLAT})
    yield running
    running.stop()


def test_a_job_that_runs_is_taken_up_again_after_a_reload(browser: Any, server: Server) -> None:
    with watched(browser, server) as seen:
        page = seen.open("/run#name=flat&2.seconds=9&2.turn=1")
        page.get_by_role("button", name=MAKE).click()
        page.get_by_text(re.compile("Step [1-9]")).wait_for()
        page.reload()
        page.get_by_text(re.compile(r"Step \d+ of 100, .* left")).wait_for()
        assert page.get_by_role("button", name="Cancel").is_visible()
        page.locator(".stage .thumb").wait_for()
        page.get_by_text("Done in").first.wait_for()
        page.reload()  # what is over is not taken up once more
        page.get_by_role("button", name=MAKE, disabled=False).wait_for()
        assert page.locator(".stage .thumb").count() == 0


def test_a_job_deleted_in_one_tab_goes_from_the_other(browser: Any, server: Server) -> None:
    ids = []
    for turn in (11, 12):
        ids.append(str(server.json("/workflows/flat/run", {"set": {"2.seconds": 0, "2.turn": turn}})["job_id"]))
        server.ended(ids[-1])
    with watched(browser, server) as seen, watched(browser, server) as other:
        page = other.open("/gallery")
        page.locator(f"[data-job='{ids[0]}']").click()
        page.locator("dialog .quote").wait_for()
        seen.open(f"/gallery#job={ids[0]}").get_by_role("button", name="Delete").click()
        seen.page.get_by_role("button", name="Yes, forget it").click()
        page.locator(f"[data-job='{ids[0]}']").wait_for(state="detached")
        page.locator("dialog[open]").wait_for(state="detached")
        assert page.locator(f"[data-job='{ids[1]}']").count() == 1
        server.json("/history", {"clear": True})
        page.locator(f"[data-job='{ids[1]}']").wait_for(state="detached")
        page.get_by_text("Nothing was made yet.").wait_for()


def test_what_nodes_and_templates_say_is_marked_as_english_in_a_german_page(browser: Any, server: Server) -> None:
    graph = template("txt2img")
    said = {each["title"] for group in server.json("/templates/index.json") for each in group["templates"]}
    for node in graph.values():
        info = server.json(f"/object_info/{node['class_type']}")[node["class_type"]]
        said |= {info["display_name"], node["class_type"], node.get("_meta", {}).get("title", "")}
        for declared in (*info["input"].get("required", {}).values(), *info["input"].get("optional", {}).values()):
            said.add((declared[1] if len(declared) > 1 else {}).get("tooltip", ""))
    walk = """said => [...document.querySelectorAll('main *')].filter(each => !each.childElementCount
        && said.includes(each.textContent)).map(each => [each.textContent, each.closest('[lang]').lang])"""
    with watched(browser, server, locale="de-DE") as seen:
        page = seen.open("/run")
        page.get_by_role("button", name="Bild erzeugen", disabled=False).click()
        page.locator(".stage .thumb").wait_for()
        newest = server.json("/api/jobs?limit=1")["jobs"][0]["id"]
        for path, least in (("/run", 12), ("/lab", 8), ("/system", 8), (f"/gallery#job={newest}", 3)):
            page = seen.open(path)
            page.wait_for_load_state("networkidle")
            found = page.evaluate(walk, sorted(said - {""}))
            assert len(found) >= least, (path, found)
            assert {lang for _, lang in found} == {"en"}, (path, found)
            assert page.evaluate("document.querySelector('main h1, main h2').closest('[lang]').lang") == "de"


def test_the_lab_takes_a_file_with_a_workflow_and_says_what_is_wrong_with_another(
    browser: Any, server: Server, tmp_path: Any
) -> None:
    graph = template("txt2img")
    graph["5"]["inputs"]["seed"] = 4242
    (tmp_path / "mine.json").write_text(json.dumps(graph))
    (tmp_path / "notes.txt").write_text("hello")
    with watched(browser, server) as seen:
        page = seen.open("/lab")
        page.locator(".cells .cell").first.wait_for()
        page.locator("input[type=file]").set_input_files(tmp_path / "mine.json")
        held = "text => [...document.querySelectorAll('form input')].some(each => each.value === text)"
        page.wait_for_function(held, arg="4242")
        page.wait_for_url(re.compile("#w="))
        page.locator("input[type=file]").set_input_files(tmp_path / "notes.txt")
        page.get_by_text("notes.txt cannot be opened: there is no workflow in it").wait_for()
        assert page.evaluate(held, "4242")
        page.evaluate(
            """text => {
                const carried = new DataTransfer();
                carried.items.add(new File([text], 'dropped.json', { type: 'application/json' }));
                document.querySelector('main').dispatchEvent(
                    new DragEvent('drop', { dataTransfer: carried, bubbles: true, cancelable: true }));
            }""",
            json.dumps(graph).replace("4242", "777"),
        )
        page.wait_for_function(held, arg="777")
        assert seen.violations() == []
