"""`sigmagraph convert`: weight files in another precision, taken apart, or put together."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sigmagraph.engine.cli.options import AsJson, Home, workspace
from sigmagraph.engine.errors import BadValue, WriteFailed
from sigmagraph.engine.units import bytes_in_words

if TYPE_CHECKING:  # torch comes when a file is opened
    from sigmagraph.engine.models.files.convert import ConvertTarget
    from sigmagraph.engine.models.files.read import WeightFile
    from sigmagraph.engine.models.files.write import Outgoing

__all__ = ["convert"]


@dataclass(frozen=True)
class Work:
    """One file to be written."""

    path: Path
    tensors: "list[Outgoing]"
    metadata: Mapping[str, str | int | float]
    target: "ConvertTarget"


def convert(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="A weight file; several to --join.")],
    to: Annotated[
        str | None, typer.Option(help="bf16, fp16, fp32, fp8_scaled, gguf:Q8_0, gguf:Q5_1, gguf:Q4_0 ...")
    ] = None,
    split: Annotated[bool, typer.Option("--split", help="A file for each part of a checkpoint.")] = False,
    join: Annotated[bool, typer.Option("--join", help="One checkpoint of several files.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="The file to write; with --split the models folder.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Write weights in another precision or layout; the files that are read stay as they are.

    Without --to every tensor stays as it is stored, bit for bit.
    """
    from sigmagraph.engine.cli.console import out as answers
    from sigmagraph.engine.cli.console import remark, write_json
    from sigmagraph.engine.models.files.quantisation import readable
    from sigmagraph.engine.models.files.read import open_weights

    if (split and join) or not (split or join or to):
        raise BadValue("convert", "nothing to do" if not join else "--split --join", "--to, --split or --join")
    if len(files) > 1 and not join:
        raise BadValue("convert", f"{len(files)} files", "one file, or several with --join")
    opened = [readable(open_weights(path)) for path in files]
    if out is None or (out.is_dir() and not split):
        out = workspace(home).home / "models" if split else _beside(files[0], to, out)
    works = _split(opened[0], to, out) if split else [_one(opened, to, join, out)]
    read = {state.path.resolve() for file in opened for state in file.states}
    for work in works:
        if work.path.resolve() in read:
            raise WriteFailed(work.path, "is read here, and what is read stays as it is; name another file by --out")
        if work.path.exists() and not force:
            raise WriteFailed(work.path, "is there already; --force replaces it")
    written = []
    for work in works:
        began = time.perf_counter()
        with _ended_as_by_ctrl_c():
            size = _write(work, force)
        seconds = time.perf_counter() - began
        remark(f"{bytes_in_words(size)} in {seconds:.1f} s, {bytes_in_words(size / seconds)}/s{_error(work.target)}")
        written.append({"file": str(work.path), "bytes": size, "seconds": seconds, "error": _loss(work.target)})
        if not as_json:
            answers().print(str(work.path), markup=False, soft_wrap=True)
    if as_json:
        write_json(written)


@contextmanager
def _ended_as_by_ctrl_c() -> "Iterator[None]":
    """Asked to end, or its terminal closed: what is half written goes first."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    numbers = {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]  # as nohup has it
    before = {number: signal.signal(number, leave) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _split(file: "WeightFile", to: str | None, models: Path) -> list[Work]:
    from sigmagraph.engine.cli.console import warn
    from sigmagraph.engine.models.files import pack
    from sigmagraph.engine.models.files.convert import ConvertTarget
    from sigmagraph.engine.models.files.read import WeightFile

    pieces, rest = pack.split(file)
    if rest:
        warn(f"{len(rest)} tensors belong to no part and are left out, {rest[0]} first")
    works = []
    for piece in pieces:
        is_blocks = piece.part in (pack.TRANSFORMER, pack.T5)
        target = ConvertTarget(to if is_blocks or not (to or "").startswith(("gguf:", "fp8")) else None)
        name = file.path.stem if piece.part == pack.TRANSFORMER else f"{file.path.stem}_{piece.part}"
        alone = WeightFile(file.path, piece.weights, piece.metadata, file.states)
        works.append(_work(models / pack.FOLDERS[piece.part] / name, alone, target))
    return works


def _beside(given: Path, to: str | None, folder: Path | None) -> Path:
    """A name for what is made of a file, an index or a folder: beside it, or in `folder`."""
    from sigmagraph.engine.models.files.read import FILE_NAME, INDEX_NAME, SHARD_NAME

    given = given.resolve() if given.is_dir() else given
    found = INDEX_NAME.fullmatch(given.name) or SHARD_NAME.fullmatch(given.name) or FILE_NAME.fullmatch(given.name)
    stem = given.name if given.is_dir() else found[1] if found is not None else given.stem
    return (folder or given.parent) / f"{stem}-{(to or 'joined').removeprefix('gguf:')}"


def _one(files: "list[WeightFile]", to: str | None, joins: bool, out: Path) -> Work:
    from sigmagraph.engine.models.files import pack
    from sigmagraph.engine.models.files.convert import ConvertTarget
    from sigmagraph.engine.models.files.read import WeightFile

    file, target = files[0], ConvertTarget(to)
    if joins:
        weights, metadata = pack.join(files)
        file = WeightFile(file.path, weights, metadata, ())
    return _work(out, file, target)


def _work(path: Path, file: "WeightFile", target: "ConvertTarget") -> Work:
    from sigmagraph.engine.models.files import pack

    suffix = ".gguf" if target.form is not None else ".safetensors"
    path = path if path.suffix in (".gguf", ".safetensors") else path.with_name(path.name + suffix)
    if path.suffix != suffix:
        raise BadValue("--out", str(path), f"a name that ends in {suffix}")
    if target.form is not None:
        tensors, kinds = pack.gguf_of(file, target)
        return Work(path, tensors, kinds, target)
    return Work(path, target.tensors(file.weights), file.metadata, target)


def _write(work: Work, replaces: bool) -> int:
    from sigmagraph.engine.models.files.convert import sizes
    from sigmagraph.engine.models.files.write import write_gguf, write_safetensors

    total, place = sizes(work.tensors), (work.path.parent, [work.path.name])
    with _progress(work.path.name, total) as tell:
        if work.target.form is not None:
            write_gguf(*place, work.tensors, work.metadata, tell, replaces=replaces)
        else:
            texts = {name: str(value) for name, value in work.metadata.items()}
            write_safetensors(*place, work.tensors, texts, tell, replaces=replaces)
    return total


@contextmanager
def _progress(name: str, total: int) -> "Iterator[Callable[[int], None]]":
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from sigmagraph.engine.cli.console import say

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=say(), transient=True) as drawn:
        task = drawn.add_task(name, total=total)
        yield lambda written: drawn.advance(task, written)


def _loss(target: "ConvertTarget") -> dict[str, float | str] | None:
    """What rounding cost, as shares of the weights' rms; None where every tensor stayed as it was."""
    loss = target.loss
    return {"share": loss.share, "worst": loss.worst, "where": loss.where} if loss.squares else None


def _error(target: "ConvertTarget") -> str:
    loss = target.loss
    if not loss.squares:
        return ""
    return f"; error {100 * loss.share:.2g} % of the weights' rms, at most {100 * loss.worst:.2g} % in {loss.where}"
