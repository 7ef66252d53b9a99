"""`POST /prompt` takes whatever carries a workflow."""

import io
import json

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.server.conftest import Api, Serving
from tests.server.stubs import picture_graph


async def drawing(api: Api) -> dict[str, object]:
    await api.post("/workflows/flat", {"workflow": picture_graph()})
    found: dict[str, object] = await api.json("/workflows/flat?form=editor")
    return found


async def ran(api: Api, **way: object) -> dict[str, object]:
    response = await api.client.post("/prompt", **way)
    body = await response.json()
    assert response.status == 200, body
    entry = await api.ended(body["prompt_id"])
    assert entry["status"]["status_str"] == "success"
    return dict(entry)


def with_texts(**texts: str) -> bytes:
    chunks, buffer = PngInfo(), io.BytesIO()
    for name, text in texts.items():
        chunks.add_text(name, text)
    Image.new("RGB", (2, 2)).save(buffer, "PNG", pnginfo=chunks)
    return buffer.getvalue()


async def test_a_drawing_runs_where_a_prompt_is_expected_or_alone(serving: Serving) -> None:
    async with serving() as api:
        drawn = await drawing(api)
        for body in (drawn, {"prompt": drawn, "client_id": "c"}):
            entry = await ran(api, data=json.dumps(body).encode())
            prompt, extra = entry["prompt"][2:4]  # type: ignore[index]
            assert {node_id: node["inputs"] for node_id, node in prompt.items()} == {
                node_id: node["inputs"] for node_id, node in picture_graph().items()
            }
            assert extra["extra_pnginfo"]["workflow"] == drawn


async def test_a_picture_as_the_body_runs(serving: Serving) -> None:
    async with serving() as api:
        drawn = json.dumps(await drawing(api))
        await ran(api, data=with_texts(prompt=json.dumps(picture_graph())))
        await ran(api, data=with_texts(workflow=drawn))


async def test_a_stored_name_runs_where_a_prompt_is_expected(serving: Serving) -> None:
    async with serving() as api:
        for document, name in ((picture_graph(), "api"), (await drawing(api), "drawn")):
            assert (await api.post(f"/workflows/{name}", {"workflow": document})).status == 201
            entry = await ran(api, data=json.dumps({"prompt": name}).encode())
            drawn = entry["prompt"][3]["extra_pnginfo"].get("workflow")  # type: ignore[index]
            assert drawn == (document if "nodes" in document else None)
        missing = await api.post("/prompt", {"prompt": "nowhere"})
        assert missing.status == 400
        assert "the prompt is a string, and no stored workflow has that name" in await missing.text()


async def test_a_drawing_with_unknown_classes_names_all_of_them(serving: Serving) -> None:
    async with serving() as api:
        nodes = [{"id": at, "type": name, "inputs": [], "outputs": []} for at, name in enumerate(("Nope", "Nada"))]
        response = await api.post("/prompt", {"prompt": {"nodes": nodes, "links": []}})
        assert response.status == 400
        text = await response.text()
        assert "Nope" in text
        assert "Nada" in text


async def test_a_picture_that_carries_nothing_is_refused(serving: Serving) -> None:
    async with serving() as api:
        response = await api.client.post("/prompt", data=with_texts())
        assert response.status == 400
        assert "carries no workflow" in await response.text()
