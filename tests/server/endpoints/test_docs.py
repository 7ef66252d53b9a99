"""docs/api.md: its calls run, its tables are complete, and the description and the viewer answer."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sigmagraph.engine.server.endpoints.routes import PATHS
from tests.server.endpoints.conftest import ROOT, changed, serving
from tests.server.endpoints.threaded import Running, running

TEXT = (ROOT / "docs" / "api.md").read_text("utf-8")


def block(language: str, server: Running) -> str:
    """The first example in a language, with this server's address."""
    found = re.search(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    assert found is not None
    return found[1].replace("http://127.0.0.1:8188", server.url)


def ran(command: list[str], server: Running, folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, env=os.environ | {"KEY": server.key}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_calls_in_curl_and_python_run(tmp_path: Path) -> None:
    with running(tmp_path / "home") as server:
        ran(["bash", "-c", block("bash", server)], server, tmp_path)
        assert (tmp_path / "lighthouse.jpg").read_bytes().startswith(b"\xff\xd8")
        printed = ran([sys.executable, "-c", block("python", server)], server, tmp_path)
        assert printed.count(f"{server.url}/outputs/") == 2


@pytest.mark.clients
def test_the_call_in_javascript_runs(tmp_path: Path) -> None:
    with running(tmp_path / "home") as server:
        (tmp_path / "call.mjs").write_text(block("javascript", server), "utf-8")
        assert ran(["node", "call.mjs"], server, tmp_path).startswith(f"200 {server.url}/outputs/")


def test_every_path_is_in_the_table() -> None:
    for path in PATHS:
        assert path in TEXT


async def test_the_document_has_every_endpoint_and_the_real_lists(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        document = await (await served.client.get("/openapi.json")).json()
        body = document["components"]["schemas"]["input.stable-diffusion-3.5-large-txt2img"]
        assert "/v1/stable-diffusion-3.5-turbo-txt2img" in document["paths"]
        assert {"euler", "dpmpp_2m", "euler_ancestra"} <= set(body["properties"]["sampler"]["enum"])
        assert body["required"] == ["prompt", "sampler", "scheduler"]
        assert body["properties"]["seed"]["minimum"] == -1
        call = document["paths"]["/v1/stable-diffusion-3.5-large-txt2img"]["post"]["requestBody"]
        example = call["content"]["application/json"]["example"]
        assert (await served.client.post("/v1/stable-diffusion-3.5-large-txt2img", json=example)).status == 200


async def test_the_document_has_every_route_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        document = await (await served.client.get("/openapi.json")).json()
        paths = document["paths"]
        for path, verbs in {
            "/prompt": {"get", "post"}, "/replay": {"post"}, "/jobs/{id}": {"get"}, "/workflows/{name}/run": {"post"},
            "/object_info": {"get"}, "/api/v2/jobs": {"get", "post"}, "/api/v2/assets/by-hash/{hash}": {"head"},
            "/userdata/{file}": {"get", "post", "delete"}, "/templates/{name}-{number}.webp": {"get"},
        }.items():  # fmt: skip
            assert set(paths[path]) == verbs, path
        assert set(paths["/api/v2/jobs"]["post"]["responses"]) == {"201", "default"}
        named = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
        assert "ComfyJob" in named
        assert named <= set(document["components"]["schemas"])
        assert [path for path in paths if path.startswith("/api/") and path.removeprefix("/api") in paths] == []
        silent = [
            f"{verb} {path}" for path, verbs in paths.items() for verb, each in verbs.items() if "summary" not in each
        ]
        assert silent == []
        for path, verbs in paths.items():
            named = set(re.findall(r"\{(\w+)\}", path))
            for operation in verbs.values():
                assert {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"} == named, path


async def test_a_retired_endpoint_is_not_described(tmp_path: Path) -> None:
    async with serving(tmp_path, changed(retired=True)) as served:
        document = await (await served.client.get("/openapi.json")).json()
        assert not [path for path in document["paths"] if "stable-diffusion" in path]


async def test_the_viewer_asks_nothing_of_another_host(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        page = await (await served.client.get("/api-docs")).text()
        sources = [
            address for address in re.findall(r'(?:src|href)="([^"]*)"', page) if not address.startswith("data:")
        ]
        assert all(source.startswith("/api-docs/") for source in sources)
        for source in sources:
            assert (await served.client.get(source)).status == 200
        assert (await served.client.get("/api-docs/../settings.py")).status == 404
