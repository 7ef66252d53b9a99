"""Replays of pictures that other programs made, on stub nodes: what can go wrong behind the run."""

import json
import os
import time
from io import BytesIO

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.server.conftest import Serving
from tests.server.stubs import picture_graph


def carrying(**further: object) -> bytes:
    """A black picture that carries the prompt of a black picture."""
    texts, buffer = PngInfo(), BytesIO()
    for name, value in {"prompt": picture_graph(0), **further}.items():
        texts.add_text(name, json.dumps(value))
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=texts)
    return buffer.getvalue()


async def test_a_picture_that_is_deleted_before_the_verdict_is_a_404_that_says_so(serving: Serving) -> None:
    async with serving() as api:
        answer = await (await api.post("/replay", data=carrying())).json()
        where = f"/replay/{answer['job_id']}"
        before = await api.json(where)
        assert (before["verdict"], [difference["field"] for difference in before["differences"]]) == (
            "identical",
            ["lock"],
        )
        (api.root / "output" / before["image"]["filename"]).unlink()
        response = await api.get(where)
        assert response.status == 404
        assert "no longer there" in await response.text()


async def test_recorded_pictures_of_forgotten_replays_are_deleted(serving: Serving) -> None:
    async with serving(keep_days=2) as api:
        first, second = [(await (await api.post("/replay", data=carrying())).json())["job_id"] for _ in range(2)]
        kept = api.root / "temp/.replays"
        three_days_ago = time.time() - 3 * 86_400
        os.utime(kept / first, (three_days_ago, three_days_ago))
        third = (await (await api.post("/replay", data=carrying())).json())["job_id"]
        assert {path.name for path in kept.iterdir()} == {second, third}


async def test_recorded_pictures_have_a_share_of_the_disk_and_the_newest_stay(serving: Serving) -> None:
    picture = carrying(notes="x" * 60_000)
    async with serving(max_upload_mb=0.1) as api:
        replays = [(await (await api.post("/replay", data=picture)).json())["job_id"] for _ in range(9)]
        kept = list((api.root / "temp/.replays").iterdir())
        assert {path.name for path in kept} == set(replays[-6:])
        assert sum(path.stat().st_size for path in kept) <= 4 * 0.1 * 1024 * 1024
        first = await api.json(f"/replay/{replays[0]}")
        assert first["verdict"] is not None


async def test_the_form_says_which_of_two_workflows_is_queued_and_others_are_refused(serving: Serving) -> None:
    drawing = {"nodes": [{"id": 1, "type": "EmptyImage", "widgets_values": [8, 8, 0]}], "links": []}
    picture = carrying(workflow=drawing)
    async with serving() as api:
        drawing = await api.post("/prompt", data=picture)
        assert drawing.status == 400  # the drawing has no output
        assert (await api.post("/prompt?form=prompt", data=picture)).status == 200
        unheard = await api.post("/replay?form=sketch", data=picture)
        assert unheard.status == 400
        assert "auto, drawing, prompt" in await unheard.text()
