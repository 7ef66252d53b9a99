"""Messages that go out together, as another program's WebSocket client reads them."""

from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestClient, TestServer

from sigmagraph.engine.server.comfy.outbox import TOGETHER_BYTES, Outbox
from sigmagraph.engine.server.comfy.socket import frame

LENGTHS = (0, 1, 125, 126, 127, 65_535, 65_536, 70_000)
MESSAGES: list[str | bytes] = [*("é" * (n // 2) + "x" * (n % 2) for n in LENGTHS), *(b"\xff\0" * n for n in LENGTHS)]


async def _sends(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    assert request.transport is not None
    request.transport.write(b"".join(map(frame, MESSAGES)))
    await ws.send_str("aiohttp's own")
    await ws.close()
    return ws


async def test_many_frames_in_one_write_are_read_one_by_one() -> None:
    app = web.Application()
    app.router.add_get("/", _sends)
    async with TestClient(TestServer(app)) as client, client.ws_connect("/", max_msg_size=0) as ws:
        read = [message async for message in ws]
    assert [message.data for message in read] == [*MESSAGES, "aiohttp's own"]
    assert [message.type for message in read[:9:8]] == [WSMsgType.TEXT, WSMsgType.BINARY]


async def test_what_waits_together_is_taken_together_up_to_a_size() -> None:
    box = Outbox()
    told: list[int] = []
    for at in range(5):
        box.put("x" * (TOGETHER_BYTES // 2), then=lambda at=at: told.append(at))  # type: ignore[misc]
    taken = []
    async for messages in box.drain():
        taken.append((len(messages), list(told)))
        if sum(count for count, _ in taken) == 5:
            break
    assert taken == [(2, []), (2, [0, 1]), (1, [0, 1, 2, 3])]
