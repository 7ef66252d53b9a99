"""What handlers may reach: typed keys into the application and the request, filled in by `app.make_app`."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from multidict import MultiDictProxy

from sigmagraph.engine.errors import BadDocument
from sigmagraph.engine.graph.document import parse_json
from sigmagraph.engine.graph.node import Services
from sigmagraph.engine.jobs.protocol import Jobs
from sigmagraph.engine.server.settings import Settings

__all__ = [
    "FOLDERS",
    "JOBS",
    "NO_FORM",
    "OWNER",
    "SETTINGS",
    "USER_DIR",
    "WORKFLOWS",
    "OwnerFolders",
    "compact",
    "empty",
    "folders",
    "form_body",
    "json_body",
    "object_body",
    "reply",
]


class OwnerFolders(Services, Protocol):
    """The folders of one owner: what `sigmagraph.engine.execution.folders.Folders` is."""

    @property
    def input_dir(self) -> Path:
        """Where uploads go."""

    def directories(self, folder: str) -> list[Path]:
        """Where the files of a model folder may lie."""


JOBS: web.AppKey[Jobs] = web.AppKey("jobs", Jobs)
SETTINGS: web.AppKey[Settings] = web.AppKey("settings", Settings)
FOLDERS: web.AppKey[Callable[[str], OwnerFolders]] = web.AppKey("folders")
USER_DIR: web.AppKey[Path] = web.AppKey("user_dir", Path)
NO_FORM = (ValueError, AssertionError, KeyError, HttpProcessingError)
"""What aiohttp raises for a body that is no form."""
WORKFLOWS: web.AppKey[Path] = web.AppKey("workflows", Path)
OWNER: web.RequestKey[str] = web.RequestKey("owner", str)


def folders(request: web.Request) -> OwnerFolders:
    """The folders of the request's owner."""
    return request.app[FOLDERS](request[OWNER])


async def json_body(request: web.Request) -> Any:
    """The body as JSON whatever its content type says; `None` for no body at all, 400 for anything else."""
    data = await request.read()
    if not data.strip():
        return None
    try:
        return parse_json(data)
    except BadDocument as error:
        raise web.HTTPBadRequest(text=f"the body is not JSON that is read here: {error}") from error


async def form_body(request: web.Request) -> "MultiDictProxy[str | bytearray | bytes | web.FileField]":
    """The body as a form, 400 for what is none."""
    try:
        return await request.post()
    except NO_FORM as error:
        raise web.HTTPBadRequest(text=f"the body is no form: {error}") from error


async def object_body(request: web.Request) -> Mapping[str, Any]:
    """The body as a JSON object, empty where there is none; anything else is a 400."""
    body = await json_body(request)
    if body is None:
        return {}
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="the body is not a JSON object")
    return body


def reply(value: Any, status: int = 200) -> web.Response:
    """A JSON answer in compact form."""
    return web.Response(text=compact(value), status=status, content_type="application/json", charset="utf-8")


def compact(value: Any) -> str:
    """JSON without blanks; what JSON cannot hold becomes its text."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str)


def empty(status: int = 200) -> web.Response:
    """An answer without body and without content type."""
    response = web.Response(status=status)
    response.headers.pop("Content-Type", None)
    return response
