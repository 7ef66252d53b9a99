"""Two keys times every route: one that is added without asking whose things it shows fails here."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientResponse, web

from tests.server.endpoints.conftest import LARGE, SMALL, Served, serving

V2 = LARGE.replace("/v1/", "/v2/")
KNOWN, HIDDEN = "known", "trace"
JOB, RUNNING, WAITING = (f"7f3d2c1b-9a8e-4d6f-b012-3c4d5e6f7a8{digit}" for digit in "bcd")
"""What Bob has guessed or overheard of Ann's names, and what is in nothing that he sends: it must not come back."""

PARTS = {
    "id": JOB,
    "name": KNOWN,
    "file": "workflows%2Fknown.json",
    "dest": "stolen.json",
    "folder": "checkpoints",
    "hash": "blake3:" + "0" * 64,
    "index": "0",
    "class": "KSampler",
    "node": "KSampler",
    "locale": "en",
    "place": "output",
    "number": "1",
    "path": "known.png",
    "rest": KNOWN,
    "slug": LARGE.rsplit("/", 1)[-1],
}
"""What stands for each variable part of a path; a new name of a part has to be given a meaning here."""

QUERIES = {
    "/view": [
        "filename=known_00000_.png&subfolder=trace",
        "filename=known_00000_.png&subfolder=.owners/{ann}/trace",
        "filename=known_00000_.png&subfolder=../{ann}/trace",
        "filename=known.txt&type=input",
        "filename=known.txt&type=input&subfolder=.owners/{ann}",
        "filename=known.txt&type=temp",
    ],
    "/userdata": ["dir=workflows&recurse=true&full_info=true", "dir=../{ann}", "dir=.&recurse=true"],
    "/v2/userdata": ["", "path=workflows", "path=../{ann}"],
    "/history": ["", "max_items=64", "offset=0"],
    "/jobs": ["", "status=completed,failed,cancelled,in_progress,pending&limit=200", "workflow_id=trace"],
}
OPEN = {"/health", "/api/health", "/login"}
"""What answers without a key; the signature in a picture's URL is its key, and the OpenAPI pages describe, no more."""
ECHO = {"/workflow/convert"}
"""These answer with what the caller sent, in another form."""
PUBLISHED = ("/outputs/", "/v1/", "/v2/", "/workflows/request/")
"""These look at the method, and whether there is such a path, before the key."""
DESCRIBES = ("/docs", "/openapi", "/api-docs", "/swagger")


@dataclass
class People:
    """A server with two keys, and what is Ann's."""

    served: Served
    ann: dict[str, str]
    bob: dict[str, str]
    ann_id: str
    before: dict[str, Any] = field(default_factory=dict)

    async def call(self, method: str, path: str, headers: dict[str, str] | None, **more: Any) -> ClientResponse:
        return await self.served.client.request(method, path, headers=headers, allow_redirects=False, **more)

    async def belongings(self) -> dict[str, Any]:
        """Everything Ann can see of her own."""
        paths = ("/queue", "/history", "/jobs", "/settings", "/v2/userdata", "/workflows", "/workflows/known")
        files = ("/userdata/workflows%2Fknown.json", "/view?filename=known.txt&type=input")
        pictures = ("/view?filename=known_00000_.png&subfolder=trace",)
        found = {}
        for path in (*paths, *files, *pictures):
            response = await self.call("GET", path, self.ann)
            assert response.status == 200, path
            found[path] = await response.read()
        return found


def graph(text: str) -> dict[str, Any]:
    """A whole text-to-image graph of the stub's nodes; `wait` in the text keeps it running."""
    size = {"width": 64, "height": 64, "batch_size": 1}
    sampling = {"seed": 1, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    links = {"model": ["1", 0], "positive": ["2", 0], "negative": ["2", 0], "latent_image": ["3", 0]}
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd3.5_large.safetensors"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": text, "clip": ["1", 1]}},
        "3": {"class_type": "EmptySD3LatentImage", "inputs": size},
        "4": {"class_type": "KSampler", "inputs": sampling | links},
        "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
        "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "trace/known"}},
    }


@asynccontextmanager
async def two_people(home: Path) -> AsyncIterator[People]:
    """Ann has jobs in every state, files, settings, a stored workflow and a call of a published one."""
    async with serving(home) as served:
        ann, bob = await served.key(), await served.key()
        ann_id = (await served.jobs.accounts.list())[0].id
        people = People(served, ann, bob, ann_id)

        async def post(path: str, body: Any = None, **more: Any) -> None:
            answer = await people.call("POST", path, ann, **({"json": body} | more))
            assert answer.status in (200, 201, 202), (path, await answer.text())

        await post("/prompt", {"prompt": graph("trace"), "prompt_id": JOB, "client_id": "trace"})
        await served.jobs.wait(JOB, timeout_s=20)
        await post(V2, {**SMALL, "prompt": "trace"})
        for job_id, state in ((RUNNING, "running"), (WAITING, "queued")):
            await post("/prompt", {"prompt": graph(f"wait trace {job_id}"), "prompt_id": job_id})
            while (await served.jobs.get(job_id)).state != state:
                await asyncio.sleep(0.01)
            await served.jobs.pause()
        form = aiohttp.FormData()
        form.add_field("image", b"trace", filename="known.txt")
        await post("/upload/image", data=form)
        await post("/userdata/workflows%2Fknown.json", {"trace": 1})
        await post("/settings/known", "trace")
        await post("/workflows/known", {"workflow": graph("trace"), "description": "trace"})
        people.before = await people.belongings()
        yield people
        await served.jobs.cancel_all()


def everything_of(app: web.Application) -> list[tuple[str, str]]:
    """Method and path of every route, variable parts filled in."""
    found = []
    for route in app.router.routes():
        assert route.resource is not None
        path = re.sub(r"\{(\w+)(:[^}]*)?\}", lambda part: PARTS[part[1]], route.resource.canonical)
        methods = ("GET", "POST", "PUT", "DELETE") if route.method == "*" else (route.method,)
        found += [(method, path) for method in methods]
    return found


def bodies(path: str, ann_id: str) -> list[dict[str, Any]]:
    """Bodies that name Ann's things in all the ways there are."""
    ids = [JOB, RUNNING, WAITING]
    picture = {"filename": "known_00000_.png", "subfolder": "trace", "type": "output"}
    if "/upload/" in path:
        return [{"data": mask(picture)}, {"data": mask(picture | {"subfolder": f".owners/{ann_id}/trace"})}]
    shared: dict[str, Any] = {"delete": ids, "job_ids": ids, "prompt_id": JOB, "client_id": "trace", "clear": True}
    shared |= {"clientId": "trace", "enabled": True, "key": "guess", "unload_models": True, "username": "x"}
    sources = ({"job_id": JOB}, {"image": picture}, {"name": KNOWN}, {"prompt": graph("mine")})
    return [{"data": json.dumps(shared | source).replace(HIDDEN, "tr\\u0061ce").encode()} for source in sources]


def mask(reference: dict[str, str]) -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field("image", b"\x89PNG", filename="known.txt")
    form.add_field("original_ref", json.dumps(reference))
    form.add_field("overwrite", "true")
    return form


async def test_nothing_of_one_key_is_shown_to_or_changed_by_another_on_any_route(tmp_path: Path) -> None:
    async with two_people(tmp_path) as people:
        app = people.served.client.server.app  # type: ignore[attr-defined]
        for method, path in everything_of(app):
            plain = path.removeprefix("/api") or "/"
            queries = [written.format(ann=people.ann_id) for written in QUERIES.get(plain, [""])]
            for query in queries:
                for more in [{}] if method in ("GET", "HEAD") else bodies(path, people.ann_id):
                    response = await people.call(method, f"{path}?{query}" if query else path, people.bob, **more)
                    assert response.status < 500 or plain == "/ready", (method, path, await response.text())
                    body = (await response.read()).replace(b'"traceback"', b"")  # the name of a field
                    assert plain in ECHO or HIDDEN.encode() not in body, (method, path, query)
        assert await people.belongings() == people.before
        assert (await people.served.jobs.get(RUNNING)).state == "running"


async def test_without_a_key_no_route_says_anything(tmp_path: Path) -> None:
    async with two_people(tmp_path) as people:
        app = people.served.client.server.app  # type: ignore[attr-defined]
        for method, path in everything_of(app):
            response = await people.call(method, path, None)
            if path in OPEN or path.startswith(DESCRIBES):
                continue
            allowed = (401, 403, 404, 405) if path.startswith(PUBLISHED) else (401, 405)
            assert response.status in allowed, (method, path, response.status)
        assert await people.belongings() == people.before


def test_a_new_variable_part_of_a_path_has_to_be_given_a_meaning() -> None:
    app = web.Application()

    async def shows(request: web.Request) -> web.Response:
        return web.Response(text=request.match_info["secret"])

    app.router.add_get("/new/{secret}", shows)
    with pytest.raises(KeyError, match="secret"):
        everything_of(app)
