"""The editor's `/api/assets` and `/api/tags`: answers as ComfyUI 0.19.3 gave them to the same requests."""

import asyncio
import threading
from typing import Any
from uuid import UUID

import aiohttp
import blake3
import pytest
from PIL import Image

from sigmagraph.engine.server.comfy_api import store
from tests.server import stubs
from tests.server.conftest import Api, Serving
from tests.server.known_keys import FixedKeys, account

ASSETS = "/api/assets"
NOBODY = "00000000-0000-0000-0000-000000000000"


def png(width: int = 1, height: int = 1) -> bytes:
    return stubs.png(Image.new("RGB", (width, height)))


def form(data: bytes | None = None, tags: Any = ("input",), **fields: str) -> aiohttp.FormData:
    made = aiohttp.FormData(default_to_multipart=True)
    for tag in tags:
        made.add_field("tags", tag)
    for name, value in fields.items():
        made.add_field(name, value)
    if data is not None:
        made.add_field("file", data, filename="photo.png", content_type="image/png")
    return made


async def made(api: Api, data: bytes | None, status: int = 201, **fields: Any) -> Any:
    async with api.client.post(ASSETS, data=form(data, **fields)) as response:
        found = await response.json()
        assert response.status == status, found
        return found


async def asked(api: Api, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
    async with api.client.request(method, path, json=body, **more) as response:
        return response.status, await response.json() if response.content_type == "application/json" else None


async def test_the_flag_and_the_routes_come_with_the_setting(serving: Serving) -> None:
    async with serving() as api:
        assert "assets" not in await api.json("/features")
        assert (await asked(api, "GET", ASSETS))[0] == 404
    async with serving(editor_assets=True) as api:
        assert (await api.json("/features"))["assets"] is True
        assert await api.json(ASSETS) == {"assets": [], "total": 0, "has_more": False}


async def test_an_upload_has_the_editors_record_and_is_the_same_asset_in_the_other_api(serving: Serving) -> None:
    data = png(3, 2)
    async with serving(editor_assets=True) as api:
        found = await made(api, data, tags=["input", "Unit"], name="my.png", user_metadata='{"a": 1}')
        digest = blake3.blake3(data).hexdigest()
        file = f"assets/{digest}.png"
        assert UUID(found["id"])
        wanted = {"name": "my.png", "hash": f"blake3:{digest}", "asset_hash": f"blake3:{digest}", "size": len(data)}
        wanted |= {"mime_type": "image/png", "tags": ["input", "unit"], "loader_path": file, "is_immutable": False}
        wanted |= {"user_metadata": {"a": 1, "filename": file}, "created_new": True}
        assert {name: found[name] for name in wanted} == wanted
        assert (await api.client.get(found["preview_url"])).status == 200
        other = await api.json(f"/api/v2/assets/{found['id']}")
        assert (other["hash"], other["size_bytes"], other["file_path"]) == (f"blake3:{digest}", len(data), "my.png")
        del found["created_new"]
        assert await api.json(f"{ASSETS}/{found['id']}") == found
        assert (await api.json(ASSETS))["assets"] == [found]
        for way in ("", "?disposition=inline"):
            async with api.client.get(f"{ASSETS}/{found['id']}/content{way}", headers={"Range": "bytes=1-3"}) as part:
                assert (part.status, await part.read()) == (206, b"PNG")
                kind = "inline" if way else "attachment"
                assert part.headers["Content-Disposition"] == f"{kind}; filename*=UTF-8''my.png"


async def test_a_content_has_several_records_and_goes_with_the_last(serving: Serving) -> None:
    data = png(4, 4)
    async with serving(editor_assets=True, max_assets_mb=2 * len(data) / 1024 / 1024) as api:
        first = await made(api, data)
        again = await made(api, data, 200, name="again.png")
        third = await made(api, None, 200, hash=first["hash"], name="third.png")
        status, fourth = await asked(
            api, "POST", f"{ASSETS}/from-hash", {"hash": first["hash"], "name": "4", "tags": ["input", "x"]}
        )
        assert (status, fourth["name"], fourth["tags"], fourth["created_new"]) == (201, "4", ["input", "x"], False)
        every = [first, again, third, fourth]
        assert len({asset["id"] for asset in every}) == 4
        assert {asset["hash"] for asset in every} == {first["hash"]}
        await made(api, png(4, 3))  # room for two contents: records take none
        async with api.client.head(f"{ASSETS}/hash/{first['hash']}") as known:
            assert known.status == 200
        for left, asset in zip((3, 2, 1, 0), every, strict=True):
            assert (await asked(api, "DELETE", f"{ASSETS}/{asset['id']}"))[0] == 204
            async with api.client.head(f"{ASSETS}/hash/{first['hash']}") as known:
                assert known.status == (200 if left else 404)
            if left:
                async with api.client.get(f"{ASSETS}/{every[-1]['id']}/content") as response:
                    assert await response.read() == data
        assert (await asked(api, "DELETE", f"{ASSETS}/{first['id']}"))[0] == 404


async def test_lists_are_by_tags_name_and_notes_page_by_page(serving: Serving) -> None:
    async with serving(editor_assets=True) as api:
        for at in range(5):
            tags = ["input", "even" if at % 2 == 0 else "odd"]
            await made(api, png(at + 1, 1), tags=tags, name=f"N{at}", user_metadata=f'{{"at": {at}}}')

        async def names(query: str) -> list[str]:
            return [asset["name"] for asset in (await api.json(f"{ASSETS}?{query}"))["assets"]]

        assert await names("sort=name&order=asc") == ["N0", "N1", "N2", "N3", "N4"]
        assert await names("") == ["N4", "N3", "N2", "N1", "N0"]
        assert await names("include_tags=input,even&order=asc&sort=name") == ["N0", "N2", "N4"]
        assert await names("include_tags=input&include_tags=odd&order=asc&sort=name") == ["N1", "N3"]
        assert await names("exclude_tags=odd&name_contains=n2") == ["N2"]
        assert await names('metadata_filter={"at": 3}') == ["N3"]
        pages, after = [], "0"
        while after:
            page = await api.json(f"{ASSETS}?sort=name&order=asc&limit=2&after={after}")
            pages.append([asset["name"] for asset in page["assets"]])
            assert (page["total"], page["has_more"]) == (5, "next_cursor" in page)
            after = page.get("next_cursor", "")
        assert pages == [["N0", "N1"], ["N2", "N3"], ["N4"]]
        assert await names("sort=name&order=asc&limit=2&offset=3") == ["N3", "N4"]
        assert await api.json("/api/tags?prefix=e") == {
            "tags": [{"name": "even", "count": 3, "type": "user"}], "total": 1, "has_more": False
        }  # fmt: skip
        every = await api.json("/api/tags?limit=2")
        assert [(tag["name"], tag["count"], tag["type"]) for tag in every["tags"]] == [
            ("input", 5, "system"), ("even", 3, "user")
        ]  # fmt: skip
        assert (every["total"], every["has_more"]) == (3, True)
        assert await api.json(f"{ASSETS}/tags/refine?include_tags=odd") == {"tag_counts": {"input": 2, "odd": 2}}


async def test_names_notes_and_tags_change(serving: Serving) -> None:
    async with serving(editor_assets=True) as api:
        asset = await made(api, png(), tags=["input", "unit"], user_metadata='{"a": 1}')
        place = f"{ASSETS}/{asset['id']}"
        assert await asked(api, "POST", f"{place}/tags", {"tags": ["Fav", "input"]}) == (
            200, {"added": ["fav"], "already_present": ["input"], "total_tags": ["fav", "input", "unit"]}
        )  # fmt: skip
        assert await asked(api, "DELETE", f"{place}/tags", {"tags": ["Fav", "zzz"]}) == (
            200, {"removed": ["fav"], "not_present": ["zzz"], "total_tags": ["input", "unit"]}
        )  # fmt: skip
        status, changed = await asked(api, "PUT", place, {"name": "new.png", "user_metadata": {"b": 2}})
        assert (status, changed["name"], changed["tags"]) == (200, "new.png", ["input", "unit"])
        assert changed["user_metadata"] == {"b": 2, "filename": asset["loader_path"]}
        assert changed["updated_at"] > asset["updated_at"]
        assert await api.json(place) == changed


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", ASSETS + "?limit=x", None, 400, "INVALID_QUERY"),
        ("GET", ASSETS + "?limit=0", None, 400, "INVALID_QUERY"),
        ("GET", ASSETS + "?limit=501", None, 400, "INVALID_QUERY"),
        ("GET", ASSETS + "?offset=-1", None, 400, "INVALID_QUERY"),
        ("GET", ASSETS + "?sort=bad", None, 400, "INVALID_QUERY"),
        ("GET", ASSETS + "?metadata_filter={", None, 400, "INVALID_QUERY"),
        ("GET", "/api/tags?limit=0", None, 400, "INVALID_QUERY"),
        ("GET", f"{ASSETS}/{NOBODY}", None, 404, "ASSET_NOT_FOUND"),
        ("DELETE", f"{ASSETS}/{NOBODY}", None, 404, "ASSET_NOT_FOUND"),
        ("PUT", f"{ASSETS}/{NOBODY}", {}, 400, "INVALID_BODY"),
        ("PUT", f"{ASSETS}/{NOBODY}", {"name": "x"}, 404, "ASSET_NOT_FOUND"),
        ("POST", f"{ASSETS}/{NOBODY}/tags", {"tags": []}, 400, "INVALID_BODY"),
        ("POST", f"{ASSETS}/{NOBODY}/tags", {"tags": ["x"]}, 404, "ASSET_NOT_FOUND"),
        ("POST", f"{ASSETS}/from-hash", {"hash": "blake3:" + "0" * 64, "tags": ["input"]}, 404, "ASSET_NOT_FOUND"),
        ("POST", f"{ASSETS}/from-hash", {"tags": ["input"]}, 400, "INVALID_BODY"),
        ("POST", f"{ASSETS}/from-hash", {"hash": "\ud800"}, 400, "INVALID_BODY"),
        ("POST", ASSETS, {}, 415, "UNSUPPORTED_MEDIA_TYPE"),
    ],
)  # fmt: skip
async def test_refusals_are_comfyuis(
    serving: Serving, method: str, path: str, body: Any, status: int, code: str
) -> None:
    async with serving(editor_assets=True) as api:
        found, answer = await asked(api, method, path, body)
        assert (found, answer["error"]["code"]) == (status, code)
        assert set(answer["error"]) == {"code", "message", "details"}


async def test_uploads_are_refused_for_what_is_wrong_with_them(serving: Serving) -> None:
    async with serving(editor_assets=True, max_assets_mb=0.001) as api:
        for status, code, given in (
            (400, "INVALID_BODY", form(png(), tags=[])),
            (400, "INVALID_BODY", form(png(), tags=["models", "loras"])),
            (400, "MISSING_FILE", form(None)),
            (404, "ASSET_NOT_FOUND", form(None, hash="blake3:" + "0" * 64)),
            (409, "HASH_MISMATCH", form(png(), hash="blake3:" + "0" * 64)),
            (413, "PAYLOAD_TOO_LARGE", form(b"x" * 2000)),
        ):
            async with api.client.post(ASSETS, data=given) as response:
                assert (response.status, (await response.json())["error"]["code"]) == (status, code)
        assert (await api.json(ASSETS))["total"] == 0
        async with api.client.head(f"{ASSETS}/hash/blake3:00") as response:
            assert response.status == 400


async def test_nobody_sees_or_changes_what_another_key_has(serving: Serving) -> None:
    keys = FixedKeys({"a": account("ann"), "b": account("bob")})
    ann, bob = ({"Authorization": f"Bearer {name}"} for name in "ab")
    async with serving(editor_assets=True, keys=keys) as api:
        async with api.client.post(ASSETS, data=form(png(), tags=["input", "trace"]), headers=ann) as response:
            asset = await response.json()
        place = f"{ASSETS}/{asset['id']}"
        for method, path, body in (
            ("GET", place, None),
            ("GET", place + "/content", None),
            ("PUT", place, {"name": "mine"}),
            ("POST", place + "/tags", {"tags": ["mine"]}),
            ("DELETE", place + "/tags", {"tags": ["trace"]}),
            ("DELETE", place, None),
            ("POST", ASSETS + "/from-hash", {"hash": asset["hash"], "tags": ["input"]}),
        ):
            status, answer = await asked(api, method, path, body, headers=bob)
            assert (status, answer["error"]["code"]) == (404, "ASSET_NOT_FOUND")
        async with api.client.head(f"{ASSETS}/hash/{asset['hash']}", headers=bob) as response:
            assert response.status == 404
        assert (await asked(api, "GET", ASSETS, headers=bob))[1]["total"] == 0
        assert (await asked(api, "GET", "/api/tags", headers=bob))[1]["total"] == 0
        assert (await asked(api, "GET", place, headers=ann))[1]["tags"] == ["input", "trace"]
        assert (await asked(api, "GET", place))[0] == 401


async def test_the_records_of_one_owner_are_counted(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every list reads all of them, and a new one of a known content takes no room."""
    monkeypatch.setattr(store, "MOST_RECORDS", 3)
    async with serving(editor_assets=True) as api:
        body = {"hash": (await made(api, png()))["hash"], "tags": ["input"]}
        statuses = [(await asked(api, "POST", f"{ASSETS}/from-hash", body))[0] for _ in range(4)]
        assert statuses == [201, 201, 400, 400]
        assert (await api.json(ASSETS))["total"] == 3


async def test_outputs_are_listed_with_their_tag_and_belong_to_their_jobs(serving: Serving) -> None:
    async with serving(editor_assets=True) as api:
        upload = await made(api, png(5, 5))
        job = await api.queue(stubs.picture_graph())
        await api.ended(job)
        (found,) = (await api.json(f"{ASSETS}?include_tags=output"))["assets"]
        file = next((api.root / "output").glob("*.png"))
        data = file.read_bytes()
        wanted = {"name": file.name, "size": len(data), "mime_type": "image/png", "tags": ["output"]}
        wanted |= {"hash": "blake3:" + blake3.blake3(data).hexdigest(), "loader_path": f"{file.name} [output]"}
        assert {name: found[name] for name in wanted} == wanted
        assert found["is_immutable"] is True
        for path in (found["preview_url"], f"{ASSETS}/{found['id']}/content"):
            async with api.client.get(path) as answer:
                assert await answer.read() == data
        assert await api.json(f"{ASSETS}/{found['id']}") == found
        assert {each["id"] for each in (await api.json(ASSETS))["assets"]} == {upload["id"], found["id"]}
        assert {tag["name"]: tag["count"] for tag in (await api.json("/api/tags"))["tags"]} == {"input": 1, "output": 1}
        changes = (("DELETE", "", None), ("PUT", "", {"name": "x"}), ("POST", "/tags", {"tags": ["x"]}))
        for method, rest, body in changes:
            status, said = await asked(api, method, f"{ASSETS}/{found['id']}{rest}", body)
            assert (status, said["error"]["code"]) == (409, "ASSET_IMMUTABLE")
        assert (await api.client.head(f"{ASSETS}/hash/{found['hash']}")).status == 200
        status, copy = await asked(api, "POST", f"{ASSETS}/from-hash", {"hash": found["hash"], "tags": ["input"]})
        assert (status, copy["tags"], copy["hash"], copy["is_immutable"]) == (201, ["input"], found["hash"], False)
        file.unlink()
        assert (await asked(api, "GET", f"{ASSETS}/{found['id']}"))[0] == 404
        assert (await asked(api, "GET", f"{ASSETS}/{copy['id']}"))[0] == 200


@pytest.mark.parametrize("path", [ASSETS, "/api/v2/assets"])
async def test_a_slow_upload_of_one_owner_holds_nobody_elses(
    serving: Serving, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, goes_on = png(500, 500), threading.Event()
    real = store.digest_of

    def stalling(file: Any) -> tuple[str, int]:
        found = real(file)
        if found[1] == len(slow):
            assert goes_on.wait(30)
        return found

    monkeypatch.setattr(store, "digest_of", stalling)
    keys = FixedKeys({"ann": account("ann"), "bob": account("bob")})
    async with serving(editor_assets=True, keys=keys) as api:

        async def sent(owner: str, data: bytes) -> int:
            headers = {"Authorization": f"Bearer {owner}"}
            async with api.client.post(path, data=form(data), headers=headers) as response:
                return response.status

        held = [asyncio.create_task(sent("ann", slow)) for _ in range(4)]
        try:
            await asyncio.sleep(0.05)
            assert await asyncio.wait_for(sent("bob", png(1, 1)), 5) == 201
            bob = {"headers": {"Authorization": "Bearer bob"}}
            assert (await asked(api, "POST", "/settings/a", 1, **bob))[0] == 200
        finally:
            goes_on.set()
        statuses = await asyncio.gather(*held)
        assert sorted(statuses) == [200, 200, 200, 201]  # one content, whoever of them came first
        records = list((api.root / "user/ann/assets").glob("*.json"))
        assert len(records) == (1 if path == "/api/v2/assets" else 4)
