"""The client that delivers webhooks: no redirects, short times, and no way into private networks unless allowed.

Every address is checked where its socket is made, however the URL wrote it and whenever its name was looked up.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from aiohttp import AddrInfoType, ClientSession, ClientTimeout, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.jobs.job import Job
from sigmagraph.engine.jobs.webhooks.webhooks import Post, is_public

__all__ = ["poster", "webhook_body"]

LOOKED_UP_AT_ONCE = 8
AS_NUMBERS = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
TIMEOUT = ClientTimeout(total=15.0, connect=5.0)
ALLOWED = "an address of the open internet; private ones are for the operator to allow (private_webhooks)"


@asynccontextmanager
async def poster(*, allows_private: bool = False) -> AsyncIterator[Post]:
    """A function that posts, for as long as the context lasts."""
    names = NamesOnThreads()
    resolver = names if allows_private else PublicResolver(names)
    connector = TCPConnector(resolver=resolver, limit=32, socket_factory=None if allows_private else public_socket)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(names.close)
        session = await stack.enter_async_context(ClientSession(connector=connector, timeout=TIMEOUT))

        async def post(url: str, body: bytes, headers: Mapping[str, str]) -> int:
            if not allows_private:
                refuse_private(url)
            async with session.post(url, data=body, headers=dict(headers), allow_redirects=False) as answer:
                return answer.status

        yield post


def public_socket(info: AddrInfoType) -> socket.socket:
    """The socket for a connection to this address; where nothing else looks, as at `http://①②⑦.⓪.⓪.①/`, this does."""
    family, kind, protocol, _, place = info
    if not is_public(str(place[0])):
        raise OSError(f"{place[0]} is not {ALLOWED}")
    return socket.socket(family, kind, protocol)


def refuse_private(url: str) -> None:
    """Addresses written as numbers never reach the resolver: they are judged here, in words."""
    host = urlsplit(url).hostname or ""
    is_number = host.replace(".", "").isdecimal() or ":" in host or host.startswith("0x")
    if host == "localhost" or (is_number and not is_public(host)):
        raise BadValue("webhook", host, ALLOWED)


class NamesOnThreads(AbstractResolver):
    """Looks names up on a few threads of its own: a name whose server never answers holds a thread for half a minute,
    and the common pool has few, which everything else that may block needs.
    """

    def __init__(self, most: int = LOOKED_UP_AT_ONCE) -> None:
        self._threads = ThreadPoolExecutor(most, "webhook names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        look_up = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        return [
            ResolveResult(
                hostname=host, host=str(place[0]), port=int(place[1]), family=kind, proto=protocol, flags=AS_NUMBERS
            )
            for kind, _, protocol, _, place in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class PublicResolver(AbstractResolver):
    """Looks names up and keeps the public addresses only."""

    def __init__(self, inner: AbstractResolver | None = None) -> None:
        self._inner = inner or NamesOnThreads()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = [address for address in await self._inner.resolve(host, port, family) if is_public(address["host"])]
        if not found:
            raise OSError(f"{host} is not {ALLOWED}")
        return found

    async def close(self) -> None:
        await self._inner.close()


def webhook_body(job: Job) -> dict[str, Any]:
    """What a webhook says about a job."""
    failure = job.failure
    return {
        "job_id": job.id,
        "state": str(job.state),
        "created_at": job.created_at,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "attempt": job.attempt,
        "meta": {name: value for name, value in job.meta.items() if name in ("workflow", "version", "client_id")},
        "outputs": job.outcome.outputs if job.outcome is not None else {},
        "error": None if failure is None else {"code": failure.code, "message": failure.message},
    }
