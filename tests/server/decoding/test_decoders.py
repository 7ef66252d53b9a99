"""Pictures of strangers: none takes long, none takes all, none takes the server with it."""

import asyncio
import io
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sigmagraph.engine.errors import UnreadableImage
from sigmagraph.engine.server.decoding.pool import DECODERS, Decoders, Limits
from tests.server.conftest import Serving
from tests.server.decoding.hostile_pictures import flat_png, many_scans

PREVIEW: dict[str, Any] = {"kind": "webp", "quality": 75, "keep_alpha": True}


@asynccontextmanager
async def decoders(folder: Path, **limits: Any) -> AsyncIterator[Decoders]:
    pool = Decoders(folder / "large", Limits(**({"max_pixels": 1 << 27, "processes": 2} | limits)))
    try:
        yield pool
    finally:
        await pool.close()
    assert not (folder / "large").exists()


def png(size: tuple[int, int] = (64, 48), mode: str = "RGBA") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, (10, 20, 30, 128)[: len(mode)]).save(buffer, "PNG")
    return buffer.getvalue()


def noise(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("RGB", (side, side), os.urandom(side * side * 3)).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


async def test_a_picture_that_computes_for_ever_is_given_up_while_others_are_served(tmp_path: Path) -> None:
    hostile = many_scans(4000, 2000)
    assert len(hostile) < 1_000_000
    async with decoders(tmp_path, cpu_s=1.0) as pool:
        began = time.monotonic()
        attack = [asyncio.create_task(pool.make("mallory", "preview", (hostile,), **PREVIEW)) for _ in range(3)]
        await asyncio.sleep(0.5)
        for _ in range(4):
            asked = time.monotonic()
            _, made = await pool.make("alice", "preview", (png(),), **PREVIEW)
            assert Image.open(made).size == (64, 48)
            assert time.monotonic() - asked < 5.0  # mostly the start of a process, on a busy machine
        assert not all(task.done() for task in attack)
        for task in attack:
            with pytest.raises(UnreadableImage, match="takes more than 1 s to decode"):
                await task
        assert time.monotonic() - began < 40


async def test_a_large_preview_is_made_small_and_its_memory_goes_back(tmp_path: Path) -> None:
    async with decoders(tmp_path) as pool:
        for data in (flat_png(6000), flat_png(5000, 6)):
            _, made = await pool.make("a", "preview", (data,), **PREVIEW)
            image = Image.open(made)
            assert image.size in ((3000, 3000), (2500, 2500))
            assert all(value <= 2 for value in image.getextrema()[0])
        assert pool._free == []
        await pool.make("a", "preview", (png(),), **PREVIEW)
        assert len(pool._free) == 1


async def test_a_process_that_died_while_it_waited_is_no_pictures_fault(tmp_path: Path) -> None:
    async with decoders(tmp_path) as pool:
        await pool.make("a", "preview", (png(),), **PREVIEW)
        [idle] = pool._free
        idle.process.kill()
        await idle.process.wait()
        _, made = await pool.make("a", "preview", (png(),), **PREVIEW)
        assert Image.open(made).size == (64, 48)


async def test_a_reduced_preview_is_the_mean_of_its_pixels(tmp_path: Path) -> None:
    stripes = Image.new("L", (10_000, 1700))
    stripes.paste(255, (0, 850, 10_000, 1700))
    buffer = io.BytesIO()
    stripes.save(buffer, "PNG")
    async with decoders(tmp_path) as pool:
        _, made = await pool.make("a", "preview", (buffer.getvalue(),), kind="jpeg", quality=100, keep_alpha=False)
    image = Image.open(made)
    assert image.size == (5000, 850)
    assert [image.getpixel((7, y)) for y in (0, 424, 425, 849)] == [(0,) * 3, (0,) * 3, (255,) * 3, (255,) * 3]


async def test_an_answer_of_any_size_comes_whole_and_leaves_no_file(tmp_path: Path) -> None:
    data = noise(1200)
    async with decoders(tmp_path) as pool:
        _, made = await pool.make("a", "without_alpha", (data,))
        with made:
            content = made.read()
        assert len(content) > 1 << 20
        assert Image.open(io.BytesIO(content)).tobytes() == Image.open(io.BytesIO(data)).tobytes()
        assert list((tmp_path / "large").iterdir()) == []


async def test_a_decoder_that_is_killed_costs_one_request(tmp_path: Path) -> None:
    async with decoders(tmp_path, cpu_s=60.0) as pool:
        lost = asyncio.create_task(pool.make("a", "preview", (many_scans(4000, 2000),), **PREVIEW))
        while not (children := _decoders_of(os.getpid())):
            await asyncio.sleep(0.05)
        variables = Path(f"/proc/{children[0]}/environ").read_bytes().split(b"\0")
        assert {variable.partition(b"=")[0] for variable in variables if variable} <= {
            *(name.encode() for name in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "PYTHONPATH")),
        }
        os.kill(children[0], 11)
        with pytest.raises(UnreadableImage, match="its decoder ended with -11"):
            await lost
        _, made = await pool.make("a", "preview", (png(),), **PREVIEW)
        assert Image.open(made).format == "WEBP"


def _decoders_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(process) for process in children if b"decoding.child" in Path(f"/proc/{process}/cmdline").read_bytes()]


async def test_more_than_may_wait_is_refused_with_a_time_to_come_back(serving: Serving) -> None:
    async with serving() as api:
        (api.root / "output/x.png").write_bytes(png())
        replies = await asyncio.gather(*(api.get("/view?filename=x.png&preview=webp") for _ in range(150)))
        statuses = {reply.status for reply in replies}
        assert statuses == {200, 503}
        refused = next(reply for reply in replies if reply.status == 503)
        assert refused.headers["Retry-After"] == "5"
        assert (await refused.json())["error"]["type"] == "overloaded"
        assert (await api.get("/view?filename=x.png&preview=webp")).status == 200


async def test_nobody_decodes_for_a_client_that_went_away(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, goes_on = list[str](), asyncio.Event()

    async def made(pool: Decoders, child: Any, owner: str, operation: str, sources: list[Path], options: Any) -> Any:
        decoded.append(sources[0].name)
        await goes_on.wait()
        pool._keep(child, is_whole=True)
        return {}, io.BytesIO(png())

    monkeypatch.setattr(Decoders, "_made", made)
    async with serving() as api:
        for name in ("gone.png", "here.png"):
            (api.root / "output" / name).write_bytes(png())
        pool, server = api.client.app[DECODERS], api.client.server.runner.server  # type: ignore[index, attr-defined]
        server.handler_cancellation = False  # as `serve` has it: aiohttp's test server has it otherwise
        running = pool.limits.processes - 1  # one is left to others
        gone = [asyncio.create_task(api.get("/view?filename=gone.png&preview=webp")) for _ in range(running + 20)]
        while len(decoded) < running or pool._shares.waiting() < 20:
            await asyncio.sleep(0.01)
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        while any(each.transport is not None for each in server.connections):  # until the server has heard of it
            await asyncio.sleep(0.01)
        here = asyncio.create_task(api.get("/view?filename=here.png&preview=webp"))
        while pool._shares.waiting() < 21:
            await asyncio.sleep(0.01)
        goes_on.set()
        assert (await here).status == 200
        assert decoded == ["gone.png"] * running + ["here.png"]


def test_the_server_itself_has_no_code_that_decodes_pictures() -> None:
    code = "import sys, sigmagraph.engine.compose.serving; print('PIL' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
