"""What the OpenAPI document says of `/api/v2`, held to what the server answers: every operation, states, refusals."""

import asyncio
import re
from typing import Any, cast

import blake3
from jsonschema import Draft202012Validator, FormatChecker
from PIL import Image

from sigmagraph.engine.jobs.job import Job, State
from sigmagraph.engine.server.comfy_api.described import OPERATIONS, SCHEMAS
from sigmagraph.engine.server.comfy_api.job_json import job_record
from sigmagraph.engine.server.comfy_api.routes import ROWS
from tests.server.conftest import Api, Serving
from tests.server.stubs import picture_graph, png, slow_graph
from tests.server.test_comfy_api import ASSETS, JOBS, upload


def plain(schema: Any) -> Any:
    """OpenAPI 3.0 as JSON Schema, which knows no `nullable`; references followed."""
    if isinstance(schema, list):
        return [plain(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return plain(SCHEMAS[schema["$ref"].rpartition("/")[2]])
    made = {name: plain(part) for name, part in schema.items() if name != "nullable"}
    return {"anyOf": [{"type": "null"}, made]} if schema.get("nullable") is True else made


def described(method: str, path: str) -> str:
    """The operation that a call is."""
    for name in OPERATIONS:
        verb, _, pattern = name.partition(" ")
        if verb == method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", pattern), path):
            return name
    raise AssertionError(f"{method} {path} is not described")


class Caller:
    """Calls, and holds each answer to its description; what was answered, by operation."""

    def __init__(self, api: Api) -> None:
        self.api, self.seen = api, set[tuple[str, str]]()

    async def __call__(self, method: str, path: str, **options: Any) -> Any:
        async with self.api.client.request(method, path, **options) as answer:
            operation = described(method, answer.url.path)
            responses = OPERATIONS[operation]["responses"]
            which = str(answer.status) if str(answer.status) in responses else "default"
            assert which != "default" or answer.status >= 400, (operation, answer.status)
            self.seen.add((operation, which))
            content = responses[which].get("content", {})
            data = await answer.read()
            if "application/json" not in content:
                assert bool(data) == bool(content) or method == "HEAD" or which == "416"
                return data
            assert answer.content_type == "application/json"
            found = await answer.json()
            schema = plain(content["application/json"]["schema"])
            Draft202012Validator(schema, format_checker=FormatChecker()).validate(found)
            return found


def test_every_route_is_described_and_nothing_else() -> None:
    assert sorted(OPERATIONS) == sorted(f"{verb} /api/v2{path}" for verb, path, _ in ROWS)


async def test_every_answer_is_as_it_is_described(serving: Serving) -> None:
    async with serving(slots=2) as api:
        call = Caller(api)
        await call("GET", "/api/v2/health")
        labelled = {
            "workflow": picture_graph(),
            "metadata": {"a": "b"},
            "priority": 3,
            "inputs": {"EmptyImage.color": 7},
        }
        done = await call("POST", JOBS, json=labelled, headers={"Idempotency-Key": "k"})
        await call("POST", JOBS, json=labelled, headers={"Idempotency-Key": "k"})
        await api.jobs.wait(done["id"], timeout_s=20)
        shown = await call("GET", f"{JOBS}/{done['id']}")
        graph = picture_graph() | {"9": {"class_type": "Fail", "inputs": {"images": ["5", 0], "how": "now"}}}
        failed = await call("POST", JOBS, json={"workflow": graph, "metadata": "label"})
        await api.jobs.wait(failed["id"], timeout_s=20)
        words = {
            "7": {"class_type": "Text", "inputs": {"value": "\ud800", "flag": True, "factor": 0.5}},
            "8": {"class_type": "ShowText", "inputs": {"text": ["7", 0]}},
        }
        told = await call("POST", JOBS, json={"workflow": words})
        await api.jobs.wait(told["id"], timeout_s=20)
        going = await call("POST", JOBS, json={"workflow": slow_graph()})
        await api.running(going["id"])
        while (await call("GET", f"{JOBS}/{going['id']}"))["progress"].get("step", 0) == 0:
            await asyncio.sleep(0.01)
        await api.jobs.pause()
        waiting = await call("POST", JOBS, json={"workflow": slow_graph(1)})
        for query in ("", "?limit=1", "?status=running,failed", "?metadata[a]=b", "?limit=x", "?cursor=x"):
            await call("GET", JOBS + query)
        for job in (waiting, going):
            await call("POST", f"{JOBS}/{job['id']}/cancel")
            await api.jobs.wait(job["id"], timeout_s=20)
            await call("GET", f"{JOBS}/{job['id']}")
        for job in (done, failed, told, going, waiting):
            for part in ("", "/workflow", "/events"):
                await call("GET", f"{JOBS}/{job['id']}{part}")
        bad: tuple[Any, ...] = (
            {"workflow": {}},
            {"workflow": graph | {"9": {"class_type": "Fail", "inputs": {}}}},
            {"x": 1},
            [],
        )
        for text in bad:
            await call("POST", JOBS, json=text)
        for part in ("", "/workflow", "/events", "/cancel"):
            await call("POST" if part == "/cancel" else "GET", f"{JOBS}/none{part}")
        await assets(call, shown["outputs"][0], (await call("GET", f"{JOBS}/{told['id']}"))["outputs"][0])
        possible = {(name, which) for name, each in OPERATIONS.items() for which in each["responses"]}
        assert possible - call.seen == {("GET /api/v2/health", "default")}


async def assets(call: Caller, picture: Any, words: Any) -> None:
    """Uploads of every kind, outputs, and what is refused."""
    data, here = png(Image.new("RGB", (3, 3))), call.api.root / "input/here.png"
    digest = "blake3:" + blake3.blake3(data).hexdigest()
    here.write_bytes(png(Image.new("RGB", (2, 2))))
    made = await call("POST", ASSETS, data=upload(data))
    for body in (upload(data), upload(data, expected_hash="x"), upload(data, "../x")):
        await call("POST", ASSETS, data=body)
    for path in (here, here, "x"):
        await call("POST", f"{ASSETS}/from-path", json={"path": str(path)})
    for named in (digest, "blake3:" + "0" * 64):
        await call("POST", f"{ASSETS}/from-hash", json={"hash": named})
        await call("HEAD", f"{ASSETS}/by-hash/{named}")
    for asset_id in (made["id"], picture["id"], words["id"], "none"):
        await call("GET", f"{ASSETS}/{asset_id}")
        await call("GET", f"{ASSETS}/{asset_id}/content")
    etag = {"If-None-Match": (await call.api.get(f"{ASSETS}/{made['id']}/content")).headers["ETag"]}
    for headers in ({"Range": "bytes=1-3"}, {"Range": "bytes=900-"}, etag):
        await call("GET", f"{ASSETS}/{made['id']}/content", headers=headers)
    for asset_id in (made["id"], picture["id"]):
        await call("DELETE", f"{ASSETS}/{asset_id}")


def test_a_clock_that_was_set_back_makes_no_time_negative() -> None:
    job = Job("x", "local", State.SUCCEEDED, 1.0, 0, 1, created_at=1000.0, started_at=400.0, ended_at=300.0)
    record = job_record(job, "", cast(Any, None))
    assert record["metrics"] == {"queue_ms": 0, "execution_ms": 0}
    Draft202012Validator(plain(SCHEMAS["ComfyJob"]), format_checker=FormatChecker()).validate(record)
