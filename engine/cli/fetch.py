"""`sigmagraph fetch`: official weights and tokenizers from the model hub into the model folders."""

import glob
import hashlib
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from sigmagraph.engine.cli.options import AsJson, Home, workspace
from sigmagraph.engine.errors import EngineError, FetchFailed, InvalidWorkflow, UnknownName
from sigmagraph.engine.model_hub import HUB, SETS, Source
from sigmagraph.engine.units import bytes_in_words
from sigmagraph.engine.writing import locks, make_folder

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

__all__ = ["SETS", "fetch"]

SHA256 = re.compile(r"[0-9a-f]{64}")


def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="What to fetch; none lists it.")
    ] = None,
    mirror: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A server with the hub's interface to ask instead.", show_default=False),
    ] = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Bring official weights and tokenizers into models/.

    The weights are gated: accept their licence on the hub, then give a token by `hf auth login` or HF_TOKEN. A
    download that broke off goes on where it stopped, and what arrives is checked against the hub's SHA-256.
    """
    from sigmagraph.engine.cli.console import columns, out, remark, write_json

    if not names and as_json:
        write_json({name: download.summary for name, download in SETS.items()})
        return
    if not names:
        table = columns("name", "brings")
        for name, download in SETS.items():
            table.add_row(name, download.summary)
        out().print(table)
        return
    for name in names:
        if name not in SETS:
            raise UnknownName("download", name, SETS)
    models, targets = workspace(home).home / "models", []
    for source in dict.fromkeys(source for name in names for source in SETS[name].sources):
        target = models / source.target
        targets.append(str(target))
        if target.exists():
            remark(f"{target} is there already")
            continue
        remark(f"{source.repository}: {source.file}")
        bring(source, target, mirror)
        if not as_json:
            out().print(str(target), markup=False, soft_wrap=True)
    if as_json:
        write_json(targets)


def advice(error: EngineError) -> list[str]:
    """For each official file that a workflow misses, the command that brings it."""
    problems = error.problems if isinstance(error, InvalidWorkflow) else ()
    given = (getattr(problem, "received", None) for problem in problems)
    wanted = {value for value in given if isinstance(value, str)}
    lines: dict[str, str] = {}
    for name, download in SETS.items():
        for file in (Path(source.target).name for source in download.sources):
            if file in wanted:
                lines.setdefault(file, f"`sigmagraph fetch {name}` brings {file}")
    return list(lines.values())


def bring(source: Source, target: Path, mirror: str | None = None) -> None:
    """Download one file to `target`; it appears there only when it is whole. `mirror`: a server to ask instead.

    What has arrived stays beside it, below `.fetch`, and is gone on from, also in another process.
    """
    import logging

    from huggingface_hub import errors as hub
    from huggingface_hub import hf_hub_url

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries; our message says it once
    page = f"{(mirror or HUB).rstrip('/')}/{source.repository}"
    url = hf_hub_url(source.repository, source.file, endpoint=mirror)
    try:
        told = _told(url, mirror, page, source.file, target)
        named = hashlib.sha256(f"{source.repository}/{source.file}@{told.etag}".encode()).hexdigest()[:16]
        part = make_folder(target.parent / ".fetch") / f"{target.name}.{named}.part"
        with part.open("ab") as file:
            _take(file, target, page)
            if not target.exists():
                _download(url, file, told.size, page, source.file)
                if sys.platform == "win32":  # where no open file can be renamed or removed, and none is locked
                    file.close()
                _require_sum(part, told.etag, page, source.file)
                part.replace(target)  # while the lock is held: nobody else writes to it by then
        for old in part.parent.glob(f"{glob.escape(target.name)}.*.part"):  # this one, and what the hub had before
            old.unlink(missing_ok=True)
    except (hub.HTTPError, OSError, ValueError) as error:  # type: ignore[attr-defined]  # the hub's name for its HTTP library's errors
        raise FetchFailed(page, f"{source.file} could not be fetched: {str(error).splitlines()[0]}") from error


def _told(url: str, mirror: str | None, page: str, file: str, target: Path) -> "HfFileMetadata":
    """Size and tag of a file. Raises `FetchFailed` where there is no such file, or no answer."""
    from huggingface_hub import errors as hub
    from huggingface_hub import get_hf_file_metadata

    try:
        told = get_hf_file_metadata(url, endpoint=mirror)
    except (hub.GatedRepoError, hub.RepositoryNotFoundError) as error:
        raise FetchFailed(page, "is gated: accept its licence there, then `hf auth login` or set HF_TOKEN") from error
    except hub.HfHubHTTPError:
        raise
    except (hub.HTTPError, hub.OfflineModeIsEnabled) as error:  # type: ignore[attr-defined]  # as above
        raise FetchFailed(page, f"cannot be reached; a {file} fetched elsewhere belongs at {target}") from error
    if told.etag is None:
        raise FetchFailed(page, f"{file} has no tag there: this server does not answer as the hub does")
    return told


def _take(file: BinaryIO, target: Path, page: str) -> None:
    """Raise `FetchFailed` where another process writes this file."""
    if sys.platform != "win32" and not locks(file):
        raise FetchFailed(page, f"{target.name} is being fetched by another process already")


def _download(url: str, file: BinaryIO, size: int | None, page: str, name: str) -> None:
    """The rest of a file, behind what is there of it."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented there

    if (there := file.tell()) > (size if size is not None else there):
        there = file.truncate(0)
    free = shutil.disk_usage(Path(file.name).parent).free
    if size is not None and size - there > free:
        needed, left = bytes_in_words(size - there), bytes_in_words(free)
        raise FetchFailed(page, f"{name} takes {needed} more, and {left} are free at {Path(file.name).parent}")
    http_get(url, file, resume_size=there, headers=build_hf_headers(), expected_size=size)
    file.flush()


def _require_sum(draft: Path, etag: str | None, page: str, file: str) -> None:
    """Of large files the hub's tag is the SHA-256; of small ones it is git's, and the length has been checked."""
    if etag is None or SHA256.fullmatch(etag) is None:
        return
    with draft.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != etag:
        draft.unlink()
        raise FetchFailed(page, f"{file} arrived damaged: its SHA-256 is {found}, the hub says {etag}; fetch it again")
