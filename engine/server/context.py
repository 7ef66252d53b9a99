"""What handlers may reach: typed keys into the application and the request, filled in by `app.make_app`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

from sigmagraph.engine.graph.node import Services
from sigmagraph.engine.jobs.protocol import Jobs
from sigmagraph.engine.json_text import compact
from sigmagraph.engine.server.settings import Settings

__all__ = [
    "FOLDERS",
    "JOBS",
    "OPERATIONS",
    "OWNER",
    "SCHEMAS",
    "SETTINGS",
    "USER_DIR",
    "WORKFLOWS",
    "OwnerFolders",
    "compact",
    "empty",
    "folders",
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
OPERATIONS: web.AppKey[Mapping[str, dict[str, Any]]] = web.AppKey("operations")
"""What the OpenAPI document says of `VERB path` beside what it says of every route."""
SCHEMAS: web.AppKey[Mapping[str, Any]] = web.AppKey("schemas")
"""The records that these speak of, by name."""
USER_DIR: web.AppKey[Path] = web.AppKey("user_dir", Path)
WORKFLOWS: web.AppKey[Path] = web.AppKey("workflows", Path)
OWNER: web.RequestKey[str] = web.RequestKey("owner", str)


def folders(request: web.Request) -> OwnerFolders:
    """The folders of the request's owner."""
    return request.app[FOLDERS](request[OWNER])


def reply(value: Any, status: int = 200) -> web.Response:
    """A JSON answer in compact form."""
    return web.Response(body=compact(value).encode(), status=status, content_type="application/json", charset="utf-8")


def empty(status: int = 200) -> web.Response:
    """An answer without body and without content type."""
    response = web.Response(status=status)
    response.headers.pop("Content-Type", None)
    return response
