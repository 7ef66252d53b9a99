"""Textual inversion: `embedding:name` in a prompt stands for learned vectors from a file (Gal 2022, arXiv:2208.01618).

Finds mentions in a text and files in folders. Which vectors fit an encoder is decided where they are encoded.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sigmagraph.engine.errors import CorruptFile, RefusedFile
from sigmagraph.engine.models.files.read import open_weights

FOLDER = "embeddings"
MARK = "embedding:"
SUFFIXES = (".safetensors", ".pt", ".bin")
WHOLE_FILE_KEYS = ("string_to_param", "emb_params")


@dataclass(frozen=True, eq=False, slots=True)
class Vector:
    """One learned token: values [D]."""

    values: Tensor


Vectors = Sequence[Vector]
Finder = Callable[[str], Vectors | None]


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The embedding files below some folders, by name: file name without suffix, with or without subfolders."""

    folders: Sequence[Path] = ()

    @classmethod
    def beside(cls, paths: Sequence[Path]) -> "Embeddings":
        """Those in the `embeddings` folder next to (or one above) the folders of `paths`."""
        around = [ancestor for path in paths for ancestor in (path.parent.parent, path.parent.parent.parent)]
        return cls(tuple(dict.fromkeys(ancestor / FOLDER for ancestor in around)))

    def looking_in(self, folders: Sequence[Path]) -> "Embeddings":
        """The same, and after all others these folders."""
        return Embeddings(tuple(dict.fromkeys([*self.folders, *folders])))

    def finder(self, encoder: str) -> Finder:
        """The look-up of names for `clip_l`, `clip_g` or `t5xxl`; it gives None for a name without a file."""

        def find(name: str) -> Vectors | None:
            path = self._path(name)
            return None if path is None else vectors_of(path, encoder)

        return find

    def _path(self, name: str) -> Path | None:
        for folder in self.folders:
            for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
                whole = path.relative_to(folder).as_posix()
                if path.suffix in SUFFIXES and any(f"/{one}".endswith(f"/{name}") for one in _names(whole)):
                    return path
        return None


def _names(relative: str) -> tuple[str, str]:
    return relative, relative.rpartition(".")[0]


def vectors_of(path: Path, encoder: str) -> Vectors:
    """The rows that a file holds for an encoder: under its name, else under a general key, else its first tensor."""
    if path.suffix != SUFFIXES[0]:
        way_out = "take it, or save its tensor, as safetensors"
        raise RefusedFile(path, f"embeddings are read from safetensors files only, not from pickles; {way_out}")
    weights = open_weights(path).weights
    key = next((key for key in (encoder, *WHOLE_FILE_KEYS) if key in weights), next(iter(weights), None))
    if key is None:
        return ()
    if not weights[key].shape or 0 in weights[key].shape:
        raise CorruptFile(path, f"its {key} is of shape {list(weights[key].shape)}; vectors were expected, a row each")
    rows = weights[key].read().to(torch.float32, copy=True)
    return tuple(Vector(row) for row in rows.reshape(-1, rows.shape[-1]))


def pieces(text: str, find: Finder) -> list[str | Vectors]:
    """`text` cut at its mentions: stretches of plain text and the vectors in between.

    A mention stands at the start or after a space or newline. Its name ends at whitespace, without commas at the end. A
    name without a file is left out: the rest of its stretch is text.
    """
    first, *mentioned = re.split(rf"[ \n]{MARK}", text)
    found: list[str | Vectors] = []
    for stretch in ([first.removeprefix(MARK)] if first.startswith(MARK) else []) + mentioned:
        vectors, rest = _resolved(stretch, find)
        found += [part for part in (vectors, rest) if part]
    return found if first.startswith(MARK) or not first else [first, *found]


def _resolved(stretch: str, find: Finder) -> tuple[Vectors | None, str]:
    """The vectors that the first word of `stretch` names, and the text behind it."""
    name, *words = stretch.split() or [""]
    rest = " ".join(words)
    vectors, bare = find(name) if name else None, name.strip(",")
    if vectors is None and bare and bare != name:
        return find(bare), f"{name[len(bare) :]} {rest}"
    return vectors, rest
