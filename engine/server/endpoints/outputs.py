"""The pictures of an ended request: found, encoded as it asked, and served under signed URLs with an end."""

import base64
import hashlib
import hmac
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.graph.png import is_png
from engine.jobs.job import Job
from engine.server.context import Places
from engine.server.files import resolve
from engine.server.pictures import opened

__all__ = ["as_text", "encoded", "output_path", "pictures_of", "signature"]

WORDS = (b"tEXt", b"iTXt", b"zTXt", b"eXIf")
MAX_PIXELS = 128 * 1024 * 1024


def pictures_of(job: Job, places: Places) -> list[Path]:
    """The files of the reply node, in batch order; those that were removed since are left out."""
    if job.outcome is None:
        return []
    shown = job.outcome.outputs.get(str(job.meta.get("reply_node")), {}).get("images", [])
    roots = {"output": places.output_dir, "temp": places.temp_dir}
    paths = [resolve(roots[str(each["type"])], str(each["subfolder"]), str(each["filename"])) for each in shown]
    return [path for path in paths if path.is_file()]


def encoded(path: Path, kind: str, quality: int) -> bytes:
    """The picture as jpeg, png or webp. The graph that made it does not travel along."""
    data = path.read_bytes()
    if kind == "png" and is_png(data):
        return without_words(data)
    image = opened(io.BytesIO(data), MAX_PIXELS)
    buffer = io.BytesIO()
    if kind == "png":
        image.save(buffer, "PNG")
    else:
        image.convert("RGB").save(buffer, kind.upper(), quality=quality)
    return buffer.getvalue()


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
    return [base64.b64encode(each).decode("ascii") for each in pictures]


def output_path(secret: bytes, job: Job, index: int, ends_at: float) -> str:
    """The path of one picture: whoever holds it may fetch it until its end, nobody can make another."""
    name = f"{index}.{job.meta.get('format', 'png')}"
    expires = int(ends_at)
    return f"/outputs/{job.id}/{name}?expires={expires}&signature={signature(secret, job, name, expires)}"


def signature(secret: bytes, job: Job, name: str, expires: int) -> str:
    """The proof that this server promised this picture to its owner until then."""
    text = f"{job.owner}\n{job.id}\n{name}\n{expires}"
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()


def kind_of(meta: Any) -> tuple[str, int]:
    """Format and quality of a request."""
    return str(meta.get("format", "png")), int(meta.get("quality", 95))
