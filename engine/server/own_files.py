"""The quota of the request's owner: which folders it counts, and where it is asked."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from aiohttp import web

from sigmagraph.engine.jobs.job import LOCAL, OWNERS
from sigmagraph.engine.server.context import OWNER, OwnerFolders
from sigmagraph.engine.server.quota import Bounds, Quota, Room
from sigmagraph.engine.server.settings import Settings
from sigmagraph.engine.server.upload_notes import UploadNotes

__all__ = ["QUOTA", "gone", "noted", "quota_of", "room_of"]

NOTES = ".uploads"
MEBIBYTE = 1024 * 1024
QUOTA: web.AppKey[Quota] = web.AppKey("quota", Quota)


def quota_of(user_dir: Path, folders: Callable[[str], OwnerFolders], settings: Settings) -> Quota:
    """The quota of a server: owners' own files and inputs are counted whole, of other folders what was uploaded."""
    in_all = settings.max_files_in_all_mb
    bounds = Bounds(
        settings.max_files_mb * MEBIBYTE,
        None if in_all is None else in_all * MEBIBYTE,
        settings.keep_free_mb * MEBIBYTE,
    )

    def everybody() -> Iterator[str]:
        for place in (user_dir, folders(LOCAL).input_dir / OWNERS, user_dir / NOTES):
            if place.is_dir():
                yield from (path.name for path in place.iterdir() if path.name[0] != "." and path.name != "default")

    return Quota(
        bounds, lambda owner: (user_dir / owner, folders(owner).input_dir), everybody, UploadNotes(user_dir / NOTES)
    )


def room_of(request: web.Request) -> Room:
    """Room for files of the request's owner."""
    return partial(request.app[QUOTA].room, request[OWNER])


def noted(request: web.Request, path: Path) -> None:
    """A file was uploaded into a folder that jobs write to as well."""
    if request[OWNER] != LOCAL:
        request.app[QUOTA].notes.add(request[OWNER], path)


def gone(request: web.Request, size: int) -> None:
    """A file of so many bytes of the request's owner is gone."""
    request.app[QUOTA].give(request[OWNER], size)
