"""Which folders belong to whom: weights are everybody's; inputs, outputs and previews are each owner's own."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.jobs.job import LOCAL, OWNERS

__all__ = ["folders_of", "output_dirs"]

PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


class OwnedFolders(Folders):
    """The folders of one owner; digests of weight files are remembered once for all."""

    def __init__(self, base: Folders, owner: str) -> None:
        inputs, outputs, temporary = (
            _own(folder, owner) for folder in (base.input_dir, base.output_dir, base.temp_dir)
        )
        super().__init__(base.models, inputs, outputs, temporary, base.extra, base.aliases, base.companions)
        self._base = base

    def content_hash(self, path: Path, like: str | None = None) -> str:
        return self._base.content_hash(path, like)


def folders_of(base: Folders) -> Callable[[str], Folders]:
    """A function that gives an owner's folders, made when first asked for."""
    known: dict[str, Folders] = {LOCAL: base}

    def owned(owner: str) -> Folders:
        if owner not in known:
            known[owner] = OwnedFolders(base, owner)
            for place in (known[owner].input_dir, known[owner].output_dir, known[owner].temp_dir):
                place.mkdir(parents=True, exist_ok=True)
        return known[owner]

    return owned


def output_dirs(base: Path) -> list[Path]:
    """Every owner's output folder, that of the server itself first."""
    owned = base / OWNERS
    return [base, *(sorted(owned.iterdir()) if owned.is_dir() else ())]


def _own(place: Path, owner: str) -> Path:
    """The owner's folder inside a shared one; a name that is not a plain word is replaced by its digest.

    The leading dot keeps it out of the listings of a server that is later run without keys.
    """
    name = owner if PLAIN.fullmatch(owner) else hashlib.blake2b(owner.encode(), digest_size=12).hexdigest()
    return place / OWNERS / name
