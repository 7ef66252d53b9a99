"""A client for a running server: submit a workflow, follow it, fetch its pictures, replay one. Needs no torch.

`Client` waits; `AsyncClient` has the same methods to be awaited, and its `events` is an asynchronous iterator. What
goes over the wire is made and read by `client_calls`; the two classes only carry it.
"""

import asyncio
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sigmagraph.client_calls import (
    LOCAL,
    Call,
    Event,
    Image,
    Result,
    Workflow,
    checked_timeout,
    checked_url,
    event_call,
    job_path,
    key_headers,
    parsed,
    read_events,
    read_result,
    refusal,
    replay_call,
    submission,
    upload_call,
    view_call,
)
from sigmagraph.engine.errors import BadValue, ServerRefused, ServerUnreachable

if TYPE_CHECKING:
    import aiohttp

__all__ = ["AsyncClient", "Client", "Event", "Image", "Result"]

RETRIES, PAUSE_S, LONGEST_PAUSE_S = 10, 0.5, 5.0  # of a stream that broke off without a word, one after the other
SILENCE_S = 60.0  # the server says something every 15 s


class KeyStays(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to another host, or from https to http, without the key."""

    def redirect_request(self, *told: Any) -> urllib.request.Request | None:
        request, further = told[0], super().redirect_request(*told)
        if further is not None:
            before, after = urlsplit(request.full_url), urlsplit(further.full_url)
            if before.netloc != after.netloc or (before.scheme, after.scheme) == ("https", "http"):
                further.remove_header("Authorization")
        return further


@cache
def _opener() -> urllib.request.OpenerDirector:
    """As `urlopen` has one: made at the first call, with the proxies of the environment then."""
    return urllib.request.build_opener(KeyStays)


class Client:
    """The server at `url`; `key` where it asks for one. One thread at a time."""

    def __init__(self, url: str = LOCAL, key: str | None = None, *, timeout_s: float = 600.0) -> None:
        self._url, self._headers, self._timeout_s = checked_url(url), key_headers(key), checked_timeout(timeout_s)

    def submit(self, workflow: Workflow, changes: Mapping[str, Any] | None = None) -> str:
        """Accept a workflow (a file, a document, or a stored name); the job's id. Changes by "NODE.INPUT"."""
        answer = self._json(submission(workflow, {} if changes is None else changes))
        return str(answer["prompt_id"])

    def events(self, job: str, after: int = 0) -> Iterator[Event]:
        """The job's log behind number `after`, then live, to its end. A connection that breaks is taken up again."""
        failures, reason = 0, "the log ends before the job does"
        while failures <= RETRIES:
            failures += 1
            try:
                with self._open(event_call(job, after), SILENCE_S) as response:
                    for event in read_events(response):
                        after, failures = event.number, 0
                        yield event
                        if event.kind == "Ended":
                            return
            except (ServerUnreachable, OSError, http.client.HTTPException) as error:
                reason = str(getattr(error, "reason", error))
            except ServerRefused as error:
                reason = _of_a_restart(error)
            time.sleep(_pause(failures))
        raise ServerUnreachable(self._url, reason)

    def result(self, job: str) -> Result:
        """Wait for the job's end, and say what came of it."""
        for _ in self.events(job):
            pass
        return read_result(self._json(Call("GET", job_path(job))))

    def run(self, workflow: Workflow, changes: Mapping[str, Any] | None = None) -> Result:
        """Submit and wait; raises `ServerRefused` where it did not go well."""
        return self.result(self.submit(workflow, changes)).or_raise()

    def cancel(self, job: str) -> None:
        """Stop the job, if it is not over: at its next step."""
        self._json(Call("POST", job_path(job, "/cancel")))

    def upload(self, file: str | Path) -> str:
        """Put a picture into the server's input folder; the name that a LoadImage node takes."""
        answer = self._json(upload_call(file))
        return "/".join(part for part in (answer["subfolder"], answer["name"]) if part)

    def download(self, image: Image) -> bytes:
        """The bytes of a picture."""
        with self._open(view_call(image), self._timeout_s) as response:
            return self._read(response)

    def replay(self, picture: str | Path, *, dry_run: bool = False) -> dict[str, Any]:
        """Make a picture again: `verdict` is identical, within tolerance or different, and `differences` say why."""
        found: dict[str, Any] = self._json(replay_call(picture, dry_run))
        while found.get("status"):  # it takes longer than one answer may
            time.sleep(PAUSE_S)
            found = self._json(Call("GET", found["status"]))
        return found

    def workers(self) -> dict[str, Any]:
        """What the server has to work with, and how much it has to do; asks for a key with the scope admin."""
        answer: dict[str, Any] = self._json(Call("GET", "/workers"))
        return answer

    def _json(self, call: Call) -> Any:
        with self._open(call, self._timeout_s) as response:
            return parsed(call, self._read(response))

    def _read(self, response: Any) -> bytes:
        try:
            data: bytes = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ServerUnreachable(self._url, f"the answer broke off: {error}") from error
        return data

    def _open(self, call: Call, timeout_s: float) -> Any:
        headers = {**self._headers, **call.headers}
        request = urllib.request.Request(self._url + call.path, call.body, headers, method=call.method)
        try:
            return _opener().open(request, timeout=timeout_s)
        except urllib.error.HTTPError as error:
            with error:
                raise refusal(call, error.code, error.read()) from None
        except (OSError, http.client.HTTPException) as error:
            raise ServerUnreachable(self._url, str(getattr(error, "reason", error))) from error


class AsyncClient:
    """The same for asyncio; `async with AsyncClient(url) as client`, so that its connections are closed."""

    def __init__(self, url: str = LOCAL, key: str | None = None, *, timeout_s: float = 600.0) -> None:
        self._url, self._headers, self._timeout_s = checked_url(url), key_headers(key), checked_timeout(timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "AsyncClient":
        import aiohttp

        self._session = aiohttp.ClientSession(headers=self._headers)
        return self

    async def __aexit__(self, *failure: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def submit(self, workflow: Workflow, changes: Mapping[str, Any] | None = None) -> str:
        """As `Client.submit`."""
        answer = await self._json(submission(workflow, {} if changes is None else changes))
        return str(answer["prompt_id"])

    async def events(self, job: str, after: int = 0) -> AsyncIterator[Event]:
        """As `Client.events`."""
        failures, reason = 0, "the log ends before the job does"
        while failures <= RETRIES:
            failures += 1
            try:
                async with await self._open(event_call(job, after), SILENCE_S) as response:
                    lines: list[bytes] = []
                    async for line in response.content:
                        lines.append(line)
                        if line.strip():
                            continue
                        for event in read_events(lines):
                            after, failures = event.number, 0
                            yield event
                            if event.kind == "Ended":
                                return
                        lines.clear()
            except _broken() as error:
                reason = str(getattr(error, "reason", error))
            except ServerRefused as error:
                reason = _of_a_restart(error)
            await asyncio.sleep(_pause(failures))
        raise ServerUnreachable(self._url, reason)

    async def result(self, job: str) -> Result:
        """As `Client.result`."""
        async for _ in self.events(job):
            pass
        return read_result(await self._json(Call("GET", job_path(job))))

    async def run(self, workflow: Workflow, changes: Mapping[str, Any] | None = None) -> Result:
        """As `Client.run`."""
        return (await self.result(await self.submit(workflow, changes))).or_raise()

    async def cancel(self, job: str) -> None:
        """As `Client.cancel`."""
        await self._json(Call("POST", job_path(job, "/cancel")))

    async def upload(self, file: str | Path) -> str:
        """As `Client.upload`."""
        answer = await self._json(upload_call(file))
        return "/".join(part for part in (answer["subfolder"], answer["name"]) if part)

    async def download(self, image: Image) -> bytes:
        """As `Client.download`."""
        async with await self._open(view_call(image), self._timeout_s) as response:
            return await self._read(response)

    async def replay(self, picture: str | Path, *, dry_run: bool = False) -> dict[str, Any]:
        """As `Client.replay`."""
        found: dict[str, Any] = await self._json(replay_call(picture, dry_run))
        while found.get("status"):
            await asyncio.sleep(PAUSE_S)
            found = await self._json(Call("GET", found["status"]))
        return found

    async def workers(self) -> dict[str, Any]:
        """What the server has to work with, and how much it has to do; asks for a key with the scope admin."""
        answer: dict[str, Any] = await self._json(Call("GET", "/workers"))
        return answer

    async def _json(self, call: Call) -> Any:
        async with await self._open(call, self._timeout_s) as response:
            return parsed(call, await self._read(response))

    async def _read(self, response: "aiohttp.ClientResponse") -> bytes:
        import aiohttp

        try:
            return await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise ServerUnreachable(self._url, f"the answer broke off: {error}") from error

    async def _open(self, call: Call, timeout_s: float) -> "aiohttp.ClientResponse":
        import aiohttp

        if self._session is None:
            raise BadValue("AsyncClient", "one that is not open", "`async with AsyncClient(url) as client`")
        limits = aiohttp.ClientTimeout(total=None, sock_connect=timeout_s, sock_read=timeout_s)
        try:
            response = await self._session.request(
                call.method, self._url + call.path, data=call.body, headers=call.headers, timeout=limits
            )
        except (aiohttp.ClientError, OSError) as error:
            raise ServerUnreachable(self._url, str(error)) from error
        if response.status >= 400:
            async with response:
                raise refusal(call, response.status, await response.read())
        return response


def _pause(failures: int) -> float:
    """Seconds before the next try, longer after each: in all half a minute, in which a server starts again."""
    return min(PAUSE_S * 2.0 ** max(failures - 1, 0), LONGEST_PAUSE_S)


def _of_a_restart(error: ServerRefused) -> str:
    """The reason of a refusal that passes, while a server stops or a proxy waits for one; any other is raised."""
    if error.status not in (502, 503, 504):
        raise error
    return str(error)


def _broken() -> tuple[type[Exception], ...]:
    """What a connection raises that may be taken up again."""
    import aiohttp

    return (ServerUnreachable, OSError, aiohttp.ClientError)
