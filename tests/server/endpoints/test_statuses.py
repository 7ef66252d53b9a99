"""Each status of the protocol's table: its body and its headers."""

import asyncio
import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sigmagraph.engine.jobs.job import JobQuery, State
from sigmagraph.engine.server.context import JOBS
from tests.server.endpoints.conftest import ENDPOINTS, LARGE, SMALL, TURBO, Served, changed, serving

V2 = LARGE.replace("/v1/", "/v2/")


async def refused(served: Served, path: str, status: int, **options: Any) -> tuple[Any, Any]:
    """The body and headers of a POST that is refused: JSON with one line, a code, and nothing about credits spent."""
    options.setdefault("json", dict(SMALL))
    response = await served.client.post(path, **options)
    body = await response.json()
    assert response.status == status, body
    assert response.content_type == "application/json"
    assert "\n" not in body["error"]
    assert re.fullmatch("[a-z_]+", body["code"])
    assert not {"x-cost", "x-generation-time"} & {name.lower() for name in response.headers}
    assert ("x-remaining-credits" in response.headers) == (status != 401)
    return body, response.headers


async def test_every_reply_to_a_key_says_what_is_left(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        key = await served.key(credits=1.0)
        price = 0.0025 * 64 * 64 / 1e6 * 10
        await served.jobs.pause()
        accepted = await served.client.post(V2, json={**SMALL, "steps": 10}, headers=key)
        request_id = (await accepted.json())["request_id"]
        left = [float(accepted.headers["x-remaining-credits"])]  # what it may cost is held from now on
        for method, path in (
            ("GET", f"/v2/requests/{request_id}"),
            ("GET", f"/v2/requests/{request_id}/status"),
            ("GET", f"/workflows/request/{request_id}"),
            ("GET", "/v1/get-user-credits"),
            ("GET", "/v2/requests/nothing"),
            ("GET", "/v2/nothing/at/all"),
            ("POST", "/v2/nothing"),
            ("PUT", V2),
        ):
            response = await served.client.request(method, path, headers=key, json={} if method == "POST" else None)
            if response.status != 405:  # asked with a wrong verb, nobody looks at the key
                left.append(float(response.headers["x-remaining-credits"]))
        assert left == pytest.approx([1.0 - price] * len(left), abs=1e-6)
        assert len(left) == 8
        unknown = await served.client.get(f"/v2/requests/{request_id}", headers={"x-api-key": "SG_nobody"})
        assert (unknown.status, "x-remaining-credits" in unknown.headers) == (401, False)


async def test_200_names_what_it_cost_and_what_is_left(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        key = await served.key(credits=1.0)
        response = await served.client.post(LARGE, json={**SMALL, "steps": 10}, headers=key)
        price = 0.0025 * 64 * 64 / 1e6 * 10
        assert response.status == 200
        assert float(response.headers["x-cost"]) == pytest.approx(price, abs=1e-6)
        assert float(response.headers["x-remaining-credits"]) == pytest.approx(1.0 - price, abs=1e-6)
        assert response.headers["x-rate-limit-remaining"] == "599"
        reset = datetime.strptime(response.headers["x-rate-limit-reset-at-utc"], "%Y-%m-%dT%H:%M:%SZ")
        assert abs(reset.replace(tzinfo=UTC) - datetime.now(UTC)) < timedelta(seconds=5)
        assert response.headers["x-seed-value"] == "98552302"
        assert response.headers["x-request-id"] == (await response.json())["request_id"]
        job = await served.jobs.get(response.headers["x-request-id"])
        assert float(response.headers["x-generation-time"]) == pytest.approx(job.run_s, abs=1e-3)
        facts = json.loads(response.headers["x-output-metadata"])
        assert (facts["sampler"], facts["scheduler"], facts["seed"]) == ("euler", "sgm_uniform", 98552302)
        assert (facts["width"], facts["height"], facts["steps"]) == (64, 64, 10)


async def test_400_lists_every_field_with_value_allowed_and_nearest(tmp_path: Path) -> None:
    fields = {
        "prompt": " ",
        "sampler": "eulr",
        "steps": 9,
        "width": "64",
        "seed": 1.5,
        "base64": "yes",
        "image_format": "gif",
    }
    async with serving(tmp_path) as served:
        body, _ = await refused(served, LARGE, 400, json={**fields})
        faults = {fault["pointer"]: fault for fault in body["errors"]}
        codes = {pointer: fault["code"] for pointer, fault in faults.items()}
        assert codes == {
            "/prompt": "bad_length",
            "/sampler": "not_allowed",
            "/scheduler": "missing_field",
            "/steps": "out_of_range",
            "/width": "wrong_type",
            "/seed": "wrong_type",
            "/base64": "wrong_type",
            "/image_format": "not_allowed",
        }
        assert faults["/sampler"]["nearest"] == "euler"
        assert faults["/steps"]["allowed"] == {"minimum": 10, "maximum": 70}
        assert faults["/image_format"]["allowed"] == ["jpeg", "png", "webp"]
        assert body["code"] == "invalid_parameters"
        assert "did you mean 'euler'?" in body["error"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b'{"prompt": NaN}', b"\xff", b"[" * 100_000, b'{"prompt":"\\ud800"}']
)
async def test_400_for_what_is_no_json_object(body: bytes, tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        await refused(served, LARGE, 400, json=None, data=body, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        (LARGE, "steps", 10**400),
        (LARGE, "steps", -1),
        (LARGE, "seed", -2),
        (LARGE, "seed", 2**64),
        (LARGE, "guidance_scale", 0.5),
        (LARGE, "guidance_scale", True),
        (LARGE, "batch_size", 11),
        (LARGE, "height", 2049),
        (LARGE, "image_quality", 9),
        (LARGE, "prompt", None),
        (LARGE, "scheduler", "vp"),
        (TURBO, "scheduler", "align_your_steps"),
        (LARGE, "aspect_ratio", "16:9"),
        (TURBO, "steps", 71),
    ],
)
async def test_400_names_the_one_field(path: str, field: str, value: Any, tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        body, _ = await refused(served, path, 400, json={**SMALL, field: value})
        assert [fault["pointer"] for fault in body["errors"]] == [f"/{field}"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("seed", 2**64, f"seed: {2**64} is out of range; expected 0 to {2**64 - 1}, or -1 for a random one"),
        ("seed", -2, f"seed: -2 is out of range; expected 0 to {2**64 - 1}, or -1 for a random one"),
        ("steps", 1_000_001, "steps: 1000001 is out of range; expected 10 to 70"),
        ("steps", 10**4000, "steps: 'a number of 4001 digits' is not a whole number"),
        ("steps", 10**200, "steps: a number of 201 digits is out of range; expected 10 to 70"),
        ("guidance_scale", 15.000001, "guidance_scale: 15.000001 is out of range; expected 1 to 15"),
    ],
)
async def test_400_says_numbers_as_they_came_and_no_longer_than_a_line(
    field: str, value: float, message: str, tmp_path: Path
) -> None:
    async with serving(tmp_path) as served:
        body, _ = await refused(served, LARGE, 400, json={**SMALL, field: value})
        assert body["error"] == message
        assert len(json.dumps(body)) < 1000


async def test_fields_nobody_knows_are_told_or_refused_as_the_manifest_says(tmp_path: Path) -> None:
    async with serving(tmp_path / "a") as served:
        response = await served.client.post(LARGE, json={**SMALL, "stepz": 3})
        assert (await response.json())["ignored_fields"] == ["stepz"]
    async with serving(tmp_path / "b", changed(unknown_fields="refuse")) as served:
        body, _ = await refused(served, LARGE, 400, json={**SMALL, "stepz": 3})
        assert body["errors"][0]["nearest"] == "steps"


async def test_401_without_a_key_with_a_bearer_token_and_with_a_wrong_key(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        key = await served.key()
        body, headers = await refused(served, LARGE, 401)
        assert body["error"] == "Missing Authorization or x-api-key in header"
        assert headers["WWW-Authenticate"] == 'ApiKey header="x-api-key"'
        body, _ = await refused(served, LARGE, 401, headers={"Authorization": f"Bearer {key['x-api-key']}"})
        assert body["error"].startswith("Missing Authorization or x-api-key in header")
        body, headers = await refused(served, LARGE, 401, headers={"x-api-key": "SG_0000"})
        assert body["code"] == "unknown_key"
        assert headers["WWW-Authenticate"] == 'ApiKey header="x-api-key"'


async def test_401_for_a_revoked_key(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        key = await served.key()
        assert (await served.client.post(TURBO, json=SMALL, headers=key)).status == 200
        (account,) = await served.jobs.accounts.list()
        await served.jobs.accounts.revoke(account.id)
        body, _ = await refused(served, LARGE, 401, headers=key)
        assert body["code"] == "unknown_key"


async def test_403_for_an_endpoint_or_a_scope_the_key_lacks(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        key = await served.key(endpoints=["stable-diffusion-3.5-turbo-txt2img"])
        body, _ = await refused(served, LARGE, 403, headers=key)
        assert body["error"] == "This key may not call stable-diffusion-3.5-large-txt2img"
        assert (await served.client.post(TURBO, json=SMALL, headers=key)).status == 200
        reader = await served.key(scopes=["read"])
        body, _ = await refused(served, LARGE, 403, headers=reader)
        assert body["scope"] == "submit"


async def test_403_where_a_key_for_one_endpoint_would_run_a_graph_of_its_own_for_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        graph = json.loads((ENDPOINTS / "stable-diffusion-3.5-large-txt2img.json").read_text())
        limited = await served.key(credits=0.0, endpoints=["stable-diffusion-3.5-turbo-txt2img"])
        for root in ("", "/api"):
            saved = await served.client.post("/api/workflows/mine", json={"workflow": graph}, headers=limited)
            assert saved.status == 201
            for path, body in (
                ("/prompt", {"prompt": graph}),
                ("/workflows/mine/run", {}),
                ("/lab/plan", {"workflow": graph}),
            ):
                response = await served.client.post(root + path, json=body, headers=limited)
                assert response.status == 403, path
                assert "published workflows only" in await response.text()
        assert (await served.client.get("/queue", headers=limited)).status == 200
        assert (await served.jobs.find(JobQuery(owner=None))).total == 0
        free = await served.client.post("/prompt", json={"prompt": graph}, headers=await served.key())
        assert free.status == 200


async def test_403_where_the_manifest_names_other_callers(tmp_path: Path) -> None:
    async with serving(tmp_path, changed(callers=["somebody"])) as served:
        body, _ = await refused(served, LARGE, 403, headers=await served.key())
        assert body["code"] == "forbidden"


async def test_404_for_an_unknown_endpoint_request_and_path(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        body, _ = await refused(served, "/v1/stable-diffusion-3.5-larg-txt2img", 404)
        assert body["nearest"] == "stable-diffusion-3.5-large-txt2img"
        for path in ("/v2/requests/nothing", "/v2/requests/nothing/status", "/workflows/request/nothing", "/v1/a/b/c"):
            response = await served.client.get(path)
            assert response.status == 404
            assert (await response.json())["error"]


async def test_404_for_a_request_that_was_kept_long_enough(tmp_path: Path) -> None:
    times = [0.0]
    async with serving(tmp_path, clock=lambda: times[0]) as served:
        response = await served.client.post(V2, json=SMALL)
        accepted = await response.json()
        job = await served.jobs.wait(accepted["request_id"])
        assert job.ended_at is not None
        path = f"/v2/requests/{job.id}"
        times[0] = job.ended_at + 3599
        assert (await served.client.get(path)).status == 200
        times[0] = job.ended_at + 3601
        assert (await served.client.get(path)).status == 404


async def test_405_says_what_is_allowed(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        for path, allow in ((LARGE, "POST"), ("/v2/requests/x/status", "GET,HEAD")):
            response = await served.client.put(path)
            assert response.status == 405
            assert response.headers["Allow"] == allow
            assert (await response.json())["code"] == "method_not_allowed"


async def test_405_for_every_verb_the_document_does_not_have(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        document = await (await served.client.get("/openapi.json")).json()
        every = document["paths"].items()
        paths = {
            path: {verb.upper() for verb in verbs} for path, verbs in every if re.match("/v[12]/(?!userdata)", path)
        }
        flows = [path for path in paths if re.fullmatch("/workflows/[^/]+", path)]
        for path in paths.keys() - set(flows):  # whose other verbs are the stored workflows'
            for verb in {"GET", "POST", "PUT", "PATCH", "DELETE"} - paths[path]:
                response = await served.client.request(verb, re.sub(r"\{\w+\}", "x", path))
                assert response.status == 405, (verb, path)
                assert set(response.headers["Allow"].split(",")) - {"HEAD"} == paths[path]
                assert (await response.json())["code"] == "method_not_allowed"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
async def test_406_for_another_content_type(kind: str | None, tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        headers = {"Content-Type": kind} if kind else {}
        skip = () if kind else ("Content-Type",)
        body, _ = await refused(served, LARGE, 406, json=None, data=b"{}", headers=headers, skip_auto_headers=skip)
        assert body["error"].startswith("Invalid content type")


async def test_406_when_the_credits_do_not_reach_and_nothing_is_made(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        key = await served.key(credits=0.0001)
        body, _ = await refused(served, LARGE, 406, json={**SMALL, "width": 2048, "height": 2048}, headers=key)
        assert body["error"].startswith("Insufficient credits")
        assert body["available"] == 0.0001
        assert body["cost"] == pytest.approx(0.0025 * 2048 * 2048 / 1e6 * 30, abs=1e-6)
        assert (await served.jobs.find(JobQuery(owner=None))).total == 0


async def test_406_when_the_spend_limit_is_reached(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        key = await served.key(credits=100.0, spend_limit=10)
        body, _ = await refused(served, LARGE, 406, headers=key)
        assert body["code"] == "spend_limit_reached"


async def test_410_for_a_retired_endpoint(tmp_path: Path) -> None:
    async with serving(tmp_path, changed(retired=True)) as served:
        body, _ = await refused(served, LARGE, 410)
        assert body["code"] == "retired"


async def test_422_on_both_urls_of_a_failed_request_which_costs_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        key = await served.key(credits=1.0)
        response = await served.client.post(V2, json={**SMALL, "prompt": "fail"}, headers=key)
        job = await served.jobs.wait((await response.json())["request_id"])
        for path in (f"/v2/requests/{job.id}", f"/v2/requests/{job.id}/status"):
            response = await served.client.get(path, headers=key)
            body = await response.json()
            assert response.status == 422
            assert response.content_type == "application/json"
            assert "x-cost" not in response.headers
            assert body["status"] == "FAILED"
            assert "the stub was told to fail; by its prompt" in body["error"]
            assert "cost" not in body["metrics"]
        balance = await served.client.get("/v1/get-user-credits", headers=key)
        assert (await balance.json())["credits"] == 1.0


async def test_a_run_without_a_picture_has_failed_on_every_route_and_costs_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        key = await served.key(credits=1.0)
        asked = {**SMALL, "prompt": "nothing"}
        body, headers = await refused(served, LARGE, 500, json=asked, headers=key)
        assert body["code"] == "no_output"
        assert body["request_id"] == headers["x-request-id"]
        for route, status, place in (("/v2/", 422, "/v2/requests/"), ("/workflows/", 200, "/workflows/request/")):
            response = await served.client.post(LARGE.replace("/v1/", route), json=asked, headers=key)
            request_id = (await response.json())["request_id"]
            await served.jobs.wait(request_id)
            response = await served.client.get(place + request_id, headers=key)
            body = await response.json()
            assert (response.status, body["status"], body["code"]) == (status, "FAILED", "no_output")
            assert "output" not in body
        again = await served.jobs.retry(request_id)
        assert (await served.jobs.wait(again.job.id)).state is State.FAILED
        (account,) = await served.jobs.accounts.list()
        assert (account.credits, account.held, account.spent) == (1_000_000, 0, 0)
        assert [entry.job_id for entry in await served.jobs.accounts.ledger(account.id)] == [None]


async def test_429_says_when_to_come_back(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        key = await served.key(requests_per_minute=2)
        for _ in range(2):
            assert (await served.client.post(TURBO, json=SMALL, headers=key)).status == 200
        body, headers = await refused(served, TURBO, 429, headers=key)
        assert 0 < int(headers["Retry-After"]) <= 30
        assert body["retry_after"] == int(headers["Retry-After"])
        assert headers["x-rate-limit-remaining"] == "0"
        assert headers["x-rate-limit-reset-at-utc"].endswith("Z")


async def test_500_names_the_failure_and_the_request(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        body, headers = await refused(served, LARGE, 500, json={**SMALL, "prompt": "fail"})
        assert "the stub was told to fail" in body["error"]
        assert body["request_id"] == headers["x-request-id"]


async def test_500_for_a_fault_of_ours_says_nothing_of_the_inside(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        served.client.app[JOBS].submit = None  # type: ignore[method-assign, assignment, index]
        body, _ = await refused(served, LARGE, 500)
        assert body == {"error": "Internal server error", "code": "internal_error"}


async def test_502_when_no_job_is_taken(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        await served.jobs.drain(0.0)
        body, headers = await refused(served, LARGE, 502)
        assert headers["Retry-After"] == "5"
        assert body["code"] == "not_accepting"


async def test_502_names_the_missing_weights_and_the_command_that_brings_them(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        (tmp_path / "models/checkpoints/sd3.5_large.safetensors").unlink()
        body, _ = await refused(served, LARGE, 502)
        assert body["error"] == "sd3.5_large.safetensors is missing; `sigmagraph fetch sd3.5-large` brings it"


async def test_502_names_every_missing_file_on_a_machine_without_weights(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        for folder in ("checkpoints", "text_encoders"):
            shutil.rmtree(tmp_path / "models" / folder)
        for path, name in ((LARGE, "sd3.5-large"), (TURBO, "sd3.5-large-turbo")):
            key = await served.key()
            body, _ = await refused(served, path, 502, headers=key)
            assert body["missing"] == [
                f"{name.replace('-', '_')}.safetensors",
                *("clip_l.safetensors", "clip_g.safetensors", "t5xxl_fp16.safetensors"),
            ]
            assert f"; `sigmagraph fetch {name}` brings it; " in body["error"]
            assert body["error"].count("`sigmagraph fetch text-encoders` brings it") == 3
            assert body["code"] == "weights_missing"


async def test_504_lets_the_request_go_on_and_says_where(tmp_path: Path) -> None:
    async with serving(tmp_path, changed(deadline_s=0.05)) as served:
        body, headers = await refused(served, LARGE, 504, json={**SMALL, "prompt": "wait"})
        assert body["request_id"] == headers["x-request-id"]
        state = await served.client.get(f"/v2/requests/{body['request_id']}/status")
        assert (await state.json())["status"] == "PROCESSING"
        await served.client.post(f"/v2/requests/{body['request_id']}/cancel")
        await asyncio.wait_for(served.jobs.wait(body["request_id"]), 10)
