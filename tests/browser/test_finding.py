"""What a stranger asks the pages: what this sampler is, what it costs, where that picture is, what it came from."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.browser.conftest import FLAT
from tests.browser.pages import COMMAND, made_server, new_key, watched
from tests.browser.test_pages import HOSTILE, MAKE, made, template
from tests.serving import CHECKOUT, Server

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("finding") / "home"
    running = made_server(home)
    (home / "input").mkdir()
    Image.new("RGB", (64, 32), (10, 200, 30)).save(home / "input" / "plain.png")
    running.start()
    flat = FLAT | {"2": FLAT["2"] | {"inputs": {"image": ["1", 0], "seconds": 0.0, "turn": 0}}}
    load = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "plain.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "out"}},
    }
    for name, prompt in (("flat", flat), ("demo", template("txt2img")), ("load", load)):
        running.json(f"/api/workflows/{name}", {"workflow": prompt})
    yield running
    running.stop()


def test_choices_are_explained_and_the_cost_is_told_before_and_after_a_run(browser: Any, server: Server) -> None:
    with watched(browser, server) as seen:
        page = seen.open("/run")
        sampler = page.get_by_label("Sampler", exact=True)
        sampler.select_option("heun")
        page.get_by_label("Steps", exact=True).fill("7")
        page.get_by_text("Order 2 · 2 evaluations a step · no noise. Exact at equal steps").wait_for()
        page.get_by_text("13 evaluations · time not known").wait_for()
        sampler.select_option("euler_ancestral")
        page.get_by_text("draws noise. For variety").wait_for()
        assert sampler.get_attribute("aria-describedby")
        page.get_by_text("7 evaluations · time not known").wait_for()
        page.get_by_role("button", name="All samplers explained").click()
        page.locator("dialog").get_by_label("Search").fill("reference")
        assert seen.violations() == []
        seen.shot("run-explained")
        page.locator("dialog").get_by_role("button", name="radau_iia_3s").click()
        assert sampler.input_value() == "radau_iia_3s"
        page.wait_for_url(re.compile("sampler_name=radau_iia_3s"))
        sampler.select_option("dpmpp_2m")
        page.get_by_role("button", name="All schedules explained").click()
        page.locator("dialog").get_by_role("button", name="sgm_uniform").click()
        page.get_by_text("the first choice for SD3").wait_for()
        made(seen)
        page.get_by_text(re.compile(r"7 evaluations · about .+, by the last run of this model and size")).wait_for()
        page.get_by_label("Width", exact=True).fill("192")
        page.get_by_text("7 evaluations · time not known").wait_for()


def test_a_picture_is_found_by_what_made_it_and_when(browser: Any, server: Server) -> None:
    asked = {"lms": 90210, "ipndm": 4711}
    by = {name: run(server, "demo", {"5.sampler_name": name, "5.seed": seed}) for name, seed in asked.items()}
    with watched(browser, server) as seen:
        page = seen.open("/gallery")
        page.locator(f"[data-job='{by['lms']}']").wait_for()
        page.get_by_label("Search").fill("sampler:lms")
        page.get_by_text("1 job", exact=True).wait_for()
        assert shown(page) == [by["lms"]]
        assert page.locator(".filters input").first.input_value() == "lms"
        page.get_by_label("Search").fill("")
        page.locator(f"[data-job='{by['ipndm']}']").wait_for()
        filters = page.locator(".filters")
        filters.get_by_label("Seed").fill("4711")
        page.wait_for_url(re.compile("seed%3A4711"))
        page.get_by_text("1 job", exact=True).wait_for()
        assert shown(page) == [by["ipndm"]]
        assert page.get_by_label("Search").input_value() == "seed:4711"
        assert seen.violations() == []
        filters.get_by_label("Before").fill("2020-01-01")
        page.get_by_text("Nothing like this was made.").wait_for()
        filters.get_by_label("Before").fill("")
        filters.get_by_label("From").fill("2020-01-01")
        page.get_by_text("1 job", exact=True).wait_for()
        seen.shot("gallery-filters")
        seen.open(page.url.removeprefix(server.url)).get_by_text("1 job", exact=True).wait_for()
        page.get_by_label("Search").fill("after:someday")
        page.get_by_text("someday is not a day").wait_for()
        for text in HOSTILE[:2]:
            page.get_by_label("Search").fill(f'model:"{text[:60]}"')
            page.get_by_text("Nothing like this was made.").wait_for()


def test_a_job_shows_what_it_came_from_and_what_was_made_of_it(browser: Any, server: Server) -> None:
    first = run(server, "flat", {"2.turn": 31})
    with watched(browser, server) as seen:
        page = seen.open(f"/gallery#job={first}")
        page.get_by_role("button", name="Replay").click()
        page.get_by_text("Identical: every pixel").wait_for()
        page.get_by_role("link", name="Change and run").click()
        page.get_by_text("More settings").click()
        page.get_by_label("Color", exact=True).fill("255")
        made(seen)
        page.get_by_role("link", name="In the gallery").click()
        page.get_by_text("Changed from").wait_for()
        page.locator(".lineage a").first.click()
        page.wait_for_url(re.compile(f"job={first}"))
        page.locator(".lineage", has_text="Made from this one").wait_for()
        assert page.locator(".lineage a").count() == 2
        assert seen.violations() == []
        seen.shot("details-family")
        children = [link.get_attribute("href") for link in page.locator(".lineage a").all()]
        for link in children:
            seen.open(str(link)).locator(".lineage", has_text=re.compile("Changed from|Replay of")).wait_for()
        server.json("/history", {"delete": [first]})
        seen.open(str(children[0])).get_by_text("a job that was deleted").wait_for()


def test_a_picture_made_from_another_shows_it_and_is_found_from_it(browser: Any, server: Server) -> None:
    first = run(server, "flat", {"2.turn": 32})
    file = server.json(f"/jobs/{first}")["outputs"]["3"]["images"][0]["filename"]
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": f"{file} [output]"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "again"}},
    }
    second = server.json("/prompt", {"prompt": graph})["prompt_id"]
    server.ended(second)
    with watched(browser, server) as seen:
        page = seen.open(f"/gallery#job={second}")
        picture = page.locator(".lineage", has_text="Made from these pictures").locator("img")
        assert picture.evaluate("each => each.decode().then(() => each.naturalWidth)") > 0
        seen.open(f"/gallery#job={first}").locator(f".lineage a[href*='{second}']").wait_for()


def test_another_owner_sees_neither_the_runs_nor_the_family(browser: Any, tmp_path: Path) -> None:
    server = made_server(tmp_path / "home").start()
    try:
        keys = {name: new_key(server, name) for name in ("ann", "bob")}
        with watched(browser, server) as ann, watched(browser, server, "403 (Forbidden)") as bob:
            for seen, name in ((ann, "ann"), (bob, "bob")):
                seen.open("/run").get_by_label("API key").fill(keys[name])
                seen.page.get_by_role("button").click()
                seen.page.wait_for_url("**/run*")
            page = ann.page
            page.get_by_label("Steps", exact=True).fill("2")
            made(ann)
            page.get_by_text("by the last run of this model").wait_for()
            page.get_by_role("link", name="In the gallery").click()
            page.locator("dialog img").first.wait_for()
            job_id = page.url.partition("job=")[2]
            bob.page.get_by_text("time not known").wait_for()
            for query in (job_id, "sampler:euler", "model:sigmagraph"):
                bob.open("/gallery").get_by_label("Search").fill(query)
                bob.page.get_by_text(re.compile("^Nothing ")).wait_for()
            bob.open("/system").get_by_text("An administrator's key shows this.").first.wait_for()
            assert bob.page.get_by_role("region", name="In memory").is_hidden()
    finally:
        server.stop()


def test_the_system_page_has_workers_what_is_in_memory_and_what_templates_need(browser: Any, server: Server) -> None:
    run(server, "demo", {"5.steps": 1, "5.seed": 1})
    with watched(browser, server) as seen:
        page = seen.open("/system")
        page.get_by_role("region", name="In memory").get_by_text("whole").first.wait_for()
        page.get_by_text("0 running, 0 waiting").wait_for()
        needs = page.locator(".need", has_text=re.compile("Large"))
        needs.first.locator("summary").click()
        page.get_by_text(re.compile("^sigmagraph fetch .*sd3.5-large")).first.wait_for()
        assert page.locator(".need .in_progress").count() >= 1
        assert seen.violations() == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        seen.shot("system-needs")


def test_a_server_of_another_version_is_said_and_nothing_typed_is_lost(browser: Any, tmp_path: Path) -> None:
    server = made_server(tmp_path / "home").start()
    lost = ("ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "WebSocket", "ERR_EMPTY_RESPONSE", "503")
    try:
        with watched(browser, server, *lost) as seen:
            page = seen.open("/run")
            page.get_by_label("Prompt", exact=True).fill("typed before the update")
            page.wait_for_url(re.compile("typed"))

            def newer(route: Any) -> None:
                answer = route.fetch()
                told = answer.json()
                told["system"]["sigmagraph_version"] = "99.0"
                route.fulfill(response=answer, json=told)

            server.stop()
            page.locator(".banner").wait_for()
            page.route("**/system_stats", newer)
            server.start()
            page.get_by_text("The server has version 99.0").wait_for()
            page.get_by_role("link", name="Load the page again").click()
            page.locator(".banner").wait_for(state="hidden")
            assert page.get_by_label("Prompt", exact=True).input_value() == "typed before the update"
            page.unroute_all(behavior="ignoreErrors")
    finally:
        server.stop()


def test_a_key_that_was_revoked_is_said_and_a_new_one_goes_on(browser: Any, tmp_path: Path) -> None:
    server = made_server(tmp_path / "home").start()
    try:
        key = new_key(server, "ann")
        with watched(browser, server, "401 (Unauthorized)", "WebSocket") as seen:
            page = seen.open("/run")
            page.get_by_label("API key").fill(key)
            page.get_by_role("button").click()
            page.get_by_label("Prompt", exact=True).fill("kept")
            revoke_all(server)
            page.get_by_role("button", name=MAKE).click()
            page.get_by_text("no longer valid").wait_for()
            with page.expect_popup() as login:
                page.get_by_role("link", name="Sign in").click()
            login.value.get_by_label("API key").fill(new_key(server, "ann2"))
            login.value.get_by_role("button").click()
            login.value.wait_for_url("**/run*")
            assert page.get_by_label("Prompt", exact=True).input_value() == "kept"
            made(seen)
            page.locator(".banner").wait_for(state="hidden")
    finally:
        server.stop()


def test_a_file_that_is_not_a_picture_is_said_at_its_field(browser: Any, server: Server, tmp_path: Path) -> None:
    false = tmp_path / "false.png"
    false.write_text("not a picture")
    with watched(browser, server, "400 (Bad Request)", "415") as seen:
        page = seen.open("/run#name=load")
        page.get_by_text("More settings").click()
        page.get_by_label("Name of the file", exact=True).fill("stays")
        page.locator(".upload input[type=file]").set_input_files(false)
        said = page.locator(".field .error:visible")
        said.wait_for()
        assert "{" not in said.inner_text()
        page.locator(".source input[type=file]").set_input_files(false)
        page.get_by_text("false.png cannot be opened").wait_for()
        assert page.get_by_label("Name of the file", exact=True).input_value() == "stays"


def run(server: Server, name: str, values: dict[str, Any]) -> str:
    """A stored workflow with values, to its end."""
    job_id = str(server.json(f"/workflows/{name}/run", {"set": values})["job_id"])
    server.ended(job_id)
    assert server.json(f"/jobs/{job_id}")["status"] == "completed"
    return job_id


def shown(page: Any) -> list[str]:
    return [str(tile.get_attribute("data-job")) for tile in page.locator(".tiles .thumb").all()]


def revoke_all(server: Server) -> None:
    """Withdraw every key there is, as an operator does."""
    at_home = ["--home", str(server.home)]
    listed = subprocess.run(
        [*COMMAND, "keys", "list", "--json", *at_home], check=True, capture_output=True, cwd=CHECKOUT
    )
    for key in json.loads(listed.stdout):
        command = [*COMMAND, "keys", "revoke", key["id"], *at_home]
        subprocess.run(command, check=True, capture_output=True, cwd=CHECKOUT)


def test_a_damaged_link_and_files_without_a_workflow_say_so_and_leave_the_list_free(
    browser: Any, server: Server, tmp_path: Path
) -> None:
    with watched(browser, server, "status of 404", "status of 400") as seen:
        for damaged in ("../../x", "A" * 10_000):
            page = seen.open(f"/run#w={damaged}")
            page.get_by_text("This cannot be opened: the link is damaged or was cut off").wait_for()
        page = seen.open("/run#template=nothing")
        page.get_by_text("there is no such template").wait_for()
        picker = page.get_by_label("Workflow", exact=True)
        assert picker.input_value() == ""
        picker.select_option(label="Text to image")  # it stood there already, and so could not be chosen
        page.get_by_label("Prompt", exact=True).fill("stays")
        for name, text in (("notes.txt", "hello"), ("none.json", "{}"), ("list.json", "[1, 2]"), ("empty.png", "")):
            (tmp_path / name).write_text(text)
            page.locator("main > .run input[type=file]").first.set_input_files(tmp_path / name)
            page.get_by_text(f"{name} cannot be opened: there is no workflow in it").wait_for()
            assert page.get_by_label("Prompt", exact=True).input_value() == "stays"


def test_a_long_prompt_and_the_prompt_of_the_home_page_outlast_a_reload(browser: Any, server: Server) -> None:
    long = "שלום עולם " * 1000
    with watched(browser, server) as seen:
        page = seen.open("/run")
        page.get_by_label("Prompt", exact=True).fill(long)
        page.wait_for_url("**2.text*")
        page.reload()
        page.wait_for_function("each => document.querySelector('textarea')?.value === each", arg=long)
        page = seen.open("/home")
        page.get_by_label("Prompt", exact=True).fill("a blue star")
        page.wait_for_url("**2.text*")
        page.get_by_role("button", name="Make a picture").click()
        page.locator(".stage .thumb").wait_for()
        page.reload()
        page.wait_for_function("() => document.querySelector('textarea')?.value === 'a blue star'")
        assert "seed" not in page.url  # it would be held, and every picture be the same
