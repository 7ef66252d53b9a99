"""Pictures past their promised life are deleted from disk, and nothing else is; who asks for one gets a 410."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from yarl import URL

from sigmagraph.engine.server.endpoints.retention import delete_overdue
from tests.server.endpoints.conftest import LARGE, SMALL, Served, serving

LIFE_S = 1000.0


async def made(served: Served, key: Any, **fields: Any) -> tuple[str, URL, list[Path]]:
    """A request's id, the URL of its first picture, and its files."""
    response = await served.client.post(LARGE, json={**SMALL, **fields}, headers=key)
    body = await response.json()
    files = sorted((served.home / "output").rglob(f"published/{body['request_id']}_*"))
    return body["request_id"], URL(body["image"]).relative(), files


async def test_overdue_pictures_of_every_owner_are_deleted_and_gone(tmp_path: Path) -> None:
    now = [time.time()]
    async with serving(tmp_path, clock=lambda: now[0], file_s=LIFE_S, record_s=1e6) as served:
        made_before = [await made(served, await served.key(), batch_size=2) for _ in range(2)]
        key = await served.key() | {"Idempotency-Key": "1"}
        request_id, url, files = await made(served, key)
        now[0] += LIFE_S - 60
        assert await delete_overdue(served.jobs, served.published) == 0
        assert (await served.client.get(url)).status == 200
        now[0] += 120
        assert await delete_overdue(served.jobs, served.published) == 5
        assert not any(path.exists() for _, _, paths in made_before for path in paths)
        assert not files[0].exists()
        for path in (url, f"/v2/requests/{request_id}", f"/v1/requests/{request_id}"):
            response = await served.client.get(path, headers=key)
            body = await response.json()
            assert (response.status, body["code"]) == (410, "gone")
        again = await served.client.post(LARGE, json=SMALL, headers=key)
        assert again.status == 410
        assert (await served.client.get(f"/v2/requests/{request_id}/status", headers=key)).status == 200


async def test_only_pictures_of_requests_are_deleted_and_only_when_no_url_works(tmp_path: Path) -> None:
    async with serving(tmp_path, file_s=LIFE_S) as served:
        folder = tmp_path / "output" / "published"
        request_id, url, files = await made(served, {})
        old = time.time() - LIFE_S - 60
        os.utime(files[0], (old, old))  # written long before its request ended
        orphan = folder / "01234567-89ab-cdef-0123-456789abcdef_00001_.png"
        for path in (orphan, folder / "mine_00001_.png", tmp_path / "output" / f"{request_id}_x.png"):
            path.write_bytes(b"x")
            os.utime(path, (old, old))
        assert await delete_overdue(served.jobs, served.published) == 1
        assert not orphan.exists()
        assert (folder / "mine_00001_.png").exists()
        assert (tmp_path / "output" / f"{request_id}_x.png").exists()
        assert (await served.client.get(url)).status == 200


async def test_an_expired_url_says_so_also_when_its_request_is_forgotten(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        key = await served.key()
        request_id, url, files = await made(served, key)
        other = await served.key()
        files[0].unlink()
        assert (await served.client.get(url)).status == 410
        assert (await served.client.get(url, headers=other)).status == 404
        await served.jobs.delete(request_id)
        assert (await served.client.get(url)).status == 410
        assert (await served.client.get(url.update_query(expires=1))).status == 404


async def test_a_running_server_deletes_by_itself(tmp_path: Path) -> None:
    async with serving(tmp_path, file_s=1.0) as served:
        _, url, files = await made(served, {})
        while files[0].exists():
            await asyncio.sleep(0.02)
        assert (await served.client.get(url)).status == 410
