"""What the page asks at boot and for its panels, with and without the prefix."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sigmagraph.engine.graph.editor import convert
from sigmagraph.engine.server.comfy.help import help_page
from tests.server.conftest import Serving
from tests.server.stubs import NODES, picture_graph, png

NO_PREFIX = ("/internal", "/templates", "/user.css", "/extensions")


@pytest.mark.parametrize("prefix", ["", "/api"])
async def test_every_route_of_the_boot_answers(serving: Serving, prefix: str) -> None:
    async with serving() as api:
        for path in (
            *("users", "settings", "extensions", "object_info", "system_stats", "i18n", "queue", "history", "prompt"),
            *("jobs", "features", "global_subgraphs", "node_replacements", "experiment/models", "embeddings", "models"),
            *("workflow_templates", "v2/userdata", "health"),
        ):
            (api.root / "user/default").mkdir(parents=True, exist_ok=True)
            response = await api.get(f"{prefix}/{path}")
            assert response.status == 200, path
            assert response.headers["Content-Type"] == "application/json; charset=utf-8"
            head = await api.client.head(f"{prefix}/{path}")
            assert (head.status, await head.read()) == (200, b"")


async def test_any_path_answers_options_and_wrong_methods_are_405(serving: Serving) -> None:
    async with serving() as api:
        for path in ("/prompt", "/nothing/at/all"):
            response = await api.client.options(path)
            assert (response.status, await response.read()) == (200, b"")
        assert (await api.client.put("/queue")).status == 405
        assert (await api.get("/interrupt")).status in (404, 405)


async def test_object_info_has_the_declared_form(serving: Serving) -> None:
    async with serving() as api:
        (api.root / "input/a.png").write_bytes(b"")
        found = await api.json("/api/object_info")
        assert set(found) == set(NODES)
        info = found["EmptyImage"]
        assert info["input"]["required"]["color"] == [
            "INT",
            {"default": 0, "min": 0, "max": 16777215, "tooltip": "a colour"},
        ]
        assert info["input_order"] == {"required": ["width", "height", "color"]}
        assert (info["name"], info["category"], info["output_node"]) == ("EmptyImage", "image", False)
        assert found["LoadImage"]["input"]["required"]["image"] == [["a.png"], {"image_upload": True}]
        assert "SERVICES" not in json.dumps(found)
        assert await api.json("/object_info/EmptyImage") == {"EmptyImage": info}
        assert await api.json("/object_info/Nothing") == {}


async def test_the_page_finds_the_loaders_it_looks_up_unasked(serving: Serving) -> None:
    async with serving() as api:
        found = await api.json("/api/object_info", headers={"Comfy-User": ""})
        assert found["StyleModelLoader"]["deprecated"] is True
        assert {"name", "category", "python_module"} <= set(found["StyleModelLoader"])


async def test_system_stats_keep_the_page_at_home(serving: Serving) -> None:
    async with serving() as api:
        stats = await api.json("/system_stats")
        assert "--disable-api-nodes" in stats["system"]["argv"]
        assert stats["system"]["comfyui_version"].count(".") == 2
        assert stats["system"]["ram_total"] > 0
        assert stats["devices"][0]["type"] == "cpu"


async def test_features_say_how_much_may_be_uploaded(serving: Serving) -> None:
    async with serving(max_upload_mb=2) as api:
        flags = {"supports_preview_metadata": True, "node_replacements": True}
        assert await api.json("/features") == {**flags, "max_upload_size": 2 * 1024 * 1024}


async def test_classes_that_are_gone_are_listed_with_what_stands_in_for_them(serving: Serving) -> None:
    async with serving() as api:
        assert await api.json("/node_replacements") == {
            "GoneImage": [
                {
                    "old_node_id": "GoneImage",
                    "new_node_id": "EmptyImage",
                    "old_widget_ids": ["w"],
                    "input_mapping": [
                        {"new_id": "width", "old_id": "w"},
                        {"new_id": "height", "set_value": 8},
                        {"new_id": "color", "set_value": 7},
                    ],
                    "output_mapping": None,
                }
            ]
        }


def weights(path: Path, **metadata: str) -> None:
    header = json.dumps({"__metadata__": metadata} if metadata else {}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(header)) + header)


async def test_models_are_listed_and_described(serving: Serving) -> None:
    async with serving() as api:
        weights(api.root / "models/checkpoints/sub/m.safetensors", **{"modelspec.title": "M"})
        weights(api.root / "models/checkpoints/plain.safetensors")
        weights(api.root / "models/embeddings/emb.safetensors")
        (api.root / "models/checkpoints/bad.safetensors").write_bytes(struct.pack("<Q", 1 << 40))
        (api.root / "models/checkpoints/sub/m.preview.png").write_bytes(png(Image.new("RGB", (4, 4))))
        assert "checkpoints" in await api.json("/models")
        names = ["bad.safetensors", "plain.safetensors", "sub/m.safetensors"]
        assert await api.json("/models/checkpoints") == names
        assert (await api.get("/models/secrets")).status == 404
        assert await api.json("/embeddings") == ["emb"]
        assert {"name": "checkpoints", "folders": ["checkpoints"]} in await api.json("/experiment/models")
        listed = await api.json("/experiment/models/checkpoints")
        assert [template["name"] for template in listed] == names
        assert listed[2]["size"] > 0
        described = "/view_metadata/checkpoints?filename="
        assert await api.json(described + "sub/m.safetensors") == {"modelspec.title": "M"}
        for name in ("plain.safetensors", "bad.safetensors", "none.safetensors", "../../jobs.sqlite", ""):
            assert (await api.get(described + name)).status == 404
        shown = await api.get("/api/experiment/models/preview/checkpoints/0/sub%2Fm.safetensors")
        assert (shown.status, shown.content_type) == (200, "image/webp")
        assert (await api.get("/experiment/models/preview/checkpoints/0/plain.safetensors")).status == 404


async def test_a_model_that_has_its_name_by_an_alias_is_listed_with_its_size(serving: Serving, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "demo.safetensors"
    weights(elsewhere, **{"modelspec.title": "Demo"})
    async with serving(aliases={"loras": {"demo.safetensors": elsewhere}}) as api:
        (listed,) = await api.json("/experiment/models/loras")
        assert (listed["name"], listed["size"]) == ("demo.safetensors", elsewhere.stat().st_size)
        assert await api.json("/view_metadata/loras?filename=demo.safetensors") == {"modelspec.title": "Demo"}


async def test_the_console_shows_recent_lines(serving: Serving) -> None:
    async with serving() as api:
        assert isinstance(await api.json("/internal/logs"), str)
        raw = await api.json("/internal/logs/raw")
        assert set(raw["size"]) == {"cols", "rows"}
        assert raw["entries"] == []
        response = await api.client.patch("/internal/logs/subscribe", json={"clientId": "c", "enabled": True})
        assert (response.status, await response.read()) == (200, b"")
        (api.root / "output/a.png").write_bytes(b"")
        assert await api.json("/internal/files/output") == ["a.png"]
        assert (await api.get("/internal/files/secrets")).status == 400
        assert "checkpoints" in await api.json("/internal/folder_paths")
        assert (await api.get("/api/internal/logs")).status == 404


async def test_templates_are_the_workflows_folder_drawn_for_the_editor(serving: Serving) -> None:
    from tests.server.stubs import picture_graph

    async with serving() as api:
        (api.root / "workflows/flat.json").write_text(json.dumps(picture_graph()))
        index = await api.get("/templates/index.json")
        assert index.headers["Cache-Control"] == "private, no-store"
        [group] = await index.json()
        assert group["moduleName"] == "default"
        assert [template["name"] for template in group["templates"]] == ["flat"]
        document = await api.json("/templates/flat.json")
        nodes = {node["id"]: node for node in document["nodes"]}
        assert nodes[5]["widgets_values"] == [8, 8, 0xFF0000]
        assert document["links"] == [[1, 5, 0, 9, 0, "IMAGE"]]
        assert nodes[9]["inputs"][0]["link"] == 1
        assert nodes[5]["outputs"][0]["links"] == [1]
        assert nodes[5]["pos"][0] < nodes[9]["pos"][0]
        thumbnail = await api.get("/templates/flat-1.webp")
        assert (await thumbnail.read())[8:12] == b"WEBP"
        for path in ("/templates/none.json", "/templates/none-1.webp", "/templates/..%2Fjobs.json"):
            assert (await api.get(path)).status == 404


async def test_a_template_tells_the_page_where_official_files_are(serving: Serving) -> None:
    graph = picture_graph()
    graph["9"]["inputs"]["filename_prefix"] = "sd3.5_large_controlnet_canny.safetensors"  # the stand-ins have no loader
    async with serving() as api:
        (api.root / "workflows/flat.json").write_text(json.dumps(graph))
        nodes = {node["id"]: node for node in (await api.json("/templates/flat.json"))["nodes"]}
        [told] = nodes[9]["properties"]["models"]
        assert (told["name"], told["directory"]) == ("sd3.5_large_controlnet_canny.safetensors", "controlnet")
        assert told["url"].startswith("https://huggingface.co/")
        assert told["url"].endswith(f"/{told['name']}")
        assert "models" not in nodes[5]["properties"]


async def test_a_drawn_template_converts_back_to_the_prompt_it_was(serving: Serving) -> None:
    from sigmagraph.engine.graph.reading.document import parse_workflow
    from tests.server.stubs import picture_graph

    async with serving() as api:
        (api.root / "workflows/flat.json").write_text(json.dumps(picture_graph()))
        document = await api.json("/templates/flat.json")
        workflow = parse_workflow(document, await api.json("/object_info"))
        assert {i: node["inputs"] for i, node in workflow.prompt().items()} == {
            i: node["inputs"] for i, node in picture_graph().items()
        }


@pytest.fixture
def frontend(tmp_path: Path) -> Path:
    root = tmp_path / "page"
    for name in ("index.html", "app.js", "lib.mjs", "style.css", "logo.svg", "font.woff2", "extensions/core/a.js"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    return root


async def test_the_page_comes_with_the_types_and_cache_rules_it_needs(serving: Serving, frontend: Path) -> None:
    async with serving(frontend_root=frontend) as api:
        for path in ("/", "/api/"):
            page = await api.get(path)
            assert page.content_type == "text/html"
            assert page.headers["Cache-Control"] == "no-store, must-revalidate"
        for path, kind in (("/app.js", "text/javascript"), ("/lib.mjs", "text/javascript"), ("/style.css", "text/css")):
            file = await api.get(path)
            assert (file.content_type, file.headers["Cache-Control"]) == (kind, "no-cache")
        logo = await api.get("/logo.svg")
        assert (logo.content_type, logo.headers["Cache-Control"]) == ("image/svg+xml", "public, max-age=86400")
        assert (await api.get("/missing.png")).headers["Cache-Control"] == "private, no-store"
        assert (await api.get("/missing")).status == 404
        assert (await api.get("/extensions")).status == 200
        assert (await api.get("/extensions/core")).status == 403
        assert await api.json("/api/extensions") == ["/extensions/core/a.js", "/pages/editor-link.js"]
        assert (await api.client.get("/..%2f..%2fetc/passwd")).status == 404


async def test_without_the_editor_the_page_says_how_to_get_it(serving: Serving) -> None:
    async with serving() as api:
        text = await (await api.get("/")).text()
        assert "pip install 'sigmagraph[editor]'" in text
        assert (await api.get("/user.css")).status == 404


async def test_json_is_compressed_only_when_asked_for(serving: Serving) -> None:
    async with serving(compress=True) as api:
        plain: Any = await api.get("/object_info", headers={"Accept-Encoding": "identity"})
        assert "Content-Encoding" not in plain.headers
        packed = await api.get("/object_info", headers={"Accept-Encoding": "gzip"})
        assert packed.headers["Content-Encoding"] == "gzip"


@pytest.mark.parametrize(
    ("header", "status", "shown"),
    [
        (b'{"__metadata__": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}", 404, None),
        (b'{"__metadata__": {"a": ' + b"[" * 900 + b"]" * 900 + b', "b": "c"}}', 200, {"b": "c"}),
        (b'{"__metadata__": {"a": ' + b"9" * 5000 + b"}}", 404, None),
        (b'{"__metadata__": {"a": NaN, "b": "c"}}', 200, {"b": "c"}),
        (b'{"__metadata__": {"a": "\\ud800"}}', 200, {"a": "\ud800"}),
        (b'{"__metadata__": {"modelspec.thumbnail": "data:image/png;base64,\\u00e9"}}', 200, None),
        (b"[]", 404, None),
        (b"\xff\xfe", 404, None),
    ],
)
async def test_headers_that_lie_are_answered_without_a_fault(
    serving: Serving, header: bytes, status: int, shown: Any
) -> None:
    async with serving() as api:
        (api.root / "models/checkpoints/m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
        reply = await api.get("/view_metadata/checkpoints?filename=m.safetensors")
        assert reply.status == status
        if shown is not None:
            assert json.loads(await reply.read()) == shown
        assert (await api.get("/experiment/models/preview/checkpoints/0/m.safetensors")).status == 404


async def test_a_template_without_a_drawing_is_drawn_and_means_the_same(serving: Serving) -> None:
    lost = {"lost": {"class_type": "Nowhere", "inputs": {"images": ["5", 0]}}}
    async with serving() as api:
        (api.root / "workflows").mkdir(exist_ok=True)
        for name, prompt in (("flat", picture_graph()), ("lost", picture_graph() | lost)):
            (api.root / f"workflows/{name}.json").write_text(json.dumps(prompt))
        document = await api.json("/templates/flat.json")
        prompt, warnings = convert(document, await api.json("/object_info"))
        assert ({i: {**node, "_meta": {}} for i, node in prompt.items()}, warnings) == (
            {i: {**node, "_meta": {}} for i, node in picture_graph().items()},
            [],
        )
        corners = [tuple(node["pos"]) for node in document["nodes"]]
        assert len(set(corners)) == len(picture_graph())
        boxes = {node["type"]: node for node in (await api.json("/templates/lost.json"))["nodes"]}
        assert [socket["name"] for socket in boxes["Nowhere"]["inputs"]] == ["images"]
        assert (await api.get("/templates/lost-1.webp")).status == 200


async def test_every_folder_of_comfyui_is_answered_for(serving: Serving) -> None:
    async with serving() as api:
        listed = await api.json("/models")
        assert {"gligen", "style_models", "hypernetworks", "photomaker", "audio_encoders"} <= set(listed)
        for name in (*listed, "clip", "unet"):
            assert await api.json(f"/models/{name}") == [], name
        weights(api.root / "models/text_encoders/t5.safetensors")
        assert await api.json("/models/clip") == ["t5.safetensors"]
        shown = [model["name"] for model in await api.json("/experiment/models")]
        assert shown == [name for name in listed if name not in ("configs", "custom_nodes")]


async def test_the_help_of_a_node_says_what_its_declaration_says(serving: Serving) -> None:
    async with serving() as api:
        text = await (await api.get("/docs/EmptyImage/en.md")).text()
        assert text.startswith("# EmptyImage\n\n`EmptyImage`, in the menu under image.\n\nOne flat colour.\n")
        assert "| color | INT | 0 | 0 to 16777215 | a colour |" in text
        assert text.endswith("## Outputs\n\n| name | type |  |\n| --- | --- | --- |\n| IMAGE | IMAGE |  |\n")
        assert "| how | choice | now | now, later |  |" in await (await api.get("/docs/Fail/de.md")).text()


def test_the_help_of_a_node_shows_markup_of_a_pack_as_words() -> None:
    hostile = {
        "name": "A", "display_name": "<b>A</b>", "category": "x/y", "description": "a | b\n# c [d](javascript:e)",
        "input": {"optional": {"n": ["INT", {"tooltip": "<script>alert(1)</script>"}]}},
        "output": [["a"]], "output_name": ["which"], "output_is_list": [True], "deprecated": True,
    }  # fmt: skip
    text = help_page(hostile)
    assert "<" not in text.replace("\\<", "")
    assert "a \\| b \\# c \\[d\\](javascript:e)" in text
    assert "| n | INT |  |  | Optional. \\<script\\>alert(1)\\</script\\> |" in text
    assert "| which | choice, a list |  |" in text
    assert "**Deprecated" in text


async def test_templates_say_what_their_notes_say_and_those_that_can_run_come_first(serving: Serving) -> None:
    from tests.server.stubs import picture_graph

    larger = picture_graph() | {"20": picture_graph()["5"]}
    lacking = {"1": {"class_type": "LoadImage", "inputs": {"image": "none.png"}}}
    async with serving() as api:
        for name, prompt in (("b_small", picture_graph()), ("a_larger", larger), ("0_lacking", lacking)):
            (api.root / f"workflows/{name}.json").write_text(json.dumps(prompt))
        (api.root / "workflows/00_broken.json").write_text("[")
        notes = "# Small\n\nA picture.\nOf one colour.\n\nMore.\n\nTags: one, two\nModels: none at all\n"
        (api.root / "workflows/b_small.md").write_text(notes)
        [group] = await api.json("/templates/index.json")
        small, *others = group["templates"]
        assert [model["name"] for model in others] == ["a_larger", "0_lacking", "00_broken"]
        assert (small["title"], small["description"]) == ("Small", "A picture. Of one colour.")
        assert (small["tags"], small["models"]) == (["one", "two"], ["none at all"])
        assert others[0]["title"] == "A larger"


async def test_there_is_always_a_default_template(serving: Serving) -> None:
    from tests.server.stubs import picture_graph

    async with serving() as api:
        assert (await api.get("/templates/default.json")).status == 404
        for name, color in (("a", 1), ("txt2img", 2)):
            (api.root / f"workflows/{name}.json").write_text(json.dumps(picture_graph(color)))
        assert await api.json("/templates/default.json") == await api.json("/templates/txt2img.json")
        (api.root / "workflows/default.json").write_text(json.dumps(picture_graph(3)))
        assert await api.json("/templates/default.json") != await api.json("/templates/txt2img.json")
