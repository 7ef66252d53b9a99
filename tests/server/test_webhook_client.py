"""Where webhooks may go."""

import asyncio
import socket
import threading
from typing import Any

import pytest
from aiohttp import ClientError, web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.test_utils import TestServer

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.server.webhook_client import PublicResolver, poster, refuse_private


class Fixed(AbstractResolver):
    """Every name is these addresses."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in self.addresses
        ]

    async def close(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/x",
        "http://[::1]:80/",
        "http://10.1.2.3",
        "http://169.254.169.254/latest",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://localhost:8188/",
        "http://[::ffff:192.168.0.1]/",
    ],
)
def test_addresses_of_private_networks_are_refused(url: str) -> None:
    with pytest.raises(BadValue, match="open internet"):
        refuse_private(url)


@pytest.mark.parametrize("url", ["https://example.com/hook", "http://93.184.216.34/", "http://10.example.com/"])
def test_public_addresses_and_names_pass(url: str) -> None:
    refuse_private(url)


async def test_a_name_is_judged_by_what_it_points_to_when_connecting() -> None:
    mixed = await PublicResolver(Fixed("10.0.0.1", "93.184.216.34")).resolve("example.com", 80)
    assert [address["host"] for address in mixed] == ["93.184.216.34"]
    with pytest.raises(OSError, match="open internet"):
        await PublicResolver(Fixed("127.0.0.1")).resolve("inside.example.com", 80)


async def test_a_redirect_is_an_answer_and_not_followed() -> None:
    seen: list[str] = []

    async def hook(request: web.Request) -> web.Response:
        seen.append(request.path)
        raise web.HTTPFound("/elsewhere")

    application: Any = web.Application()
    application.router.add_post("/{path}", hook)
    async with TestServer(application) as server, poster(allows_private=True) as post:
        assert await post(str(server.make_url("/hook")), b"{}", {"Webhook-Id": "1"}) == 302
    assert seen == ["/hook"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "①②⑦.⓪.⓪.①", "127。0。0。1", "a b@①②⑦.0.0.1", "1②7.1"])
async def test_a_server_on_this_machine_is_not_reached_unless_allowed(host: str) -> None:
    seen: list[str] = []

    async def hook(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response()

    application: Any = web.Application()
    application.router.add_post("/{path}", hook)
    async with TestServer(application, host="127.0.0.1") as server, poster() as post:
        with pytest.raises((BadValue, ClientError, OSError)):
            await post(f"http://{host}:{server.port}/hook", b"{}", {})
    assert seen == []


async def test_names_that_nobody_answers_for_leave_the_common_threads_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()

    def silent(*_: Any, **__: Any) -> Any:
        answers.wait(20)
        raise socket.gaierror("no answer")

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    async with poster() as post:
        asked = [asyncio.create_task(post(f"https://{at}.example/", b"", {})) for at in range(40)]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            assert await asyncio.to_thread(int) == 0
        answers.set()
        assert all(isinstance(found, ClientError) for found in await asyncio.gather(*asked, return_exceptions=True))
