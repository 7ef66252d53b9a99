"""The sampler lab in a browser, on a real server with the demo checkpoint: its grid, its plots, its URL, its files."""

import csv
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.browser.conftest import FLAT
from tests.browser.pages import made_server, new_key, watched
from tests.serving import Server

pytestmark = pytest.mark.browser
SMALL = (
    "/lab#template=txt2img&samplers=euler,heun&schedules=sgm_uniform&steps=2,4"
    "&guidance=4&seeds=18446744073709551613&reference=heun/sgm_uniform/8"
)
RUN = "Run all"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = made_server(tmp_path / "home").start()
    yield running
    running.stop()


def finished(page: Any, count: int) -> None:
    """Wait until so many cells have their picture."""
    page.wait_for_function("count => document.querySelectorAll('.cell img').length >= count", arg=count)


def saved(page: Any, name: str, folder: Path) -> Path:
    """Press an export's button and keep its file."""
    with page.expect_download() as kept:
        page.get_by_role("button", name=name, exact=True).click()
    path = folder / kept.value.suggested_filename
    kept.value.save_as(path)
    return path


def test_curves_come_at_once_and_the_grid_fills_with_cells_that_are_jobs(browser: Any, server: Server) -> None:
    with watched(browser, server) as seen:
        page = seen.open(SMALL)
        page.get_by_text("sgm_uniform, 4 steps", exact=True).wait_for()
        assert page.get_by_text("4 cells, 16 evaluations").is_visible()  # 2 + 4 + 3 + 7
        assert server.json("/jobs")["jobs"] == []
        page.get_by_role("button", name=RUN).click()
        finished(page, 4)
        page.get_by_role("button", name="Run all again").wait_for()
        jobs = server.json("/jobs")["jobs"]
        assert [job["status"] for job in jobs] == ["completed"] * 4
        seeds = {server.json(f"/jobs/{job['id']}")["workflow"]["prompt"]["5"]["inputs"]["seed"] for job in jobs}
        assert seeds == {2**64 - 3}
        page.locator(".legend", has_text="heun / sgm_uniform").wait_for()
        marks = page.locator("figure").nth(1).locator("svg g path[transform]")
        assert marks.count() == 4
        url = page.url.removeprefix(server.url)
        again = seen.open(url)
        finished(again, 4)
        assert len(server.json("/jobs")["jobs"]) == 4
        again.get_by_label("Schedules").select_option("karras")
        again.get_by_role("button", name="Run the rest").click()
        finished(again, 8)
        assert len(server.json("/jobs")["jobs"]) == 8


def test_a_cell_shows_its_way_in_states_and_estimates(browser: Any, server: Server) -> None:
    with watched(browser, server) as seen:
        page = seen.open(SMALL)
        page.get_by_role("button", name=RUN, disabled=False).click()
        finished(page, 4)
        page.get_by_role("button", name="heun, sgm_uniform, 4 steps").click()
        frames = page.locator("dialog .film img")
        frames.nth(7).wait_for()
        assert frames.count() == 8
        assert page.locator("dialog .film").first.get_by_text("step 4, σ 0").is_visible()
        last = page.locator("dialog .film").first.locator("img").last.get_attribute("src")
        final = page.locator("dialog .shots img").get_attribute("src")
        script = """async ([one, other]) => {
            const { pixelsOf, rmsOf } = await import('/pages/compare.js');
            return rmsOf(await pixelsOf(one), await pixelsOf(other));
        }"""
        assert page.evaluate(script, [last, final]) == 0
        assert seen.violations() == []
        seen.shot("lab-film")
        url = page.url.removeprefix(server.url)
        assert "cell=" in url
        seen.open(url).locator("dialog .film img").nth(7).wait_for()


def test_cells_go_on_after_a_restart_of_the_server(browser: Any, server: Server) -> None:
    lost = ("ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "WebSocket", "ERR_EMPTY_RESPONSE", "503")
    with watched(browser, server, *lost) as seen:
        page = seen.open(SMALL.replace("steps=2,4", "steps=20,30,40,50"))
        page.get_by_role("button", name=RUN, disabled=False).click()
        finished(page, 1)
        server.stop()
        page.locator(".banner").wait_for()
        server.start()
        finished(page, 8)
        assert len(server.json("/jobs")["jobs"]) == 8


def test_files_hold_what_the_page_shows_and_the_python_makes_it_again(
    browser: Any, server: Server, tmp_path: Path
) -> None:
    with watched(browser, server) as seen:
        page = seen.open(SMALL.replace("18446744073709551613", "3"))
        page.get_by_role("button", name=RUN, disabled=False).click()
        finished(page, 4)
        page.get_by_role("button", name="Run all again").wait_for()
        files = {name: saved(page, name, tmp_path) for name in ("CSV", "PNG", "safetensors", "Python")}
    with files["CSV"].open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["sampler"], row["steps"], row["evaluations"]) for row in rows] == [
        ("euler", "2", "2"),
        ("euler", "4", "4"),
        ("heun", "2", "3"),
        ("heun", "4", "7"),
    ]
    with Image.open(files["PNG"]) as sheet:
        assert sheet.width > 128 * 2
        assert sheet.height > 128 * 2 + 2 * 320
        assert len(sheet.convert("L").resize((64, 64)).getcolors(4096) or ()) > 20
    tensors = load_file(files["safetensors"])
    assert set(tensors) == {
        f"{way}{row['sampler']}/sgm_uniform/{row['steps']}/4/3" for row in rows for way in ("", "sigmas/")
    }
    assert tensors["sigmas/euler/sgm_uniform/4/4/3"].dtype == torch.float64
    assert tensors["euler/sgm_uniform/4/4/3"].shape == (1, 16, 16, 16)
    ran = subprocess.run(
        [sys.executable, files["Python"]], capture_output=True, text=True, cwd=server.home, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stderr
    printed = {line.rsplit(" ", 2)[0]: float(line.rsplit(" ", 1)[1]) for line in ran.stdout.splitlines()}
    for row in rows:
        name = f"{row['sampler']} / sgm_uniform / {row['steps']} / guidance 4"
        assert printed[name] == pytest.approx(float(row["distance"]), rel=1e-3)


def test_step_caches_are_an_axis_with_drift_measured_and_estimated(
    browser: Any, server: Server, tmp_path: Path
) -> None:
    with watched(browser, server) as seen:
        page = seen.open(SMALL.replace("samplers=euler,heun", "samplers=euler").replace("steps=2,4", "steps=8"))
        page.get_by_text("1 cells, 8 evaluations").wait_for()
        page.get_by_label("Step caches").select_option("taylorseer:2")
        page.get_by_text("2 cells, 16 evaluations").wait_for()
        page.get_by_role("button", name=RUN, disabled=False).click()
        finished(page, 2)
        page.get_by_role("button", name="Run all again").wait_for()
        cell = page.locator(".cell[aria-label*='taylorseer:2']")
        page.locator("figure", has_text="Drift of step caches").locator("svg g path[transform]").wait_for()
        assert page.locator("figure", has_text="Work and precision").locator("svg g path[transform]").count() == 2
        assert seen.violations() == []
        seen.shot("lab-caches")
        url = page.url.removeprefix(server.url)
        with saved(page, "CSV", tmp_path).open() as file:
            whole, cached = list(csv.DictReader(file))
        assert (whole["cache"], whole["drift"], whole["evaluations"]) == ("", "", "8")
        assert cached["cache"] == "taylorseer:2"
        assert float(cached["evaluations"]) < 8
        latents = load_file(saved(page, "safetensors", tmp_path))
        one, other = (latents[f"euler/sgm_uniform/8/4/18446744073709551613{way}"] for way in ("", "/taylorseer:2"))
        apart = (one - other).square().mean().sqrt() / one.std(correction=0)
        assert float(cached["drift"]) == pytest.approx(float(apart), rel=0.02)
        assert 1 / 3 < float(cached["drift_estimate"]) / float(cached["drift"]) < 3  # docs/step-caches.md
        assert 'caches=["taylorseer:2"]' in saved(page, "Python", tmp_path).read_text()
        cell.click()
        page.locator("dialog").get_by_text("Drift, as the run estimates it").wait_for()
        page.locator("dialog .film img").nth(7).wait_for()
        again = seen.open(url)
        finished(again, 2)
        assert len(server.json("/jobs")["jobs"]) == 3  # two cells and a way


def test_what_is_wrong_is_said_where_it_is_and_nothing_is_lost(browser: Any, server: Server) -> None:
    with watched(browser, server, "400 (Bad Request)") as seen:
        page = seen.open(SMALL)
        page.get_by_text("4 cells").wait_for()
        steps = page.get_by_label("Steps", exact=True)
        steps.fill("2, x")
        page.get_by_text("Numbers are needed").first.wait_for()
        assert steps.get_attribute("aria-invalid") == "true"
        steps.fill("2, 4")
        page.get_by_label("Reference").fill("nothing/sgm_uniform/4")
        page.locator(".notice", has_text="nothing").wait_for()
        page.get_by_label("Reference").fill("heun/sgm_uniform/8")
        page.get_by_role("button", name=RUN, disabled=False).wait_for()
        assert page.get_by_label("Seeds").input_value() == "18446744073709551613"
        server.json("/api/workflows/flat", {"workflow": FLAT})
        seen.open("/lab#name=flat").get_by_text("one node with sampler_name").wait_for()


def test_the_lab_is_worked_by_keyboard_and_says_it_in_german(browser: Any, server: Server) -> None:
    with watched(browser, server, locale="de-DE") as seen:
        page = seen.open(SMALL.replace("steps=2,4", "steps=1"))
        go = page.get_by_role("button", name="Alle starten", disabled=False)
        go.focus()
        page.keyboard.press("Enter")
        finished(page, 2)
        reached = set()
        for _ in range(40):
            page.keyboard.press("Tab")
            reached.add(
                page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.textContent")
            )
        assert {"euler entfernen", "CSV", "Labor"} <= {text.strip() for text in reached}
        assert any(text.startswith("heun, sgm_uniform, 1 Schritte") for text in reached)
        page.locator(".cell").first.focus()
        page.keyboard.press("Enter")
        page.locator("dialog .film img").first.wait_for()
        page.keyboard.press("Escape")
        page.locator("dialog").wait_for(state="hidden")
        seen.open("/lab#samplers=nope&schedules=karras&steps=4").locator(".cell").click()
        page.locator("dialog").get_by_text("'nope' is not a known sampler").wait_for()  # and nothing is submitted
        page.keyboard.press("Escape")
        page.wait_for_function(
            "() => document.activeElement === document.querySelector('.cell')"
        )  # laid anew meanwhile


def test_what_stands_on_the_run_page_goes_to_the_lab(browser: Any, server: Server) -> None:
    with watched(browser, server) as seen:
        page = seen.open("/run")
        page.get_by_label("Guidance", exact=True).fill("3")
        page.get_by_label("Prompt", exact=True).fill("a small green star, on the left = here")
        page.wait_for_function("() => location.hash.includes('green')")
        page.get_by_role("link", name="Compare samplers").click()
        page.get_by_label("Steps", exact=True).fill("1")
        page.get_by_text(re.compile("^6 cells")).wait_for()
        assert page.get_by_label("Guidance", exact=True).input_value() == "3"
        page.get_by_role("button", name=RUN, disabled=False).click()
        finished(page, 6)
        newest = server.json("/api/jobs?limit=1")["jobs"][0]["id"]
        prompt = server.json(f"/jobs/{newest}")["workflow"]["prompt"]
        assert prompt["2"]["inputs"]["text"] == "a small green star, on the left = here"


def test_another_key_sees_no_cell_of_a_link_and_makes_its_own(browser: Any, server: Server) -> None:
    keys = {name: new_key(server, name) for name in ("ann", "bob")}
    with watched(browser, server) as ann, watched(browser, server, "400 (Bad Request)", "404 (Not Found)") as bob:
        for seen, name in ((ann, "ann"), (bob, "bob")):
            seen.open("/lab").get_by_label("API key").fill(keys[name])
            seen.page.get_by_role("button").click()
            seen.page.wait_for_url("**/lab*")
        page = ann.open(SMALL.replace("steps=2,4", "steps=1"))
        page.get_by_role("button", name=RUN, disabled=False).click()
        finished(page, 2)
        link = page.url.removeprefix(server.url)
        other = bob.open(link)
        other.get_by_role("button", name=RUN, disabled=False).wait_for()
        assert other.locator(".cell img").count() == 0
        other.get_by_role("button", name=RUN).click()
        finished(other, 2)
        assert other.url.removeprefix(server.url) != link


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), (390, 844)], ids=["wide", "phone"])
def test_axe_finds_nothing_on_the_lab(browser: Any, server: Server, scheme: str, size: tuple[int, int]) -> None:
    form = {"color_scheme": scheme, "viewport": {"width": size[0], "height": size[1]}}
    with watched(browser, server, **form) as seen:
        page = seen.open(
            "/lab#samplers=euler,heun,dpmpp_2m,res_2m&schedules=sgm_uniform,karras&steps=4,8,16&reference=heun/sgm_uniform/64"
        )
        page.get_by_text("24 cells").wait_for()
        assert seen.violations() == []
        page.get_by_role("button", name=RUN, disabled=False).click()
        finished(page, 24)
        page.wait_for_timeout(600)
        assert seen.violations() == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        seen.shot(f"lab-{scheme}-{'wide' if size[0] > 500 else 'phone'}")
