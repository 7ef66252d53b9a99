"""`sigmagraph fetch`: official weights and tokenizers from the model hub into the model folders."""

import hashlib
import re
from pathlib import Path
from typing import Annotated

import typer

from sigmagraph.engine.cli.options import AsJson, Home, workspace
from sigmagraph.engine.errors import EngineError, FetchFailed, InvalidWorkflow, UnknownName
from sigmagraph.engine.model_hub import HUB, SETS, Source

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
    wanted = {getattr(problem, "received", None) for problem in problems}
    lines: dict[str, str] = {}
    for name, download in SETS.items():
        for file in (Path(source.target).name for source in download.sources):
            if file in wanted:
                lines.setdefault(file, f"`sigmagraph fetch {name}` brings {file}")
    return list(lines.values())


def bring(source: Source, target: Path, mirror: str | None = None) -> None:
    """Download one file to `target`; it appears there only when it is whole. `mirror`: a server to ask instead."""
    import logging

    from huggingface_hub import errors as hub
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    from sigmagraph.engine.writing import make_folder

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries; our message says it once
    page = f"{(mirror or HUB).rstrip('/')}/{source.repository}"
    drafts = make_folder(target.parent / ".fetch")
    try:
        draft = Path(hf_hub_download(source.repository, source.file, local_dir=drafts, endpoint=mirror))
        told = get_hf_file_metadata(hf_hub_url(source.repository, source.file, endpoint=mirror), endpoint=mirror)
        _require_sum(draft, told.etag, page, source.file)
        draft.replace(target)
    except (hub.GatedRepoError, hub.RepositoryNotFoundError) as error:
        raise FetchFailed(page, "is gated: accept its licence there, then `hf auth login` or set HF_TOKEN") from error
    except hub.LocalEntryNotFoundError as error:
        reason = f"cannot be reached; a {source.file} fetched elsewhere belongs at {target}"
        raise FetchFailed(page, reason) from error
    except (hub.HTTPError, OSError) as error:  # type: ignore[attr-defined]  # the hub's name for its HTTP library's errors
        raise FetchFailed(page, f"{source.file} could not be fetched: {str(error).splitlines()[0]}") from error


def _require_sum(draft: Path, etag: str | None, page: str, file: str) -> None:
    """Of large files the hub's tag is the SHA-256; of small ones it is git's, and the length has been checked."""
    if etag is None or SHA256.fullmatch(etag) is None:
        return
    with draft.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != etag:
        draft.unlink()
        raise FetchFailed(page, f"{file} arrived damaged: its SHA-256 is {found}, the hub says {etag}; fetch it again")
