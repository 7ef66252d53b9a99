"""The journeys of the pages for people, in a browser, on a real server with the demo checkpoint."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.browser.conftest import FLAT
from tests.browser.pages import FAILING, Watched, made_server, new_key, watched
from tests.serving import CHECKOUT, Server

pytestmark = pytest.mark.browser
PAGES = ("/home", "/run", "/gallery", "/lab", "/system")
MAKE = "Make a picture"
HUGE_SEED = 2**64 - 3
HOSTILE = [
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>\"'&lt;",
    "\u202eright to left \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u200f{name} ${t}",
    "ten thousand " * 769 + "ten",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = made_server(tmp_path_factory.mktemp("pages") / "home").start()
    slow = json.loads(json.dumps(FLAT))
    slow["2"]["inputs"]["seconds"] = 60.0
    said = FLAT | {
        "8": template("txt2img")["1"],
        "9": template("txt2img")["2"] | {"inputs": {"text": "", "clip": ["8", 1]}},
    }
    for name, prompt in (("flat", FLAT), ("slow", slow), ("failing", FAILING), ("said", said)):
        running.json(f"/api/workflows/{name}", {"workflow": prompt})
    yield running
    running.stop()


def template(name: str) -> Any:
    return json.loads((CHECKOUT / "workflows" / f"{name}.json").read_text())


def made(seen: Watched) -> Any:
    """Press the button, wait for the picture, and give it back."""
    thumbs = seen.page.locator(".stage .thumb")
    before = thumbs.count()
    seen.page.get_by_role("button", name=MAKE).click()
    thumbs.nth(before).wait_for()
    return seen.page.locator(".frame img")


def test_the_first_picture_is_one_click_away_and_the_page_is_small(browser: Any, server: Server) -> None:
    with watched(browser, server) as seen:
        page = seen.open("/home")
        page.wait_for_load_state("networkidle")
        sizes = "() => performance.getEntries().reduce((sum, each) => sum + (each.transferSize || 0), 0)"
        assert 10_000 < page.evaluate(sizes) < 150_000
        picture = made(seen)
        assert (
            picture.evaluate("image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])")
            == [128] * 2
        )
        page.locator(".tiles .thumb").first.wait_for()
        assert {link.get_attribute("href") for link in page.locator(".cards a").all()} >= {
            "/run",
            "/gallery",
            "/system",
        }


def test_a_form_is_made_run_and_brought_back_by_its_url(browser: Any, server: Server) -> None:
    with watched(browser, server) as seen:
        page = seen.open("/run")
        page.get_by_label("Steps", exact=True).fill("4")
        page.get_by_label("Seed", exact=True).fill(str(HUGE_SEED))
        page.get_by_label("Sampler", exact=True).select_option("heun")
        page.get_by_label("Prompt", exact=True).fill("a green square")
        made(seen)
        url = page.url.removeprefix(server.url)
        newest = server.json("/api/jobs?limit=1")["jobs"][0]["id"]
        sent = server.json(f"/jobs/{newest}")["workflow"]["prompt"]
        assert (sent["5"]["inputs"]["seed"], sent["5"]["inputs"]["steps"]) == (HUGE_SEED, 4)
        again = seen.open(url)
        assert again.get_by_label("Seed", exact=True).input_value() == str(HUGE_SEED)
        assert again.get_by_label("Sampler", exact=True).input_value() == "heun"
        assert again.get_by_label("Prompt", exact=True).input_value() == "a green square"
        assert "Kept" in again.locator(".seed").inner_text()


def test_what_a_drawing_offers_in_app_mode_comes_first(browser: Any, server: Server) -> None:
    server.json("/api/workflows/plain", {"workflow": template("txt2img")})
    drawing = server.json("/workflows/plain?form=editor")
    drawing["extra"] = {"linearData": {"inputs": [["5", "steps"], ["2", "text"]], "outputs": ["7"]}}
    server.json("/api/workflows/app", {"workflow": drawing})
    with watched(browser, server) as seen:
        page = seen.open("/run#name=app")
        page.locator(".prompts .field").nth(1).wait_for()
        shown = [field.inner_text().split("\n")[0] for field in page.locator(".form .field:visible").all()]
        assert shown == ["Steps", "Text"]
        page.get_by_label("Steps", exact=True).fill("3")
        made(seen)
        newest = server.json("/api/jobs?limit=1")["jobs"][0]["id"]
        assert server.json(f"/jobs/{newest}")["workflow"]["prompt"]["5"]["inputs"]["steps"] == 3


def test_errors_stand_at_their_fields(browser: Any, server: Server) -> None:
    with watched(browser, server, "400 (Bad Request)") as seen:
        page = seen.open("/run")
        page.get_by_label("Steps", exact=True).fill("0")
        page.get_by_role("button", name=MAKE).click()
        steps = page.get_by_label("Steps", exact=True)
        assert steps.get_attribute("aria-invalid") == "true"
        assert "from 1 to 10000" in page.locator(".field", has=steps).inner_text()
        assert steps.evaluate("each => each === document.activeElement")
        seen.open("/run#template=txt2img&1.ckpt_name=lost.safetensors")
        page.get_by_role("button", name=MAKE).click()
        model = page.get_by_label("Model", exact=True)
        page.locator(".field .error:visible").wait_for()
        assert model.get_attribute("aria-invalid") == "true"
        assert "lost.safetensors" in page.locator(".field", has=model).inner_text()
        assert model.evaluate("each => each === document.activeElement")


def test_a_picture_is_opened_with_its_workflow_and_one_without_loses_nothing(
    browser: Any, server: Server, tmp_path: Path
) -> None:
    carries, empty, unknown = tmp_path / "carries.png", tmp_path / "empty.png", tmp_path / "unknown.json"
    prompt = template("txt2img")
    prompt["5"]["inputs"]["seed"] = HUGE_SEED
    texts = PngInfo()
    texts.add_text("prompt", json.dumps(prompt))
    Image.new("RGB", (8, 8)).save(carries, pnginfo=texts)
    Image.new("RGB", (8, 8)).save(empty)
    unknown.write_text(json.dumps({"1": {"class_type": "KSamplr", "inputs": {"steps": 7}}}))
    with watched(browser, server, "400 (Bad Request)") as seen:
        page = seen.open("/run")
        page.locator("input[type=file]").first.set_input_files(carries)
        page.wait_for_url(re.compile("#w="))
        assert page.get_by_label("Seed", exact=True).input_value() == str(HUGE_SEED)
        page.get_by_label("Prompt", exact=True).fill("typed by hand")
        page.locator("input[type=file]").first.set_input_files(empty)
        page.get_by_text("carries no workflow").wait_for()
        assert page.get_by_label("Prompt", exact=True).input_value() == "typed by hand"
        seen.open(page.url.removeprefix(server.url))
        assert page.get_by_label("Seed", exact=True).input_value() == str(HUGE_SEED)
        page.locator("input[type=file]").first.set_input_files(unknown)
        page.get_by_text("The node KSamplr is not on this server; the nearest is KSampler.").wait_for()
        assert page.get_by_role("button", name=MAKE).is_disabled()
        page.get_by_role("button", name="Use KSampler for KSamplr").click()
        page.get_by_label("Steps", exact=True).wait_for()
        assert page.get_by_role("button", name=MAKE).is_enabled()
        assert page.get_by_label("Steps", exact=True).input_value() == "7"


@pytest.mark.parametrize("text", HOSTILE, ids=["script", "right to left", "long"])
def test_hostile_text_is_text_everywhere(browser: Any, server: Server, text: str) -> None:
    with watched(browser, server) as seen:
        page = seen.open("/run#name=said")
        page.get_by_label("Prompt", exact=True).fill(text)
        made(seen)
        seen.open("/home").locator(".tiles .thumb").first.click()
        page.locator("dialog .quote").wait_for()
        assert page.locator("dialog .quote").evaluate("each => each.textContent") == text
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        seen.open("/gallery")
        page.get_by_label("Search").fill(text[:60])
        page.get_by_text(re.compile(r"^1 job$")).wait_for()
        assert page.evaluate("window.hacked") is None


def test_a_job_fails_and_another_is_cancelled_where_they_run(browser: Any, server: Server) -> None:
    with watched(browser, server) as seen:
        page = seen.open("/run#name=failing")
        page.get_by_role("button", name=MAKE).click()
        page.locator(".status.error").wait_for()
        assert "<b>boom</b>" in page.locator(".status").inner_text()
        seen.open("/run#name=slow")
        page.get_by_role("button", name=MAKE).click()
        page.get_by_text(re.compile("Step [1-9]")).wait_for()
        page.get_by_role("button", name="Cancel").click()
        page.locator(".status", has_text="Cancelled").wait_for()


def test_the_gallery_shows_the_queue_cancels_replays_and_deletes(browser: Any, server: Server, tmp_path: Path) -> None:
    slow = server.json("/workflows/slow/run", {})["job_id"]
    server.json("/workflows/slow/run", {"set": {"2.turn": 2}})
    with watched(browser, server) as seen:
        page = seen.open("/gallery")
        lines = page.locator(".queue li")
        lines.nth(1).wait_for()
        lines.first.get_by_text(re.compile("Step [1-9]")).wait_for()
        lines.nth(1).get_by_role("button", name="Cancel").click()
        lines.nth(1).wait_for(state="detached")
        lines.first.get_by_role("button", name="Cancel").click()
        page.locator(".queue").wait_for(state="hidden")
        assert server.json(f"/jobs/{slow}")["status"] == "cancelled"

        picture = server.json("/workflows/flat/run", {"set": {"2.turn": 7, "2.seconds": 0.1}})["job_id"]
        page.locator(f"[data-job='{picture}'] img").click()  # came by itself
        page.get_by_role("button", name="Replay").click()
        page.get_by_text("Identical: every pixel").wait_for()
        with page.expect_download() as kept:
            page.get_by_role("button", name="Workflow file").click()
        kept.value.save_as(tmp_path / "workflow.json")
        written = json.loads((tmp_path / "workflow.json").read_text())
        assert written == server.json(f"/jobs/{picture}")["workflow"]["prompt"]
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("button", name="Yes, forget it").click()
        page.locator(f"[data-job='{picture}']").wait_for(state="detached")
        assert "no job" in str(server.refusal(f"/jobs/{picture}"))


def test_a_lost_connection_is_said_loses_nothing_and_comes_back(browser: Any, tmp_path: Path) -> None:
    server = made_server(tmp_path / "home").start()
    lost = ("ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "WebSocket", "ERR_EMPTY_RESPONSE")
    try:
        with watched(browser, server, *lost) as seen:
            page = seen.open("/run")
            page.get_by_label("Prompt", exact=True).fill("typed before the storm")
            server.stop()
            page.locator(".banner").wait_for()
            page.get_by_role("button", name=MAKE).click()
            page.locator("form .notice").wait_for()
            server.start()
            page.locator(".banner").wait_for(state="hidden")
            assert page.get_by_label("Prompt", exact=True).input_value() == "typed before the storm"
            made(seen)
    finally:
        server.stop()


def test_two_keys_see_their_own_pictures_and_a_lost_key_is_said(browser: Any, tmp_path: Path) -> None:
    server = made_server(tmp_path / "home").start()
    try:
        keys = {name: new_key(server, name) for name in ("ann", "bob")}
        with watched(browser, server) as ann, watched(browser, server, "404 (Not Found)", "401 (Unauthorized)") as bob:
            for seen, name in ((ann, "ann"), (bob, "bob")):
                seen.open("/run").get_by_label("API key").fill(keys[name])
                assert seen.violations() == []
                seen.page.get_by_role("button").click()
                seen.page.wait_for_url("**/run*")
            made(ann)
            ann.page.get_by_role("link", name="In the gallery").click()
            ann.page.locator("dialog img").wait_for()
            bob.open(ann.page.url.removeprefix(server.url)).locator("dialog .error").wait_for()
            assert bob.page.locator(".tiles .thumb").count() == 0
            bob.open("/run").get_by_label("Prompt", exact=True).fill("kept")
            bob.context.clear_cookies()
            bob.page.get_by_role("button", name=MAKE).click()
            bob.page.get_by_role("link", name="Sign in").wait_for()
            assert bob.page.get_by_label("Prompt", exact=True).input_value() == "kept"
    finally:
        server.stop()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), (390, 844)], ids=["wide", "phone"])
def test_axe_finds_no_violation_on_any_page(browser: Any, server: Server, scheme: str, size: tuple[int, int]) -> None:
    form = {"color_scheme": scheme, "viewport": {"width": size[0], "height": size[1]}}
    name = f"{scheme}-{'wide' if size[0] > 500 else 'phone'}"
    with watched(browser, server, **form) as seen:
        made_one = False
        for path in PAGES:
            page = seen.open(path)
            page.wait_for_timeout(800)
            if path in ("/home", "/run") and (path == "/home" or not made_one):
                made(seen)
                made_one = True
            assert seen.violations() == []
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            seen.shot(f"{path[1:]}-{name}")
        seen.open("/gallery").locator(".tiles .thumb img").first.click()
        page.locator("dialog img").wait_for()
        assert seen.violations() == []
        seen.shot(f"details-{name}")


def test_the_second_language_is_whole_and_kept(browser: Any, server: Server) -> None:
    with watched(browser, server, locale="de-DE") as seen:
        page = seen.open("/home")
        page.get_by_role("button", name="Bild erzeugen", disabled=False).wait_for()
        assert page.evaluate("document.documentElement.lang") == "de"
        for path in PAGES:
            seen.open(path)
            assert seen.violations() == []
        page.get_by_label("Sprache").select_option("en")
        page.get_by_role("link", name="Gallery").wait_for()
        seen.open("/run").get_by_role("button", name=MAKE).wait_for()


def test_everything_on_the_run_page_is_reached_by_keyboard(browser: Any, server: Server) -> None:
    with watched(browser, server) as seen:
        page = seen.open("/run")
        page.get_by_label("Prompt", exact=True).wait_for()
        reached = set()
        for _ in range(40):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.textContent || document.activeElement.id"))
        assert {"To the content", "Gallery", "Open…", "Dice", MAKE, "More settings"} <= reached
        page.get_by_label("Prompt", exact=True).focus()
        page.keyboard.press("Control+Enter")
        page.locator(".stage .thumb").first.wait_for()
