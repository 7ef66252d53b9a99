"""A reader of events who is cut off again and again sees what one sees who is not."""

import random

from aiohttp import StreamReader

from tests.server.conftest import Api, Serving


async def whole(api: Api, job_id: str) -> list[bytes]:
    """Every event of an ended job, as frames."""
    response = await api.get(f"/jobs/{job_id}/events")
    return [frame for frame in (await response.read()).split(b"\n\n") if frame.startswith(b"id: ")]


async def cut(api: Api, job_id: str, chance: random.Random, cuts: int) -> list[bytes]:
    """The same with the connection cut after a few events, `cuts` times."""
    frames: list[bytes] = []
    for attempt in range(cuts + 1):
        headers = {"Last-Event-ID": frames[-1].split(b"\n")[0].removeprefix(b"id: ").decode()} if frames else {}
        response = await api.get(f"/jobs/{job_id}/events", headers=headers)
        wanted = chance.randint(0, 4) if attempt < cuts else 10**6
        while wanted and (frame := await read_frame(response.content)):
            if frame.startswith(b"id: "):
                frames.append(frame)
                wanted -= 1
        response.close()
    return frames


async def read_frame(stream: StreamReader) -> bytes:
    """Up to the next blank line; empty at the end."""
    lines = []
    while line := await stream.readline():
        if line == b"\n":
            return b"".join(lines).rstrip(b"\n")
        lines.append(line)
    return b""


async def test_twenty_cuts_lose_and_repeat_nothing(serving: Serving) -> None:
    graph = {
        "1": {"class_type": "Slow", "inputs": {"seconds": 0.4, "steps": 60, "turn": 0}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    async with serving() as api:
        job_id = await api.queue(graph)
        frames = await cut(api, job_id, random.Random(3), 20)  # begun while the job runs
        assert frames == await whole(api, job_id)
        assert len(frames) > 60
        numbers = [int(frame.split(b"\n")[0].removeprefix(b"id: ")) for frame in frames]
        assert numbers == list(range(1, len(frames) + 1))
