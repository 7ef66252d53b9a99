"""The pictures of an ended request: found, encoded as it asked, and served under signed URLs with an end."""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.graph.reading.png import is_png
from sigmagraph.engine.jobs.job import Job
from sigmagraph.engine.server.context import OwnerFolders
from sigmagraph.engine.server.decoding.pool import Decoders
from sigmagraph.engine.server.files import resolve

__all__ = ["Gone", "as_text", "encoded", "files_of", "kind_of", "output_urls", "pictures_of", "signature"]

WORDS = (b"tEXt", b"iTXt", b"zTXt", b"eXIf")


class Gone(EngineError):
    """The pictures were there, and are no longer kept."""

    code = "gone"

    def __init__(self, message: str = "The pictures of this request are no longer kept") -> None:
        super().__init__(message)


def files_of(job: Job, places: OwnerFolders) -> list[Path]:
    """The files of the reply node, in batch order, whether they are still there or not."""
    if job.outcome is None:
        return []
    shown = job.outcome.shown_by(str(job.meta.get("reply_node"))).get("images", [])
    roots = {"output": places.output_dir, "temp": places.temp_dir}
    return [resolve(roots[str(file["type"])], str(file["subfolder"]), str(file["filename"])) for file in shown]


def pictures_of(job: Job, places: OwnerFolders) -> list[Path]:
    """The same files, all of them there; raises `Gone`."""
    paths = files_of(job, places)
    if not all(path.is_file() for path in paths):
        raise Gone
    return paths


async def encoded(decoders: Decoders, owner: str, path: Path, kind: str, quality: int) -> bytes:
    """The picture as jpeg, png or webp; raises `Gone`. The graph that made it does not travel along."""
    try:
        data = await asyncio.to_thread(path.read_bytes)
    except FileNotFoundError:
        raise Gone from None
    if kind == "png" and is_png(data):
        return without_words(data)
    _, made = await decoders.make(owner, "encode", (data,), kind=kind, quality=quality)
    with made:
        return made.read()


def without_words(data: bytes) -> bytes:
    """A PNG less its chunks of text; the pixels are not touched."""
    kept, place = [data[:8]], 8
    while place + 8 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] not in WORDS:
            kept.append(data[place:end])
        place = end
    return b"".join(kept)


def as_text(pictures: Sequence[bytes]) -> list[str]:
    """Each picture in base64."""
    return [base64.b64encode(picture).decode("ascii") for picture in pictures]


def output_urls(secret: bytes, job: Job, base: str, count: int, file_s: float) -> list[str]:
    """The URLs of a request's pictures: whoever holds one may fetch it until its end, nobody can make another."""
    expires = int((job.ended_at or job.created_at) + file_s)
    names = [f"{index}.{job.meta.get('format', 'png')}" for index in range(count)]
    proofs = [signature(secret, job.id, name, expires) for name in names]
    pairs = zip(names, proofs, strict=True)
    return [f"{base}/outputs/{job.id}/{name}?expires={expires}&signature={proof}" for name, proof in pairs]


def signature(secret: bytes, job_id: str, name: str, expires: int) -> str:
    """The proof that this server promised this picture until then; it holds when the job's record is gone, too."""
    return hmac.new(secret, f"{job_id}\n{name}\n{expires}".encode(), hashlib.sha256).hexdigest()


def kind_of(meta: Any) -> tuple[str, int]:
    """Format and quality of a request."""
    return str(meta.get("format", "png")), int(meta.get("quality", 95))
