"""Many connections at once: bodies for packs' routes, rates of a key, and assets that go while they are needed."""

import asyncio
import socket
from io import BytesIO
from typing import Any

import aiohttp
import pytest
from PIL import Image

from sigmagraph.engine.server.transport.body_budget import BUDGET
from tests.server import stubs
from tests.server.conftest import Api, Serving
from tests.server.known_keys import FixedKeys, account
from tests.server.test_packs import ADMIN, served

__all__ = ["served"]

KEYS = FixedKeys({"chief": account("c", ADMIN), "other": account("o", ADMIN), "slow": account("s", ADMIN, 10.0)})
ASSETS = "/api/v2/assets"


def key(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}"}


async def test_a_flood_of_bodies_to_a_packs_route_takes_its_owners_share_and_nobody_elses(
    serving: Serving, served: Any
) -> None:
    async with serving(packs=served, pack_routes=True, keys=KEYS, max_upload_mb=1) as api:
        loop, budget = asyncio.get_running_loop(), api.client.app[BUDGET]  # type: ignore[index]
        head = f"POST /mine/shelf HTTP/1.1\r\nHost: {api.client.host}\r\nAuthorization: Bearer chief\r\n"
        begun = f"{head}Content-Length: 1000000\r\n\r\n".encode() + bytes(200_000)
        held = [socket.create_connection((str(api.client.host), int(api.client.port or 0))) for _ in range(60)]
        try:
            for connection in held:
                connection.setblocking(False)
                await loop.sock_sendall(connection, begun)
            async with asyncio.timeout(10):
                while budget.held["c"] < 0.8 * budget.share:
                    await asyncio.sleep(0.01)
            assert budget.held["c"] <= budget.share  # of 8 MB that came
            answer = await api.client.post("/mine/shelf", data=b"x" * 500_000, headers=key("other"))
            assert (answer.status, len(await answer.text())) == (200, len("shelf:") + 500_000)
        finally:
            for connection in held:
                connection.close()
        async with asyncio.timeout(10):
            while budget.held:
                await asyncio.sleep(0.01)


async def test_a_keys_rate_is_one_over_all_its_connections(serving: Serving) -> None:
    async with serving(keys=KEYS) as api:
        await api.jobs.pause()
        graph = {"prompt": stubs.picture_graph()}

        async def sent(name: str) -> int:
            async with aiohttp.ClientSession() as session:  # a connection of its own
                url = api.client.make_url("/prompt")
                async with session.post(url, json=graph, headers=key(name)) as answer:
                    return answer.status

        statuses = await asyncio.gather(*(sent("slow") for _ in range(40)))
        assert (statuses.count(200), statuses.count(429)) == (10, 30)
        assert await sent("other") == 200


async def asset(api: Api, data: bytes) -> Any:
    form = aiohttp.FormData()
    form.add_field("file", BytesIO(data), filename="photo.png", content_type="image/png")
    async with api.client.post(ASSETS, data=form) as response:
        assert response.status == 201
        return await response.json()


async def test_an_asset_that_is_deleted_while_it_is_read_comes_whole(serving: Serving) -> None:
    data = bytes(range(256)) * 40_000
    async with serving() as api:
        found = await asset(api, data)
        readers = [await api.client.get(f"{ASSETS}/{found['id']}/content") for _ in range(4)]
        first = [await reader.content.readexactly(1000) for reader in readers]
        gone = await asyncio.gather(*(api.client.delete(f"{ASSETS}/{found['id']}") for _ in range(3)))
        assert sorted(answer.status for answer in gone) == [204, 404, 404]
        rest = [await reader.read() for reader in readers]
        assert [one + other for one, other in zip(first, rest, strict=True)] == [data] * 4
        assert (await api.client.get(f"{ASSETS}/{found['id']}/content")).status == 404
        assert (await asset(api, data))["created_new"] is True


@pytest.mark.parametrize("is_deleted", [True, False])
async def test_a_waiting_job_whose_asset_is_deleted_says_which_file_is_missing(
    serving: Serving, is_deleted: bool
) -> None:
    async with serving() as api:
        found = await asset(api, stubs.png(Image.new("RGB", (8, 8))))
        name = f"assets/{found['hash'].removeprefix('blake3:')}.png"
        graph = {
            "1": {"class_type": "LoadImage", "inputs": {"image": name}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
        }
        await api.jobs.pause()
        job = await api.queue(graph)
        if is_deleted:
            assert (await api.client.delete(f"{ASSETS}/{found['id']}")).status == 204
        await api.jobs.resume()
        entry = await api.ended(job)
        kind, said = entry["status"]["messages"][-1]
        if is_deleted:
            assert kind == "execution_error"
            assert name in said["exception_message"]
        else:
            assert kind == "execution_success"
        done = await api.ended(await api.queue(stubs.picture_graph()))
        assert done["status"]["completed"] is True


class SlowKeys(FixedKeys):
    """Keys that take a moment to look up, and count how many were."""

    looked = 0

    async def identify(self, key: str) -> Any:
        self.looked += 1
        await asyncio.sleep(0.05)
        return await super().identify(key)


async def test_keys_guessed_over_many_connections_at_once_are_bounded_like_one_by_one(serving: Serving) -> None:
    keys = SlowKeys({"right": account("ann")})
    async with serving(keys=keys) as api:

        async def guessed(name: str) -> int:
            url = api.client.make_url("/queue")
            async with aiohttp.ClientSession() as session, session.get(url, headers=key(name)) as answer:
                return answer.status

        assert await guessed("right") == 200
        keys.looked = 0
        statuses = await asyncio.gather(*(guessed(f"wrong-{number}") for number in range(150)))
        assert statuses.count(401) == keys.looked
        assert 60 <= keys.looked <= 64  # one more for each second
        assert statuses.count(429) == 150 - keys.looked
        assert await guessed("right") == 200


async def test_one_new_key_on_many_connections_is_one_guess(serving: Serving) -> None:
    async with serving(keys=SlowKeys({"right": account("ann")})) as api:
        answers = await asyncio.gather(*(api.get("/queue", headers=key("right")) for _ in range(100)))
        assert {answer.status for answer in answers} == {200}
