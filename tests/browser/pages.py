"""A server with the demo checkpoint, and a page that complains of every error and every request to another host."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.browser.conftest import FLAT, PACKS, SHOTS
from tests.serving import CHECKOUT, Server

DEMO = CHECKOUT / "models" / "checkpoints" / "sigmagraph-demo.safetensors"
AXE = Path(os.environ.get("SIGMAGRAPH_TEST_AXE", ".ci/axe/node_modules/axe-core/axe.min.js"))
COMMAND = [sys.executable, "-c", "from sigmagraph.engine.cli.app import main; main()"]
FAILING = {
    "1": FLAT["1"],
    "2": {"class_type": "RaiseWithWords", "inputs": {"image": ["1", 0], "words": "<b>boom</b>"}},
    "3": FLAT["3"],
}


def made_server(home: Path) -> Server:
    """A server on a home with the demo checkpoint, a slow node and a failing one; not started."""
    folder = home / "models" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / DEMO.name).symlink_to(DEMO)
    return Server(home, "--custom-nodes", str(PACKS), "--slots", "1")


def new_key(server: Server, name: str, *options: str) -> str:
    """A key, made as an operator makes it."""
    made = [*COMMAND, "keys", "create", name, *options, "--json", "--home", str(server.home)]
    return str(json.loads(subprocess.run(made, check=True, capture_output=True, cwd=CHECKOUT).stdout)["key"])


class Watched:
    """A page in a fresh profile, with everything that it complained of."""

    def __init__(self, browser: Any, server: Server, **options: Any) -> None:
        self.server = server
        self.context = browser.new_context(
            **({"locale": "en-GB", "viewport": {"width": 1280, "height": 900}} | options)
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.expected: tuple[str, ...] = ()
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda said: self._heard(said.text) if said.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self._heard(str(error)))
        self.page.on("dialog", self._asked)

    def _asked(self, dialog: Any) -> None:
        self._heard(dialog.message)
        dialog.dismiss()

    def _heard(self, text: str) -> None:
        if not any(phrase in text for phrase in self.expected):
            self.complaints.append(text)

    def open(self, path: str) -> Any:
        """Go there, from nowhere: a new fragment alone would not load the page again."""
        self.page.goto("about:blank")
        self.page.goto(self.server.url + path)
        return self.page

    def shot(self, name: str) -> None:
        """A screenshot, where somebody wants them."""
        if SHOTS in os.environ:
            self.page.screenshot(path=str(Path(os.environ[SHOTS]) / f"{name}.png"))

    def violations(self) -> list[str]:
        """What axe-core finds on the page as it is."""
        self.page.evaluate(AXE.read_text("utf-8"))
        found = self.page.evaluate("async () => (await axe.run()).violations")
        return [
            f"{violation['id']}: {node['html'][:200]} {node['failureSummary']}"
            for violation in found
            for node in violation["nodes"]
        ]


@contextmanager
def watched(browser: Any, server: Server, *expected: str, **options: Any) -> Iterator[Watched]:
    """A page that at its end has complained of nothing unexpected and asked no other host."""
    page = Watched(browser, server, **options)
    page.expected = expected
    try:
        yield page
        hosts = {url.partition("//")[2].partition("/")[0] for url in page.asked if url.startswith(("http", "ws"))}
        assert hosts <= {server.url.partition("//")[2]}, hosts
        assert page.complaints == [], page.complaints
    finally:
        page.context.close()
