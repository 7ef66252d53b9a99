"""Two pictures beside each other, and many jobs at once, in a browser."""

import io
import json
import math
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.browser.conftest import FLAT
from tests.browser.pages import Watched, made_server, watched
from tests.serving import Server

pytestmark = pytest.mark.browser
COLOURS = (0xE07A5F, 0xE07A5F, 0xD06A4F)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = made_server(tmp_path_factory.mktemp("comparing") / "home").start()
    flat = json.loads(json.dumps(FLAT))
    flat["2"]["inputs"]["seconds"] = 0.0
    running.json("/api/workflows/flat", {"workflow": flat})
    yield running
    running.stop()


def flat_jobs(server: Server) -> list[str]:
    """Three pictures: two alike, the third 16 of 255 darker."""
    changes = [{"1.color": colour, "2.turn": turn} for turn, colour in enumerate(COLOURS)]
    ids = [server.json("/workflows/flat/run", {"set": change})["job_id"] for change in changes]
    while server.json("/api/jobs?status=in_progress,pending")["jobs"]:
        time.sleep(0.05)
    return ids


def chosen(seen: Watched, ids: list[str]) -> Any:
    """The gallery with these selected."""
    page = seen.open("/gallery")
    page.get_by_role("button", name="Select").click()
    for job_id in ids:
        page.locator(f"[data-job='{job_id}']").click()
    return page


def test_two_pictures_are_compared_by_slider_difference_and_figures(browser: Any, server: Server) -> None:
    same, twin, darker = flat_jobs(server)
    expected = f"PSNR {20 * math.log10(255 / 16):.1f} dB, rms 16.0 of 255"
    with watched(browser, server) as seen:
        page = chosen(seen, [same, darker])
        page.get_by_role("button", name="Compare").click()
        page.get_by_text(expected).wait_for()
        assert seen.violations() == []
        slider = page.get_by_role("slider")
        slider.focus()
        page.keyboard.press("End")
        assert "inset(0px 0% 0px 0px)" in page.locator(".two img.over").evaluate("each => each.style.clipPath")
        page.get_by_label("View").select_option("Difference × 4")
        pixel = "each => [...each.getContext('2d').getImageData(5, 5, 1, 1).data]"
        assert page.locator(".two canvas").evaluate(pixel) == [64, 64, 64, 255]
        url = page.url.removeprefix(server.url)
        seen.open(url).get_by_text(expected).wait_for()
        seen.shot("compare")
        seen.open(f"/gallery#compare={same},{twin}").get_by_text("Every pixel is the same.").wait_for()


def test_many_jobs_are_downloaded_and_forgotten_at_once(browser: Any, server: Server, tmp_path: Path) -> None:
    ids = flat_jobs(server)
    with watched(browser, server) as seen:
        page = chosen(seen, ids)
        page.get_by_text("3 selected").first.wait_for()
        assert page.get_by_role("button", name="Compare").is_disabled()
        assert seen.violations() == []
        with page.expect_download() as kept:
            page.get_by_role("button", name="Download").click()
        kept.value.save_as(tmp_path / "all.zip")
        archive = zipfile.ZipFile(tmp_path / "all.zip")
        assert archive.testzip() is None
        pixels = {Image.open(io.BytesIO(archive.read(name))).getpixel((0, 0)) for name in archive.namelist()}
        assert (len(archive.namelist()), pixels) == (3, {(0xE0, 0x7A, 0x5F), (0xD0, 0x6A, 0x4F)})
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("button", name="Yes, forget it").click()
        for job_id in ids:
            page.locator(f"[data-job='{job_id}']").wait_for(state="detached")
            assert "no job" in str(server.refusal(f"/jobs/{job_id}"))
        page.get_by_role("button", name="Select").and_(page.locator("[aria-pressed=false]")).wait_for()


def test_a_result_lies_beside_the_last_one(browser: Any, server: Server) -> None:
    with watched(browser, server) as seen:
        page = seen.open("/run#name=flat")
        for count, colour in enumerate((COLOURS[0], COLOURS[2]), 1):
            page.get_by_text("More settings").click() if count == 1 else None
            page.get_by_label("Color", exact=True).fill(str(colour))
            page.get_by_role("button", name="Make a picture").click()
            page.locator(".stage .thumb").nth(count - 1).wait_for()
        page.get_by_role("button", name="Beside the last one").click()
        page.get_by_text("rms 16.0 of 255").wait_for()
        assert seen.violations() == []
        seen.shot("run-compare")
        page.get_by_role("button", name="Beside the last one").click()
        page.locator(".frame img").wait_for()
