"""The page of the published workflows: it shows the document, makes a call, and asks nothing of any other host."""

from pathlib import Path
from typing import Any

import pytest

from tests.server.endpoints.threaded import running

pytestmark = pytest.mark.browser
PATH = "/v1/stable-diffusion-3.5-turbo-txt2img"


def test_a_call_made_from_the_page_shows_its_picture(browser: Any, tmp_path: Path) -> None:
    with running(tmp_path / "home") as server:
        page = browser.new_page()
        asked: list[str] = []
        complaints: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{server.url}/api-docs")
        page.click(".authorize")
        page.fill(".auth-container input", server.key)
        page.click(".auth-btn-wrapper .authorize")
        page.click(".btn-done")
        call = page.locator(".opblock", has_text=PATH).first
        call.locator(".opblock-summary-control").click()
        call.locator(".execute").click()
        picture = call.locator(".live-responses-table img")
        picture.wait_for()
        assert picture.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [1024, 1024]
        sent = call.locator(".curl-command").inner_text()
        assert "Accept: image/jpeg" in sent.replace("accept", "Accept")
        assert "Idempotency-Key" not in sent
        assert complaints == []
        assert all(url.removeprefix("blob:").startswith(server.url) for url in asked)
        page.close()
