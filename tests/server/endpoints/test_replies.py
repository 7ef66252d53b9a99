"""The blocking call: how pictures come back for every Accept, format, size, batch, seed and sampler."""

import asyncio
import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sigmagraph.engine.sampling import SCHEDULES, SOLVERS
from sigmagraph.engine.server.endpoints.endpoint import Endpoint
from tests.server.endpoints.conftest import BODY, LARGE, SMALL, TURBO, Served, changed, local, serving

ACCOUNTING = (
    "x-request-id",
    "x-generation-time",
    "x-seed-value",
    "x-cost",
    "x-remaining-credits",
    "x-rate-limit-remaining",
    "x-rate-limit-reset-at-utc",
    "x-output-metadata",
)
RATIOS = {
    "1:1 square 1024x1024": (1024, 1024),
    "3:4 portrait 896x1152": (896, 1152),
    "5:8 portrait 832x1216": (832, 1216),
    "9:16 portrait 768x1344": (768, 1344),
    "9:21 portrait 640x1536": (640, 1536),
    "4:3 landscape 1152x896": (1152, 896),
    "3:2 landscape 1216x832": (1216, 832),
    "16:9 landscape 1344x768": (1344, 768),
    "21:9 landscape 1536x640": (1536, 640),
}

PAGE_SAMPLERS = (
    *("euler", "euler_cfg_pp", "euler_ancestra", "leuler_ancestral_cfg_pp", "heun", "heunpp2", "dpm_2"),
    *("dpm_2_ancestral", "lms", "dpm_fast", "dpm_adaptive", "dpmpp_2s_ancestral", "dpmpp_2s_ancestral_cfg_pp"),
    *("dpmpp_sde", "dpmpp_sde_gpu", "dpmpp_2m", "dpmpp_2m_cfg_pp", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "dpmpp_3m_sde"),
    *("dpmpp_3m_sde_gpu", "ddpm", "lcm", "ipndm", "ipndm_v", "deis"),
)
OTHER_MODELS = ("vp", "align_your_steps")  # schedules that no flow model can run
PAGE_SCHEDULES = ("normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform", "beta")


def picture(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


async def posted(served: Served, path: str, accept: str = "*/*", **fields: Any) -> tuple[Any, bytes]:
    response = await served.client.post(path, json={**SMALL, **fields}, headers={"Accept": accept})
    body = await response.read()
    assert response.status == 200, body
    return response, body


async def test_large_answers_json_with_a_url_that_leads_to_the_picture(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        response, body = await posted(served, LARGE)
        reply = json.loads(body)
        assert all(name in response.headers for name in ACCOUNTING)
        assert reply["images"] == [reply["image"]] == [reply["image_url"]]
        assert reply["seed"] == 98552302
        assert reply["request_id"] == response.headers["x-request-id"]
        fetched = await served.client.get(local(reply["image"]))
        assert picture(await fetched.read()).size == (64, 64)
        assert fetched.headers["Content-Type"] == "image/jpeg"


async def test_turbo_answers_bytes_when_base64_is_false_and_text_by_default(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        response, body = await posted(served, TURBO, base64=False)
        assert response.content_type == "image/jpeg"
        assert all(name in response.headers for name in ACCOUNTING)
        _, text = await posted(served, TURBO)
        assert base64.b64decode(json.loads(text)["image"]) == body


@pytest.mark.parametrize(
    ("path", "accept", "fields", "kind"),
    [
        (LARGE, "image/jpeg", {}, "image/jpeg"),
        (LARGE, "image/*", {"image_format": "webp"}, "image/webp"),
        (LARGE, "image/png", {"base64": True}, "application/json"),
        (LARGE, "image/*", {"batch_size": 2}, "application/json"),
        (LARGE, "text/html", {}, "application/json"),
        (TURBO, "image/*", {}, "image/jpeg"),
        (TURBO, "application/json", {"base64": False}, "application/json"),
        (TURBO, "application/json, text/plain, */*", {"base64": False}, "image/jpeg"),
        (TURBO, "image/*;q=0.5, application/json", {"base64": False}, "application/json"),
    ],
)
async def test_accept_decides_what_comes(
    path: str, accept: str, fields: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    async with serving(tmp_path) as served:
        response, body = await posted(served, path, accept, **fields)
        assert response.content_type == kind
        if fields.get("batch_size"):
            assert json.loads(body)["note"].startswith("2 images")


async def test_every_aspect_ratio_sets_the_size(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        for ratio, size in RATIOS.items():
            response, body = await posted(served, LARGE, "image/*", aspect_ratio=ratio)
            assert picture(body).size == size
            facts = json.loads(response.headers["x-output-metadata"])
            assert (facts["width"], facts["height"]) == size


@pytest.mark.parametrize(("asked", "real"), [(64, 64), (71, 64), (72, 80), (1000, 1008), (2048, 2048)])
async def test_sizes_are_rounded_to_sixteen_and_reported(asked: int, real: int, tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        response, body = await posted(served, LARGE, "image/*", width=asked)
        assert picture(body).size == (real, 64)
        assert json.loads(response.headers["x-output-metadata"])["width"] == real


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
async def test_every_format_and_quality_is_what_an_encoder_makes_of_the_pixels(kind: str, tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        _, lossless = await posted(served, LARGE, "image/*", image_format="png")
        for quality in (10, 11, 50, 95, 99, 100):
            response, body = await posted(served, LARGE, "image/*", image_format=kind, image_quality=quality)
            assert response.content_type == f"image/{kind}"
            wanted = io.BytesIO()
            picture(lossless).save(wanted, kind.upper(), quality=quality)
            assert kind == "png" or body == wanted.getvalue()
            assert kind != "png" or body == lossless
            assert not {"prompt", "workflow"} & set(picture(body).info)


ACCEPTS = (
    None,
    "*/*",
    "image/jpeg",
    "image/png",
    "image/webp",
    "image/*",
    "image/*;q=0.5, application/json",
    "application/json",
    "application/json, text/plain, */*",
    "application/json;q=0.5, image/webp",
    "text/html",
)
NAMES_IMAGE = ("image/jpeg", "image/png", "image/webp", "image/*", "application/json;q=0.5, image/webp")
PREFERS_JSON = ("image/*;q=0.5, application/json", "application/json")


def expected_form(path: str, accept: str | None, base64_asked: bool | None, count: int) -> str:
    """What docs/api.md says about how pictures come back, written anew as a table."""
    in_text = base64_asked if base64_asked is not None else path == TURBO
    if base64_asked:
        return "base64"
    if accept in NAMES_IMAGE:
        is_image = True
    elif accept in PREFERS_JSON:
        is_image = False
    else:
        is_image = path == TURBO and base64_asked is False
    return "image" if is_image and count == 1 else "base64" if in_text else "url"


@pytest.mark.parametrize("count", range(1, 11))
@pytest.mark.parametrize("path", [LARGE, TURBO])
async def test_a_batch_of_every_size_comes_as_documented_for_every_accept(
    path: str, count: int, tmp_path: Path
) -> None:
    async with serving(tmp_path) as served:

        async def pictures(accept: str | None, asked: bool | None) -> list[bytes]:
            fields = {**SMALL, "batch_size": count, **({} if asked is None else {"base64": asked})}
            headers, skip = ({"Accept": accept}, ()) if accept is not None else ({}, ("Accept",))
            response = await served.client.post(path, json=fields, headers=headers, skip_auto_headers=skip)
            assert response.status == 200
            form = expected_form(path, accept, asked, count)
            if form == "image":
                assert response.content_type == "image/jpeg"
                return [await response.read()]
            reply = await response.json()
            assert reply["image"] == reply["images"][0]
            assert ("image_url" in reply) is (form == "url")
            assert ("note" in reply) is (accept in NAMES_IMAGE and count > 1)
            if form == "base64":
                return [base64.b64decode(image) for image in reply["images"]]
            return [await (await served.client.get(local(image))).read() for image in reply["images"]]

        first = await pictures(None, None)
        assert len(set(first)) == len(first) == count
        for accept in ACCEPTS:
            for asked in (None, False, True):
                assert await pictures(accept, asked) == first


@pytest.mark.parametrize("count", [1, 10])
async def test_the_picture_of_a_batch_is_the_same_on_every_route(count: int, tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        _, body = await posted(served, LARGE, batch_size=count, base64=True)
        images = json.loads(body)["images"]
        for route, result in (("/v2/", "/v2/requests/"), ("/workflows/", "/workflows/request/")):
            for asked in (False, True):
                path = LARGE.replace("/v1/", route)
                accepted = await served.client.post(path, json={**SMALL, "batch_size": count, "base64": asked})
                request_id = (await accepted.json())["request_id"]
                await served.jobs.wait(request_id)
                output = (await (await served.client.get(result + request_id)).json())["output"]
                found = [output] if count == 1 else output
                if not asked:
                    urls = [local(image) for image in found]
                    data = [await (await served.client.get(url)).read() for url in urls]
                    found = [base64.b64encode(image).decode() for image in data]
                assert found == images


async def test_a_random_seed_is_reported_and_gives_the_same_bytes_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        first, body = await posted(served, TURBO, "image/*", seed=-1)
        other, _ = await posted(served, TURBO, "image/*", seed=-1)
        seed = int(first.headers["x-seed-value"])
        assert seed != int(other.headers["x-seed-value"])
        _, again = await posted(served, TURBO, "image/*", seed=seed)
        assert again == body


async def test_a_workflow_without_a_seed_reports_none(tmp_path: Path) -> None:
    def seedless(endpoint: Endpoint) -> Endpoint:
        parameters = {name: parameter for name, parameter in endpoint.manifest.parameters.items() if name != "seed"}
        sockets = {name: socket for name, socket in endpoint.sockets.items() if name != "seed"}
        return replace(changed(parameters=parameters)(endpoint), sockets=sockets)

    async with serving(tmp_path, seedless) as served:
        response, body = await posted(served, LARGE)
        assert response.headers["x-seed-value"] == ""
        assert json.loads(body)["seed"] is None


async def test_a_random_seed_is_reported_by_the_result_of_a_request_too(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        accepted = await served.client.post(LARGE.replace("/v1/", "/v2/"), json={**SMALL, "seed": -1})
        request_id = (await accepted.json())["request_id"]
        await served.jobs.wait(request_id)
        result = await (await served.client.get(f"/v2/requests/{request_id}")).json()
        _, again = await posted(served, LARGE, "image/*", seed=result["seed"])
        assert await (await served.client.get(local(result["output"]))).read() == again
        assert result["metadata"]["seed"] == result["seed"] >= 0


async def test_every_sampler_and_schedule_and_the_misspelt_names(tmp_path: Path) -> None:
    aliases = {"euler_ancestra": "euler_ancestral", "leuler_ancestral_cfg_pp": "euler_ancestral_cfg_pp"}

    async with serving(tmp_path) as served:

        async def used(name: str, value: str) -> str:
            response, _ = await posted(served, TURBO, "image/*", **{name: value})
            return str(json.loads(response.headers["x-output-metadata"])[name])

        assert set(PAGE_SAMPLERS) <= {*SOLVERS, *aliases}
        assert set(PAGE_SCHEDULES) <= set(SCHEDULES)
        samplers = [*SOLVERS, *aliases]
        found = await asyncio.gather(*(used("sampler", sampler) for sampler in samplers))
        assert found == [aliases.get(name, name) for name in samplers]
        schedules = [name for name in SCHEDULES if name not in OTHER_MODELS]
        assert await asyncio.gather(*(used("scheduler", schedule) for schedule in schedules)) == schedules


async def test_the_defaults_of_both_are_those_of_their_pages(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        for path, steps, guidance in ((LARGE, 30, 5.5), (TURBO, 4, 1.0)):
            response = await served.client.post(path, json=BODY)
            facts = json.loads(response.headers["x-output-metadata"])
            assert facts["steps"] == steps
            assert facts["guidance_scale"] == guidance
            assert (facts["width"], facts["height"], facts["seed"]) == (1024, 1024, 98552302)
            assert facts["base64"] is (path == TURBO)
