"""Every endpoint of ComfyUI's protocol: status, headers and shape of the body, with and without the prefix `/api`.

A route that is added has to be described here: the table is held against the application's own list.
"""

import json
import re
import uuid
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientResponse
from PIL import Image

from sigmagraph.engine.server.comfy.internal import internal_routes
from sigmagraph.engine.server.comfy.routes import DESCRIBING, KEEPING, OWN, RUNNING
from sigmagraph.engine.server.comfy.templates import template_routes
from tests.server.conftest import Api, Serving
from tests.server.stubs import picture_graph, png, slow_graph

Shape = Any
"""A type, `[shape of each]`, `{key: shape}` with just these keys, `{...: shape}` for any further ones, a predicate."""

ANY = lambda value: True  # noqa: E731  # a shape among shapes
NUMBER = lambda value: isinstance(value, int | float) and not isinstance(value, bool)  # noqa: E731
TEXT_OR_NULL = lambda value: value is None or isinstance(value, str)  # noqa: E731
DONE = str(uuid.UUID(int=1))
"""The id of a job that is over."""
FILE = {"filename": str, "subfolder": str, "type": str}
INFO = {"path": str, "size": int, "modified": NUMBER, "created": NUMBER}
ENTRY = {
    "prompt": [ANY],
    "outputs": {...: {...: [FILE]}},
    "status": {"status_str": str, "completed": bool, "messages": [[ANY]]},
    "meta": {
        ...: {"node_id": str, "display_node": str, "parent_node": TEXT_OR_NULL, "real_node_id": str},
    },
}
LINE = {
    "id": str,
    "status": str,
    "priority": NUMBER,
    "create_time": int,
    "execution_start_time": int,
    "execution_end_time": int,
    "outputs_count": int,
    "previewable_outputs_count": int,
    "workflow_id": TEXT_OR_NULL,
    "preview_output": FILE | {"nodeId": str, "mediaType": str},
}
PAGES = {"offset": int, "limit": int, "total": int, "has_more": bool}
DETAIL = LINE | {
    "outputs": {...: {...: [FILE]}},
    "execution_status": ENTRY["status"],
    "nodes": dict,
    "workflow": {"prompt": dict, "extra_data": dict},
}
NODE = {
    "input": {...: {...: list}},
    "input_order": {...: [str]},
    "output": [str],
    "output_is_list": [bool],
    "output_name": [str],
    "name": str,
    "display_name": str,
    "description": str,
    "python_module": str,
    "category": str,
    "output_node": bool,
}
MEMORY = ("vram_total", "vram_free", "torch_vram_total", "torch_vram_free")
DEVICE = {"name": str, "type": str, "index": ANY} | dict.fromkeys(MEMORY, int)
SYSTEM = {
    "os": str,
    "ram_total": int,
    "ram_free": int,
    "comfyui_version": str,
    "sigmagraph_version": str,
    "has_editor": bool,
    "python_version": str,
    "pytorch_version": str,
    "embedded_python": bool,
    "argv": [str],
    ...: str,  # the version of the editor, where it is installed
}
UPLOADED = {"name": str, "subfolder": str, "type": str}
REPLACEMENT = {
    "old_node_id": str,
    "new_node_id": str,
    "old_widget_ids": [str],
    "input_mapping": ANY,
    "output_mapping": ANY,
}
FLAGS = {"supports_preview_metadata": bool, "node_replacements": bool, "max_upload_size": NUMBER}
LISTED = {"name": str, "pathIndex": int, "modified": NUMBER, "created": NUMBER, "size": int}
TEMPLATES = [
    {
        "moduleName": str,
        "title": str,
        "type": str,
        "isEssential": bool,
        "category": str,
        "templates": [
            {
                "name": str,
                "title": str,
                "mediaType": str,
                "mediaSubtype": str,
                "description": str,
                "tags": list,
                "models": list,
            }
        ],
    }
]

JSON: dict[tuple[str, str], tuple[str, Any, Shape]] = {
    ("GET", "/prompt"): ("/prompt", None, {"exec_info": {"queue_remaining": int}}),
    ("POST", "/prompt"): (
        "/prompt",
        {"prompt": picture_graph(3)},
        {"prompt_id": str, "number": int, "node_errors": {}},
    ),
    ("GET", "/queue"): ("/queue", None, {"queue_running": [[ANY]], "queue_pending": [[ANY]]}),
    ("GET", "/history"): ("/history?max_items=64", None, {DONE: ENTRY, ...: ENTRY}),
    ("GET", "/history/{id}"): (f"/history/{DONE}", None, {DONE: ENTRY}),
    ("GET", "/jobs"): ("/jobs?status=completed&limit=64&offset=0", None, {"jobs": [LINE], "pagination": PAGES}),
    ("GET", "/jobs/{id}"): (f"/jobs/{DONE}", None, DETAIL),
    ("POST", "/jobs/{id}/cancel"): (f"/jobs/{DONE}/cancel", None, {"cancelled": bool}),
    ("POST", "/jobs/cancel"): ("/jobs/cancel", {"job_ids": ["none"]}, {"cancelled": bool}),
    ("GET", "/object_info"): ("/object_info", None, {...: NODE | {...: ANY}}),
    ("GET", "/object_info/{class}"): ("/object_info/SaveImage", None, {"SaveImage": NODE}),
    ("GET", "/system_stats"): ("/system_stats", None, {"system": SYSTEM, "devices": [DEVICE]}),
    ("GET", "/features"): ("/features", None, FLAGS),
    ("GET", "/extensions"): ("/extensions", None, [str]),
    ("GET", "/i18n"): ("/i18n", None, {}),
    ("GET", "/workflow_templates"): ("/workflow_templates", None, {}),
    ("GET", "/node_replacements"): ("/node_replacements", None, {"GoneImage": [REPLACEMENT]}),
    ("GET", "/global_subgraphs"): ("/global_subgraphs", None, {}),
    ("GET", "/models"): ("/models", None, [str]),
    ("GET", "/models/{folder}"): ("/models/checkpoints", None, [str]),
    ("GET", "/embeddings"): ("/embeddings", None, [str]),
    ("GET", "/experiment/models"): ("/experiment/models", None, [{"name": str, "folders": [str]}]),
    ("GET", "/experiment/models/{folder}"): ("/experiment/models/checkpoints", None, [LISTED]),
    ("GET", "/view_metadata/{folder}"): ("/view_metadata/checkpoints?filename=m.safetensors", None, {"k": str}),
    ("POST", "/upload/image"): ("/upload/image", "form", UPLOADED),
    ("POST", "/upload/mask"): ("/upload/mask", "form", UPLOADED),
    ("GET", "/users"): ("/users", None, {"storage": str, "migrated": bool}),
    ("GET", "/settings"): ("/settings", None, {"Comfy.One": int}),
    ("GET", "/settings/{id}"): ("/settings/Comfy.One", None, int),
    ("GET", "/userdata"): ("/userdata?dir=workflows&recurse=true&full_info=true", None, [INFO]),
    ("GET", "/v2/userdata"): (
        "/v2/userdata?path=workflows",
        None,
        [{"name": str, "path": str, "type": str} | {...: ANY}],
    ),
    ("POST", "/userdata/{file}"): ("/userdata/workflows%2Fb.json?full_info=true", {"b": 1}, INFO),
    ("POST", "/userdata/{file}/move/{dest}"): ("/userdata/workflows%2Fa.json/move/workflows%2Fa.json", None, str),
    ("GET", "/internal/logs"): ("/internal/logs", None, str),
    ("GET", "/internal/logs/raw"): ("/internal/logs/raw", None, {"entries": list, "size": {"cols": int, "rows": int}}),
    ("GET", "/internal/folder_paths"): ("/internal/folder_paths", None, {...: [str]}),
    ("GET", "/internal/files/{place}"): ("/internal/files/input", None, [str]),
    ("GET", "/templates/index.json"): ("/templates/index.json", None, TEMPLATES),
    ("GET", "/templates/{name}.json"): ("/templates/flat.json", None, {"nodes": [dict], "links": [list]} | {...: ANY}),
}
"""Answers of 200 with JSON: the route, a request to it, and the shape of the answer."""

EMPTY: dict[tuple[str, str], tuple[str, Any, int]] = {
    ("POST", "/queue"): ("/queue", {"delete": ["none"]}, 200),
    ("POST", "/interrupt"): ("/interrupt", {"prompt_id": "none"}, 200),
    ("POST", "/history"): ("/history", {"delete": ["none"]}, 200),
    ("POST", "/free"): ("/free", {"unload_models": True}, 200),
    ("POST", "/settings"): ("/settings", {"Comfy.One": 1}, 200),
    ("POST", "/settings/{id}"): ("/settings/Comfy.One", 1, 200),
    ("PATCH", "/internal/logs/subscribe"): ("/internal/logs/subscribe", {"clientId": "c", "enabled": True}, 200),
    ("DELETE", "/userdata/{file}"): ("/userdata/workflows%2Fgone.json", None, 204),
}
"""Answers without a body and without a content type."""

FILES = {
    ("GET", "/view"): ("/view?filename=x_00001_.png", "image/png"),
    ("GET", "/userdata/{file}"): ("/userdata/workflows%2Fa.json", "application/json"),
    ("GET", "/experiment/models/preview/{folder}/{index}/{file}"): (
        "/experiment/models/preview/checkpoints/0/m.safetensors",
        "image/webp",
    ),
    ("GET", "/docs/{node}/{locale}.md"): ("/docs/SaveImage/en.md", "text/markdown"),
    ("GET", "/templates/{name}-{number}.webp"): ("/templates/flat-1.webp", "image/webp"),
    ("GET", "/jobs/{id}/events"): (f"/jobs/{DONE}/events", "text/event-stream"),
}
"""Answers of 200 that are no JSON."""

OTHERS = {("GET", "/ws"), ("POST", "/users"), ("GET", "/global_subgraphs/{id}"), ("GET", "/user.css")}
"""Tested by themselves: below, in test_socket.py and in test_files.py."""

MISSING = {
    "/history/none": (200, {}),
    "/object_info/None": (200, {}),
    "/settings/none": (200, None),
    "/jobs/none": (404, {"error": str}),
    "/global_subgraphs/none": (404, {"error": str}),
    "/models/none": (404, ""),
    "/experiment/models/none": (404, ""),
    "/experiment/models/preview/checkpoints/0/none.safetensors": (404, ""),
    "/view_metadata/checkpoints?filename=none.safetensors": (404, ""),
    "/view?filename=none.png": (404, ""),
    "/userdata/none.json": (404, ""),
    "/userdata?dir=none": (404, ""),
    "/jobs/none/events": (404, {"error": dict}),
}
"""What is not there: clients rely on the 200 of the first ones."""


def fits(value: Any, shape: Shape) -> bool:
    """Whether a JSON value has a shape."""
    if isinstance(shape, type):
        return isinstance(value, shape) and not (shape is int and isinstance(value, bool))
    if isinstance(shape, list):
        return isinstance(value, list) and all(fits(item, shape[0]) for item in value)
    if isinstance(shape, dict):
        known = {key: inner for key, inner in shape.items() if key is not ...}
        more = shape.get(..., None)
        if not isinstance(value, dict) or not known.keys() <= value.keys():
            return False
        return all(
            fits(item, known[key]) if key in known else more is not None and fits(item, more)
            for key, item in value.items()
        )
    return bool(shape(value))


async def furnished(api: Api) -> None:
    """One of everything the routes speak of."""
    await api.queue(picture_graph(), prompt_id=DONE, client_id="c")
    await api.ended(DONE)
    header = json.dumps({"__metadata__": {"k": "v"}}).encode()
    (api.root / "models/checkpoints/m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (api.root / "models/checkpoints/m.png").write_bytes(png(Image.new("RGB", (4, 4))))
    (api.root / "workflows/flat.json").write_text(json.dumps(picture_graph()))
    for name in ("a", "gone"):
        await api.post(f"/userdata/workflows%2F{name}.json", {"a": 1})
    await api.post("/settings/Comfy.One", 1)
    (api.root / "input/in.png").write_bytes(png(Image.new("RGB", (4, 4))))


def prefixes(path: str) -> tuple[str, ...]:
    """Where the route must answer."""
    return ("",) if path.startswith(("/internal", "/templates", "/docs", "/user.css")) else ("", "/api")


def sent(body: Any) -> Any:
    if body != "form":
        return b"" if body is None else json.dumps(body).encode()
    form = aiohttp.FormData()
    form.add_field("image", png(Image.new("RGBA", (4, 4))), filename="up.png")
    form.add_field("original_ref", json.dumps({"filename": "in.png", "subfolder": "", "type": "input"}))
    return form


async def asked(api: Api, method: str, path: str, body: Any = None) -> ClientResponse:
    headers = {} if body == "form" else {"Content-Type": "application/x-www-form-urlencoded"}
    return await api.client.request(method, path, data=sent(body), headers=headers)


def test_every_route_of_the_protocol_is_described_here() -> None:
    rows = {(method, re.sub(r":[^}]*\}", "}", path)) for method, path, _ in (*RUNNING, *DESCRIBING, *KEEPING)}
    plain = {(route.method, re.sub(r":[^}]*\}", "}", route.path)) for route in (*internal_routes(), *template_routes())}
    own = {(route.method, route.path) for route in OWN}
    assert rows | plain | own == JSON.keys() | EMPTY.keys() | FILES.keys() | OTHERS


async def test_answers_with_json_have_their_shape_with_and_without_the_prefix(serving: Serving) -> None:
    async with serving() as api:
        await furnished(api)
        for (method, route), (path, body, shape) in JSON.items():
            for prefix in prefixes(route):
                response = await asked(api, method, prefix + path, body)
                assert response.status == 200, (method, prefix + path, await response.text())
                assert response.headers["Content-Type"] == "application/json; charset=utf-8", path
                value = await response.json()
                assert fits(value, shape), (method, prefix + path, value)
                if method == "GET":
                    head = await api.client.head(prefix + path)
                    assert (head.status, await head.read()) == (200, b""), path


async def test_answers_without_data_have_no_body_and_no_type(serving: Serving) -> None:
    async with serving() as api:
        for (method, route), (path, body, status) in EMPTY.items():
            for prefix in prefixes(route):
                await furnished_again(api)
                response = await asked(api, method, prefix + path, body)
                assert (response.status, await response.read()) == (status, b""), (method, prefix + path)
                assert "Content-Type" not in response.headers, path


async def furnished_again(api: Api) -> None:
    await api.post("/userdata/workflows%2Fgone.json", {"a": 1})


async def test_files_come_with_their_type(serving: Serving) -> None:
    async with serving() as api:
        await furnished(api)
        for (method, route), (path, kind) in FILES.items():
            for prefix in prefixes(route):
                response = await asked(api, method, prefix + path)
                assert (response.status, response.content_type) == (200, kind), prefix + path
                assert await response.read(), path


async def test_what_is_not_there_is_answered_as_clients_expect(serving: Serving) -> None:
    async with serving() as api:
        for path, (status, shape) in MISSING.items():
            for prefix in ("", "/api"):
                response = await asked(api, "GET", prefix + path)
                assert response.status == status, prefix + path
                if shape == "":
                    assert await response.read() in (b"", b"404: Not Found"), path
                elif shape is None:
                    assert await response.json() is None
                else:
                    assert fits(await response.json(), shape), path


@pytest.mark.parametrize(
    "path",
    ["/api/internal/logs", "/api/templates/index.json", "/docs/Nothing/en.md", "/api/docs/SaveImage/en.md", "/nothing"],
)
async def test_what_is_not_mirrored_or_not_offered_is_a_404(serving: Serving, path: str) -> None:
    async with serving() as api:
        assert (await api.get(path)).status == 404


async def test_unknown_query_parameters_and_keys_are_ignored(serving: Serving) -> None:
    async with serving() as api:
        assert await api.json("/queue?clientId=c&x=1") == {"queue_running": [], "queue_pending": []}
        prompt_id = await api.queue(picture_graph(), comfy_usage_source="x", preview_method="auto", more={"a": 1})
        assert (await api.ended(prompt_id))["status"]["completed"] is True


async def test_a_running_and_a_waiting_job_are_listed_without_what_they_do_not_have_yet(serving: Serving) -> None:
    async with serving() as api:
        running = await api.queue(slow_graph())
        waiting = await api.queue(slow_graph(1))
        await api.running(running)
        page = await api.json("/api/jobs?status=in_progress,pending&limit=200&offset=0")
        found = {job["id"]: job for job in page["jobs"]}
        assert {name: job["status"] for name, job in found.items()} == {running: "in_progress", waiting: "pending"}
        assert isinstance(found[waiting]["create_time"], int)
        assert found[waiting]["execution_start_time"] is None
        assert found[running]["execution_end_time"] is found[running]["preview_output"] is None
