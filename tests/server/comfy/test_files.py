"""`/view`, uploads, saved files, settings: what a name from a client can reach, and what a browser is told about it."""

import io
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import EpsImagePlugin, Image
from yarl import URL

from tests.server.conftest import Api, Serving
from tests.server.stubs import png


def picture(path: Path, size: tuple[int, int] = (4, 4), mode: str = "RGBA", **options: Any) -> bytes:
    data = png(Image.new(mode, size, (10, 20, 30, 128)[: len(mode)]), **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return data


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


async def upload(api: Api, name: str, data: bytes, path: str = "/upload/image", **fields: str) -> Any:
    form = aiohttp.FormData(quote_fields=False)
    form.add_field("image", data, filename=name, content_type="image/png")
    for key, value in fields.items():
        form.add_field(key, value)
    return await api.client.post(path, data=form)


async def test_a_file_comes_as_it_is_with_its_name_and_in_parts(serving: Serving) -> None:
    async with serving() as api:
        data = picture(api.root / "output/sub/x.png")
        response = await api.get("/view?filename=x.png&subfolder=sub&rand=0.5")
        assert await response.read() == data
        assert response.headers["Content-Type"] == "image/png"
        assert response.headers["Content-Disposition"] == 'filename="x.png"'
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        etag = response.headers["ETag"]
        assert (await api.get("/view?filename=x.png&subfolder=sub", headers={"If-None-Match": etag})).status == 304
        part = await api.get("/api/view?filename=x.png&subfolder=sub", headers={"Range": "bytes=1-3"})
        assert (part.status, await part.read()) == (206, data[1:4])


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 404),
        ("filename=", 400),
        ("filename=/etc/passwd", 400),
        ("filename=../x.png", 400),
        ("filename=a..png", 400),
        ("filename=x%00.png", 400),
        ("filename=x.png&type=secret", 400),
        ("filename=x.png&subfolder=..", 403),
        ("filename=x.png&subfolder=/etc", 403),
        ("filename=passwd&subfolder=link", 403),
        ("filename=nothing.png", 404),
        ("filename=folder", 404),
        ("filename=notes.txt&preview=webp", 400),
        ("filename=huge.png&preview=webp", 400),
        ("filename=deep/x.png", 200),
        ("filename=x.png [output]&type=input", 200),
    ],
)
async def test_names_that_lead_elsewhere_are_refused(serving: Serving, query: str, status: int) -> None:
    async with serving(max_pixels=10_000) as api:
        picture(api.root / "output/x.png")
        picture(api.root / "output/huge.png", (101, 100), "RGB")
        (api.root / "output/notes.txt").write_text("hello")
        (api.root / "output/folder").mkdir()
        (api.root / "output/link").symlink_to("/etc")
        assert (await api.get(f"/view?{query}")).status == status


@pytest.mark.parametrize("name", ["x.html", "x.svg", "x.js", "x.mjs", "x.css", "x.xhtml", "x.xml", "x.pdf"])
async def test_what_a_browser_would_run_is_a_download(serving: Serving, name: str) -> None:
    async with serving() as api:
        (api.root / "output" / name).write_text("<script>alert(1)</script>")
        response = await api.get(f"/view?filename={name}")
        assert response.headers["Content-Type"] == "application/octet-stream"
        assert response.headers["Content-Disposition"].startswith("attachment")
        assert "sandbox" in response.headers["Content-Security-Policy"]


async def test_an_svg_may_stand_in_an_image_element(serving: Serving) -> None:
    async with serving() as api:
        (api.root / "output/x.svg").write_text("<svg/>")
        response = await api.get("/view?filename=x.svg", headers={"Sec-Fetch-Dest": "image"})
        assert response.headers["Content-Type"] == "image/svg+xml"


async def test_previews_and_channels_are_re_encoded(serving: Serving) -> None:
    async with serving() as api:
        picture(api.root / "output/x.png")
        for query, kind, mode in (
            ("preview=webp;75", "WEBP", "RGBA"),
            ("preview=jpeg;50", "JPEG", "RGB"),
            ("preview=tiff", "WEBP", "RGBA"),
            ("preview=webp;²", "WEBP", "RGBA"),
            (f"preview=webp;{'9' * 4500}", "WEBP", "RGBA"),
            ("preview=webp;90&channel=rgb", "WEBP", "RGB"),
            ("channel=rgb", "PNG", "RGB"),
            ("channel=a", "PNG", "RGBA"),
            ("channel=odd", "PNG", "RGBA"),
        ):
            response = await api.get(f"/view?filename=x.png&{query}")
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            image = opened(await response.read())
            assert (image.format, image.mode) == (kind, mode), query
        alpha = opened(await (await api.get("/view?filename=x.png&channel=a")).read())
        assert alpha.getpixel((0, 0)) == (0, 0, 0, 128)


async def test_a_picture_that_is_a_program_is_not_run(serving: Serving, monkeypatch: Any) -> None:
    runs: list[Any] = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *given: runs.append(given))
    async with serving() as api:
        (api.root / "input/x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
        for query in ("preview=webp", "channel=rgb"):
            assert (await api.get(f"/view?filename=x.png&type=input&{query}")).status == 400
    assert not runs


async def test_an_upload_keeps_equal_files_and_numbers_different_ones(serving: Serving) -> None:
    async with serving() as api:
        expected = (("a", "ü.png"), ("a", "ü.png"), ("b", "ü (1).png"), ("c", "ü (2).png"))
        for content, name in expected:
            response = await upload(api, "ü.png", content.encode())
            assert await response.json() == {"name": name, "subfolder": "", "type": "input"}
        over = await upload(api, "ü.png", b"d", overwrite="true", subfolder="", type="input")
        assert (await over.json())["name"] == "ü.png"
        assert (api.root / "input/ü.png").read_bytes() == b"d"
        sub = await upload(api, "x.png", b"e", path="/api/upload/image", subfolder="pasted/deep", type="temp")
        assert await sub.json() == {"name": "x.png", "subfolder": "pasted/deep", "type": "temp"}
        assert (api.root / "temp/pasted/deep/x.png").read_bytes() == b"e"


async def test_an_upload_that_leaves_its_folder_or_has_no_file_is_refused(serving: Serving) -> None:
    async with serving(max_upload_mb=0.01) as api:
        assert (await upload(api, "../x.png", b"a")).status == 400
        assert (await upload(api, "x.png", b"a", subfolder="../..")).status == 400
        assert (await upload(api, "x.png", b"a", type="secret")).status == 400
        for nameless in (".", "./.", ".//"):
            assert (await upload(api, nameless, b"a")).status == 400
            assert (await upload(api, nameless, b"a", subfolder="s")).status == 400
        assert not [path for path in api.root.iterdir() if path.name.startswith("input (")]
        assert (await api.post("/upload/image", {"image": 1})).status == 400
        form = aiohttp.FormData()
        form.add_field("image", "just text")
        form.add_field("other", b"x", filename="x.png")
        assert (await api.client.post("/upload/image", data=form)).status == 400
        assert (await upload(api, "x.png", b"a" * 20_000)).status == 413
        assert list((api.root / "input").iterdir()) == []


async def test_a_mask_replaces_the_alpha_of_its_original_and_keeps_its_text(serving: Serving) -> None:
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("workflow", "{}")
    async with serving() as api:
        picture(api.root / "output/o.png", mode="RGB", pnginfo=text)
        mask = png(Image.new("RGBA", (4, 4), (0, 0, 0, 77)))
        reference = json.dumps({"filename": "o.png", "subfolder": "", "type": "output"})
        response = await upload(
            api, "m.png", mask, "/upload/mask", original_ref=reference, subfolder="clipspace", type="input"
        )
        assert await response.json() == {"name": "m.png", "subfolder": "clipspace", "type": "input"}
        made = opened((api.root / "input/clipspace/m.png").read_bytes())
        assert made.getpixel((0, 0)) == (10, 20, 30, 77)
        assert made.text == {"workflow": "{}"}  # type: ignore[attr-defined]
        for bad in ("", "{}", json.dumps({"filename": "../o.png"}), json.dumps({"filename": "none.png"}), "[1]"):
            assert (await upload(api, "m.png", mask, "/upload/mask", original_ref=bad)).status == 400
        damaged = await upload(api, "m.png", b"no picture", "/upload/mask", original_ref=reference)
        assert damaged.status == 400


async def test_saved_files_are_written_listed_moved_and_deleted(serving: Serving) -> None:
    async with serving() as api:
        assert (await api.get("/userdata")).status == 400
        assert (await api.get("/userdata?dir=workflows")).status == 404
        assert (await api.get("/userdata?dir=..")).status == 403
        path = "/api/userdata/workflows%2Fsub%2Fone.json"
        made = await api.post(path + "?overwrite=false&full_info=true", {"a": 1})
        assert set(await made.json()) == {"path", "size", "modified", "created"}
        assert (await api.post(path + "?overwrite=false", {"a": 2})).status == 409
        assert await (await api.post(path, {"a": 3})).json() == "workflows/sub/one.json"
        read = await api.get(path)
        assert json.loads(await read.read()) == {"a": 3}
        assert read.headers["Content-Disposition"] == "attachment"
        assert await api.json("/userdata?dir=workflows/&recurse=true") == ["sub/one.json"]
        assert await api.json("/userdata?dir=workflows") == []
        assert await api.json("/userdata?dir=workflows&recurse=true&split=true") == [
            ["sub/one.json", "sub", "one.json"]
        ]
        [info] = await api.json("/userdata?dir=workflows&recurse=true&full_info=true")
        assert (info["path"], info["size"]) == ("sub/one.json", 8)
        listed = await api.json("/v2/userdata?path=workflows")
        assert [(file["path"], file["type"]) for file in listed] == [
            ("workflows/sub", "directory"),
            ("workflows/sub/one.json", "file"),
        ]
        moved = await api.post(path + "/move/two.json?overwrite=false")
        assert await moved.json() == "two.json"
        assert (await api.post(path + "/move/two.json")).status == 404
        assert (await api.client.delete("/userdata/two.json")).status == 204
        assert (await api.client.delete("/userdata/two.json")).status == 404
        assert (await api.get("/userdata/..%2F..%2Fjobs.sqlite")).status == 403
        assert (await api.post("/userdata/..%2Fx.json", {})).status == 403


async def test_a_link_that_leads_nowhere_does_not_keep_the_page_down(serving: Serving) -> None:
    async with serving() as api:
        assert (await api.post("/userdata/workflows%2Fone.json", {})).status == 200
        (api.root / "user/default/workflows/gone.json").symlink_to(api.root / "nowhere")
        listed = await api.json("/userdata?dir=workflows&recurse=true&split=false&full_info=true")
        assert [file["path"] for file in listed] == ["one.json"]
        assert [file["path"] for file in await api.json("/v2/userdata")] == ["workflows", "workflows/one.json"]


async def test_a_file_is_not_moved_onto_a_folder(serving: Serving) -> None:
    async with serving() as api:
        assert (await api.post("/userdata/workflows%2Fone.json", {})).status == 200
        assert (await api.post("/userdata/two.json", {})).status == 200
        for folder in ("workflows", ".%2F.", "workflows%2F"):
            path = URL(f"/userdata/two.json/move/{folder}", encoded=True)
            assert (await api.client.post(path)).status == 400, folder
        assert await api.json("/userdata?dir=.") == ["two.json"]


async def test_settings_are_kept_as_they_are_sent(serving: Serving) -> None:
    async with serving() as api:
        assert await api.json("/settings") == {}
        assert await api.json("/settings/Comfy.Nothing") is None
        for value in (1.35, True, "x", None, {"a": [1]}):
            assert (await api.post("/api/settings/Comfy.One", value, data=json.dumps(value).encode())).status == 200
            assert await api.json("/settings/Comfy.One") == value
        response = await api.post("/settings", {"a": 1, "b": 2})
        assert (response.status, await response.read()) == (200, b"")
        assert "Content-Type" not in response.headers
        assert await api.json("/settings") == {"Comfy.One": {"a": [1]}, "a": 1, "b": 2}
        assert (await api.post("/settings", [1])).status == 400
    async with serving() as again:
        assert (await again.json("/settings"))["a"] == 1


async def test_a_damaged_settings_file_does_not_keep_the_page_down(serving: Serving) -> None:
    async with serving() as api:
        (api.root / "user/default").mkdir(parents=True)
        (api.root / "user/default/comfy.settings.json").write_text("{oops")
        assert await api.json("/settings") == {}
        (api.root / "user/default/comfy.settings.json").unlink()
        (api.root / "user/default/comfy.settings.json").mkdir()
        assert await api.json("/settings") == {}


async def test_there_is_one_user(serving: Serving) -> None:
    async with serving() as api:
        assert await api.json("/users") == {"storage": "server", "migrated": True}
        assert (await api.post("/users", {"username": "Ann"})).status == 400
