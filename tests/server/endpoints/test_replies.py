"""The blocking call: how pictures come back for every Accept, format, size, batch, seed and sampler."""

import asyncio
import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engine.sampling import SCHEDULES, SOLVERS
from tests.server.endpoints.conftest import BODY, LARGE, SMALL, TURBO, Served, local, serving

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


async def test_formats_and_qualities(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        for kind in ("jpeg", "png", "webp"):
            sizes = []
            for quality in (10, 95, 100):
                response, body = await posted(served, LARGE, "image/*", image_format=kind, image_quality=quality)
                assert response.content_type == f"image/{kind}"
                assert picture(body).format == kind.upper()
                assert not picture(body).info.get("prompt")
                sizes.append(len(body))
            assert kind != "jpeg" or sizes[0] != sizes[2]


@pytest.mark.parametrize("count", [1, 2, 10])
async def test_a_batch_comes_as_a_list_of_different_pictures(count: int, tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        _, body = await posted(served, LARGE, batch_size=count, base64=True)
        images = json.loads(body)["images"]
        assert len(set(images)) == len(images) == count
        _, body = await posted(served, LARGE, batch_size=count)
        urls = json.loads(body)["images"]
        fetched = [await (await served.client.get(local(url))).read() for url in urls]
        assert [base64.b64encode(each).decode() for each in fetched] == images


async def test_a_random_seed_is_reported_and_gives_the_same_bytes_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        first, body = await posted(served, TURBO, "image/*", seed=-1)
        other, _ = await posted(served, TURBO, "image/*", seed=-1)
        seed = int(first.headers["x-seed-value"])
        assert seed != int(other.headers["x-seed-value"])
        _, again = await posted(served, TURBO, "image/*", seed=seed)
        assert again == body


async def test_every_sampler_and_schedule_and_the_misspelt_names(tmp_path: Path) -> None:
    aliases = {"euler_ancestra": "euler_ancestral", "leuler_ancestral_cfg_pp": "euler_ancestral_cfg_pp"}

    async with serving(tmp_path) as served:

        async def used(name: str, value: str) -> str:
            response, _ = await posted(served, TURBO, "image/*", **{name: value})
            return str(json.loads(response.headers["x-output-metadata"])[name])

        samplers = [*SOLVERS, *aliases]
        found = await asyncio.gather(*(used("sampler", each) for each in samplers))
        assert found == [aliases.get(each, each) for each in samplers]
        schedules = list(SCHEDULES)
        assert await asyncio.gather(*(used("scheduler", each) for each in schedules)) == schedules


async def test_the_defaults_of_both_are_those_of_their_pages(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        for path, steps, guidance in ((LARGE, 30, 5.5), (TURBO, 4, 1.0)):
            response = await served.client.post(path, json=BODY)
            facts = json.loads(response.headers["x-output-metadata"])
            assert facts["steps"] == steps
            assert facts["guidance_scale"] == guidance
            assert (facts["width"], facts["height"], facts["seed"]) == (1024, 1024, 98552302)
            assert facts["base64"] is (path == TURBO)
