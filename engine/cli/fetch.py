"""`sigmagraph fetch`: official weights and tokenizers from the model hub into the model folders."""

from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from sigmagraph.engine.cli.options import AsJson, Home, workspace
from sigmagraph.engine.errors import EngineError, FetchFailed, InvalidWorkflow, UnknownName

__all__ = ["SETS", "fetch"]


class Source(NamedTuple):
    """One file on the hub, and where it goes below models/."""

    repository: str
    file: str
    target: str


class Download(NamedTuple):
    """Files that are fetched together."""

    summary: str
    sources: tuple[Source, ...]


LARGE = "stabilityai/stable-diffusion-3.5-large"
TOKENIZERS = (
    Source("openai/clip-vit-large-patch14", "tokenizer.json", "tokenizers/clip.tokenizer.json"),
    Source("google-t5/t5-small", "tokenizer.json", "tokenizers/t5xxl.tokenizer.json"),  # one vocabulary for all T5
)


def _encoders(t5: str) -> tuple[Source, ...]:
    names = ("clip_l.safetensors", "clip_g.safetensors", t5)
    return tuple(Source(LARGE, f"text_encoders/{name}", f"text_encoders/{name}") for name in names)


def _model(repository: str, file: str) -> tuple[Source, ...]:
    return (Source(repository, file, f"checkpoints/{file}"), *TOKENIZERS)


SETS: dict[str, Download] = {
    "tokenizers": Download("the vocabularies of CLIP and T5 (3 MB, no licence to accept)", TOKENIZERS),
    "text-encoders": Download("CLIP-L, bigG and T5-XXL in fp16 (11.4 GB)", _encoders("t5xxl_fp16.safetensors")),
    "text-encoders-fp8": Download("the same with T5-XXL in fp8 (6.5 GB)", _encoders("t5xxl_fp8_e4m3fn.safetensors")),
    "sd3.5-large": Download("SD3.5 Large with its VAE (16.5 GB)", _model(LARGE, "sd3.5_large.safetensors")),
    "sd3.5-large-turbo": Download(
        "SD3.5 Large Turbo with its VAE (16.5 GB)", _model(f"{LARGE}-turbo", "sd3.5_large_turbo.safetensors")
    ),
    "sd3.5-medium": Download(
        "SD3.5 Medium with its VAE (5.1 GB)",
        _model("stabilityai/stable-diffusion-3.5-medium", "sd3.5_medium.safetensors"),
    ),
}


def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="What to fetch; none lists it.")
    ] = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Bring official weights and tokenizers into models/.

    The weights are gated: accept their licence on the hub, then give a token by `hf auth login` or HF_TOKEN.
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
        bring(source, target)
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


def bring(source: Source, target: Path) -> None:
    """Download one file to `target`; it appears there only when it is whole."""
    import logging

    from huggingface_hub import errors as hub
    from huggingface_hub import hf_hub_download

    from sigmagraph.engine.writing import make_folder

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries; our message says it once
    page = f"https://huggingface.co/{source.repository}"
    drafts = make_folder(target.parent / ".fetch")
    try:
        draft = Path(hf_hub_download(source.repository, source.file, local_dir=drafts))
        draft.replace(target)
    except (hub.GatedRepoError, hub.RepositoryNotFoundError) as error:
        raise FetchFailed(page, "is gated: accept its licence there, then `hf auth login` or set HF_TOKEN") from error
    except hub.LocalEntryNotFoundError as error:
        reason = f"cannot be reached; a {source.file} fetched elsewhere belongs at {target}"
        raise FetchFailed(page, reason) from error
    except (hub.HTTPError, OSError) as error:  # type: ignore[attr-defined]  # the hub's name for its HTTP library's errors
        raise FetchFailed(page, f"{source.file} could not be fetched: {str(error).splitlines()[0]}") from error
