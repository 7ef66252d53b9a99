"""A stored workflow with the name of a published one: a POST calls what is published, all else reaches the stored."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sigmagraph.engine.graph.reading.document import load_workflow
from tests.server.endpoints.conftest import ENDPOINTS, LARGE, SMALL, Served, serving

SLUG = LARGE.rpartition("/")[2]
NAME = f"/workflows/{SLUG}"


def document() -> dict[str, Any]:
    return {"workflow": load_workflow(ENDPOINTS / f"{SLUG}.json").prompt()}


async def answered(served: Served, verb: str, path: str, **options: Any) -> tuple[int, Any]:
    response = await served.client.request(verb, path, **options)
    return response.status, await response.json() if response.content_type == "application/json" else None


async def test_a_stored_workflow_of_a_published_name_is_reached_by_every_verb_but_the_call(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        assert (await answered(served, "POST", f"/api{NAME}", json=document()))[0] == 201
        assert (await answered(served, "GET", NAME))[1]["name"] == SLUG
        assert (await answered(served, "GET", f"{NAME}/versions"))[1] == {"versions": [1]}
        status, started = await answered(served, "POST", f"{NAME}/run", json={})
        assert status == 202
        assert (await served.jobs.wait(started["job_id"])).source == "workflows"
        status, called = await answered(served, "POST", NAME, json=dict(SMALL))
        assert status == 200
        assert (await served.jobs.wait(called["request_id"])).source == "endpoint"
        assert (await answered(served, "DELETE", NAME))[0] == 204
        assert (await answered(served, "GET", NAME))[0] == 404


@pytest.mark.parametrize("form", ["json", "picture", "multipart"])
async def test_saving_under_a_published_name_says_where_it_can_be_saved(form: str, tmp_path: Path) -> None:
    picture = {"data": b"\x89PNG\r\n\x1a\n", "headers": {"Content-Type": "image/png"}}
    with aiohttp.MultipartWriter("form-data") as parts:
        parts.append("x").set_content_disposition("form-data", name="file", filename="x.png")
    options = {"json": {"json": document()}, "picture": picture, "multipart": {"data": parts}}[form]
    async with serving(tmp_path) as served:
        status, body = await answered(served, "POST", NAME, **options)
        assert (status, body["code"]) == (409, "name_is_published")
        assert body["error"].endswith(f"save a workflow under another name, or by POST /api{NAME}")


async def test_a_call_that_is_no_document_keeps_its_own_error(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        assert (await answered(served, "POST", NAME, json={"steps": 9}))[0] == 400
        assert (await answered(served, "POST", NAME, data=b"{", headers={"Content-Type": "application/json"}))[0] == 400
        assert (await answered(served, "POST", NAME, data=b"x", headers={"Content-Type": "text/plain"}))[0] == 406
        status, body = await answered(served, "PUT", NAME)
        assert (status, body["code"]) == (405, "method_not_allowed")
