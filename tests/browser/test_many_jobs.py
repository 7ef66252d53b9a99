"""The pages with 5,000 jobs in the history: how soon something is seen, and whether scrolling ever sticks."""

import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import FLAT
from tests.browser.pages import made_server, watched
from tests.serving import Server

pytestmark = pytest.mark.browser
JOBS = 5_000
Recorded = Callable[[str, object], None]
FIRST_PAINT_MS, LONG_TASK_MS = 1000, 50
SCREENS = 40
PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
WATCH = """() => {
    window.long = [];
    new PerformanceObserver((list) => window.long.push(...list.getEntries().map((each) => each.duration)))
        .observe({ type: "longtask" });
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose history holds one job 5,000 times, each under a name and a time of its own."""
    running = made_server(tmp_path_factory.mktemp("many") / "home").start()
    prompt = {**FLAT, "2": {**FLAT["2"], "inputs": {**FLAT["2"]["inputs"], "seconds": 0.01}}}
    running.ended(running.json("/prompt", {"prompt": prompt})["prompt_id"])
    running.stop()
    multiply(running.home / "user" / "jobs.sqlite", JOBS - 1)
    running.start()
    yield running
    running.stop()


def multiply(database: Path, count: int) -> None:
    """The one job again and again, a minute apart, before it."""
    with closing(sqlite3.connect(database)) as store:
        names = [row[1] for row in store.execute("PRAGMA table_info(jobs)") if row[1] != "seq"]
        values = dict(zip(names, store.execute(f"SELECT {', '.join(names)} FROM jobs").fetchone(), strict=True))
        rows = []
        for place in range(1, count + 1):
            past = {name: values[name] - 60 * place for name in ("created_at", "started_at", "ended_at")}
            rows.append({**values, **past, "id": str(uuid.uuid4()), "number": float(-place)})
        marks = ", ".join(f":{name}" for name in names)
        store.executemany(f"INSERT INTO jobs ({', '.join(names)}) VALUES ({marks})", rows)
        store.commit()


@pytest.mark.parametrize("path", ["/home", "/gallery", "/lab", "/run", "/system"])
def test_something_is_seen_within_a_second(browser: Any, server: Server, path: str, record_property: Recorded) -> None:
    with watched(browser, server) as seen:
        seen.open(path)  # the caches of server and browser are as cold or warm as a person finds them
        page = seen.open(path)
        page.wait_for_function(f"() => ({PAINT})() !== null")
        painted = page.evaluate(PAINT)
        record_property("first_contentful_paint_ms", round(painted))
        assert painted < FIRST_PAINT_MS


def test_the_gallery_scrolls_through_them_without_a_long_task(
    browser: Any, server: Server, record_property: Recorded
) -> None:
    with watched(browser, server) as seen:
        page = seen.open("/gallery")
        page.get_by_text(f"{JOBS} jobs").wait_for()
        page.locator(".thumb img").first.wait_for()
        page.wait_for_timeout(1000)  # what opening the page costs is the other test's affair
        page.evaluate(WATCH)
        page.mouse.move(600, 500)
        for _ in range(SCREENS):
            page.mouse.wheel(0, 800)
            page.wait_for_timeout(100)
        shown = page.locator(".thumb").count()
        longest = max(page.evaluate("window.long"), default=0.0)
        record_property("longest_task_ms", round(longest))  # 0: none was longer than 50
        record_property("tiles", shown)
        assert shown > 240
        assert longest < LONG_TASK_MS
