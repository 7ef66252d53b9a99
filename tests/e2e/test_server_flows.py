"""The flows of ComfyUI's three example scripts, on a real server with the demo workflow."""

import asyncio
import io
import json
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import Image

from tests.serving import CHECKOUT, Server

pytestmark = pytest.mark.clients
CHECKPOINT = CHECKOUT / "models/checkpoints/sigmagraph-demo.safetensors"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("home")
    (home / "models/checkpoints").mkdir(parents=True)
    (home / "models/checkpoints" / CHECKPOINT.name).symlink_to(CHECKPOINT)
    running = Server(home).start()
    yield running
    running.stop()


def demo(seed: int) -> dict[str, Any]:
    graph: dict[str, Any] = json.loads((CHECKOUT / "workflows/txt2img.json").read_text())
    graph["5"]["inputs"] |= {"steps": 4, "seed": seed}
    return graph


FLAGS = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}


async def until_over(server: Server, graph: Any, client_id: str, *, takes: bool = False) -> tuple[str, list[Any]]:
    """Connect, submit, and read until nothing is executing any more; (id, messages)."""
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.url}/ws?clientId={client_id}") as ws:
        if takes:
            await ws.send_json(FLAGS)
        body = json.dumps({"prompt": graph, "client_id": client_id}).encode()
        prompt_id = await asyncio.to_thread(lambda: _posted(server, body))
        seen: list[Any] = []
        async for message in ws:
            seen.append(json.loads(message.data) if message.type is aiohttp.WSMsgType.TEXT else message.data)
            last = seen[-1]
            is_end = isinstance(last, dict) and last["type"] == "executing" and last["data"]["node"] is None
            if is_end and last["data"]["prompt_id"] == prompt_id:
                break
        return prompt_id, seen


def _posted(server: Server, body: bytes) -> str:
    with urllib.request.urlopen(urllib.request.Request(f"{server.url}/prompt", data=body)) as response:
        return str(json.loads(response.read())["prompt_id"])


def test_the_basic_flow_posts_a_form_encoded_body_and_goes_away(server: Server) -> None:
    prompt_id = _posted(server, json.dumps({"prompt": demo(1)}).encode())
    assert server.ended(prompt_id)["status"]["completed"] is True


def test_the_socket_flow_fetches_history_and_pictures_when_it_is_over(server: Server, tmp_path: Path) -> None:
    prompt_id, messages = asyncio.run(until_over(server, demo(2), uuid.uuid4().hex))
    entry = server.json(f"/history/{prompt_id}")[prompt_id]
    [image] = entry["outputs"]["7"]["images"]
    query = "&".join(f"{name}={value}" for name, value in image.items())
    with urllib.request.urlopen(f"{server.url}/view?{query}") as response:
        assert Image.open(io.BytesIO(response.read())).size == (128, 128)
    kinds = [message["type"] for message in messages if isinstance(message, dict)]
    assert kinds.count("progress") >= 4
    assert not any(isinstance(message, bytes) for message in messages), "previews are for clients that announced them"


def test_a_client_that_announced_it_sees_pictures_while_sampling(server: Server) -> None:
    _, messages = asyncio.run(until_over(server, demo(4), uuid.uuid4().hex, takes=True))
    frames = [message for message in messages if isinstance(message, bytes)]
    assert frames
    length = int.from_bytes(frames[0][4:8], "big")
    assert json.loads(frames[0][8 : 8 + length])["node_id"] == "5"
    assert max(Image.open(io.BytesIO(frames[0][8 + length :])).size) <= 512


def test_the_image_flow_gets_its_picture_over_the_socket(server: Server) -> None:
    graph = demo(3)
    graph["7"] = {"class_type": "SaveImageWebsocket", "inputs": {"images": ["6", 0]}}
    _, messages = asyncio.run(until_over(server, graph, uuid.uuid4().hex))
    current, pictures = None, []
    for message in messages:
        if isinstance(message, dict) and message["type"] == "executing":
            current = message["data"]["node"]
        elif isinstance(message, bytes) and current == "7":
            pictures.append(message[8:])
    assert [Image.open(io.BytesIO(data)).size for data in pictures] == [(128, 128)]
