"""The pages for who operates: order of the queue, presets, the last jobs node by node, keys and their credit."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.conftest import FLAT
from tests.browser.pages import Watched, made_server, new_key, watched
from tests.serving import Server

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = made_server(tmp_path_factory.mktemp("operating") / "home").start()
    running.json(
        "/api/workflows/slow",
        {"workflow": FLAT | {"2": FLAT["2"] | {"inputs": FLAT["2"]["inputs"] | {"seconds": 60.0}}}},
    )
    yield running
    running.stop()


def queued(seen: Watched) -> list[str]:
    return [str(line.get_attribute("data-line")).split()[0] for line in seen.page.locator(".queue li").all()]


def test_a_waiting_job_is_moved_in_the_queue_by_keyboard(browser: Any, server: Server) -> None:
    ids = [server.json("/workflows/slow/run", {"set": {"2.turn": turn}})["job_id"] for turn in range(4)]
    with watched(browser, server) as seen:
        page = seen.open("/gallery")
        page.locator(".queue li").nth(3).wait_for()
        assert queued(seen) == ids
        last = page.locator(".queue li").nth(3)
        last.get_by_role("button", name="Earlier").focus()
        page.keyboard.press("Enter")
        page.locator(f".queue li:nth-child(3)[data-line^='{ids[3]}']").wait_for()
        page.keyboard.press("Enter")  # the button kept the focus
        page.locator(f".queue li:nth-child(2)[data-line^='{ids[3]}']").wait_for()
        page.locator(".queue li").nth(1).get_by_role("button", name="Later").click()
        page.locator(f".queue li:nth-child(3)[data-line^='{ids[3]}']").wait_for()
        assert queued(seen) == [ids[0], ids[1], ids[3], ids[2]]
    server.json("/jobs/cancel", {"job_ids": ids})


def test_a_preset_is_kept_with_the_server_and_puts_its_values_back(browser: Any, server: Server) -> None:
    with watched(browser, server) as seen:
        page = seen.open("/run")
        page.get_by_label("Steps", exact=True).fill("7")
        page.get_by_label("Prompt", exact=True).fill("not part of it")
        page.get_by_text("Presets", exact=True).click()
        page.get_by_label("Name of the preset").fill("quick one")
        page.keyboard.press("Enter")
        page.get_by_text("quick one is kept").wait_for()
    with watched(browser, server) as seen:  # another browser
        page = seen.open("/run")
        page.get_by_text("Presets", exact=True).click()
        prompt = page.get_by_label("Prompt", exact=True).input_value()
        page.get_by_label("Presets").select_option("quick one")
        assert page.get_by_label("Steps", exact=True).input_value() == "7"
        assert page.get_by_label("Prompt", exact=True).input_value() == prompt != "not part of it"
        page.wait_for_url("**/run#*.steps=7*")
        assert seen.violations() == []
        page.get_by_role("button", name="Forget the preset").click()
        page.get_by_label("Presets").wait_for(state="hidden")
        assert server.json("/settings/sigmagraph.presets") == {}


def test_presets_of_two_tabs_stay_and_the_one_too_many_is_refused(browser: Any, server: Server) -> None:
    def keep(page: Any, name: str) -> None:
        page.get_by_label("Name of the preset").fill(name)
        page.keyboard.press("Enter")

    place = "/settings/sigmagraph.presets"
    with watched(browser, server) as one, watched(browser, server) as other:
        pages = [seen.open("/run") for seen in (one, other)]
        for page in pages:
            page.get_by_text("Presets", exact=True).click()
        for page, name in zip(pages, ("from one", "from the other"), strict=True):
            keep(page, name)
            page.get_by_text(f"{name} is kept").wait_for()
        kept = server.json(place)["template:txt2img"]
        assert set(kept) == {"from one", "from the other"}
        full = {f"number {number}": kept["from one"] for number in range(50)}
        server.json(place, {"template:txt2img": full})
        keep(pages[0], "one too many")
        pages[0].get_by_text("There are 50 presets already").wait_for()
        assert pages[0].get_by_label("Name of the preset").input_value() == "one too many"
        assert server.json(place)["template:txt2img"] == full
        server.json(place, {})


def test_the_last_jobs_are_drawn_node_by_node(browser: Any, server: Server) -> None:
    job_id = server.json(
        "/prompt", {"prompt": FLAT | {"2": FLAT["2"] | {"inputs": FLAT["2"]["inputs"] | {"seconds": 0.5, "turn": 99}}}}
    )["prompt_id"]
    while server.json(f"/jobs/{job_id}")["status"] != "completed":
        pass
    with watched(browser, server) as seen:
        page = seen.open("/system")
        line = page.locator(f".flame[href='/gallery#job={job_id}']")
        line.wait_for()
        said = str(line.locator("svg").get_attribute("aria-label"))
        widths = {bar.text_content(): float(bar.get_attribute("width")) for bar in line.locator("rect").all()}
        slowest = max(widths, key=lambda name: widths[name])
        assert str(slowest).startswith(FLAT["2"]["class_type"])
        assert all(str(name) in said for name in widths)
        assert seen.violations() == []
        seen.shot("system-flame")


def test_an_administrator_sees_keys_and_credit_and_others_do_not(browser: Any, tmp_path_factory: Any) -> None:
    server = made_server(tmp_path_factory.mktemp("keys") / "home").start()
    try:
        own, admin = new_key(server, "ann"), new_key(server, "root", "--scopes", "admin")
        for key, is_shown in ((admin, True), (own, False)):
            with watched(browser, server, "403 (Forbidden)") as seen:
                seen.open("/system").get_by_label("API key").fill(key)
                seen.page.get_by_role("button").click()
                seen.page.get_by_role("heading", name="Log").wait_for()
                seen.page.wait_for_load_state("networkidle")
                assert seen.page.get_by_role("heading", name="Keys and credit").is_visible() == is_shown
                if is_shown:
                    rows = [
                        row.inner_text().split("\t")[0].split(" ")[0]
                        for row in seen.page.locator("tbody tr", has=seen.page.locator("td.number")).all()
                    ]
                    assert rows == ["ann", "root"]
                    assert seen.violations() == []
    finally:
        server.stop()
