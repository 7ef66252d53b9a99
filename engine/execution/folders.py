"""The concrete `Services`: where models, inputs and outputs lie. Names from clients never leave their folder."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from sigmagraph.engine.errors import BadValue, MissingFile, UnknownName
from sigmagraph.engine.execution.cache.checkpoint import Checkpoints, KeptWork
from sigmagraph.engine.execution.digests import Digests
from sigmagraph.engine.graph.graph import GraphNode
from sigmagraph.engine.graph.problems import Problem

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
WEIGHTS = frozenset({".safetensors", ".sft", ".gguf", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl"})
GGUF = frozenset({".gguf"})
LATENTS = frozenset({".latent"})
DIGESTS = ".digests.json"  # beside the model folders, where no client reads or writes
PLACES = ("input", "output", "temp")
HOLD_ENCODERS = frozenset(("checkpoints", "text_encoders"))  # whose files may need others beside them: tokenizers
TWINS = {
    "diffusion_models": ("unet",),
    "unet": ("diffusion_models",),
    "text_encoders": ("clip",),
    "clip": ("text_encoders",),
    "unet_gguf": ("diffusion_models", "unet"),
    "clip_gguf": ("text_encoders", "clip"),
}


@dataclass
class Folders:
    """Model folders by name, and the input, output and temporary directory.

    A folder name is a directory below `models`, then those that `extra` lists; a list that names ours, too, says where
    it stands. `input`, `output` and `temp` are the three working directories; `latents` are the latent files of
    `input`. A name may carry its folder, as the editor writes it: `picture.png [output]`.
    `aliases` gives files further names, by folder; a file that is there under its own name wins. `companions` tells
    which files a graph's files need beside them and do not find.
    """

    models: Path
    input_dir: Path
    output_dir: Path
    temp_dir: Path
    extra: Mapping[str, list[Path]] = field(default_factory=dict)
    aliases: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)
    companions: "Companions" = lambda folders, vertices: ()

    def __post_init__(self) -> None:
        self._digests = Digests(self.models.parent / DIGESTS)
        self._checkpoints = Checkpoints(self.temp_dir / ".unfinished")

    def directories(self, folder: str) -> list[Path]:
        """Where the files of a folder may lie, the first match wins."""
        if folder == "latents":
            return [self.input_dir]
        if folder in PLACES:
            return [{"input": self.input_dir, "output": self.output_dir, "temp": self.temp_dir}[folder]]
        return [path for name in (folder, *TWINS.get(folder, ())) for path in self._listed(name)]

    def _listed(self, name: str) -> list[Path]:
        own, more = inside(self.models, name), self.extra.get(name, [])
        return list(more) if own in more else [own, *more]

    def files(self, folder: str) -> list[str]:
        """Names relative to the folder, `/` between parts, sorted; pictures for `input`, weights for model folders."""
        found: set[str] = set()
        for directory in self.directories(folder):
            found.update(_below(directory, _suffixes(folder)))
        found.update(*(self.aliases.get(name, ()) for name in (folder, *TWINS.get(folder, ()))))
        return sorted(found)

    def path(self, folder: str, name: str) -> Path:
        """The file of that name, inside its folder and existing."""
        name, folder = _annotated(name, folder)
        for directory in self.directories(folder):
            path = inside(directory, name)
            if path.is_file():
                return path
        for place in (folder, *TWINS.get(folder, ())):
            if name in self.aliases.get(place, ()):
                return self.aliases[place][name]
        listed = self.files(folder)
        if listed:
            raise UnknownName(f"file in {folder}", name, listed)
        raise MissingFile(self.directories(folder)[0] / name, f"not there, and the folder {folder!r} is empty")

    def content_hash(self, path: Path, like: str | None = None) -> str:
        """BLAKE3 of the bytes, remembered while size and time of change stay; that of a large file across restarts."""
        return self._digests.of(path, like)

    def known_hash(self, path: Path) -> str | None:
        """The same where it is known already."""
        return self._digests.known(path)

    def lacking(self, vertices: Mapping[str, GraphNode]) -> Sequence[Problem]:
        """As `companions` says."""
        return self.companions(self, vertices)

    def kept(self, key: str) -> KeptWork:
        """Unfinished work lies with the temporary files."""
        return self._checkpoints.of(key)


Companions = Callable[[Folders, Mapping[str, GraphNode]], Sequence[Problem]]


def _suffixes(folder: str) -> frozenset[str]:
    """What a folder is searched for."""
    if folder == "latents":
        return LATENTS
    return IMAGES if folder in PLACES else GGUF if folder.endswith("_gguf") else WEIGHTS


def inside(directory: Path, name: str) -> Path:
    """`directory / name`, refused if the name leads outside.

    Links below the folder are followed: the operator made them, and weights often lie on another disk.
    """
    parts = PurePath(name).parts
    if not parts or "\0" in name or ".." in parts or PurePath(name).is_absolute():
        raise BadValue(f"file name in {directory.name}", name, "a name inside the folder")
    return directory / name


def _annotated(name: str, folder: str) -> tuple[str, str]:
    """`picture.png [output]` -> name and the folder it names."""
    for place in PLACES:
        if name.endswith(f" [{place}]"):
            return name[: -len(place) - 3], place
    return name, folder


def _below(directory: Path, suffixes: frozenset[str]) -> list[str]:
    """Files with one of the suffixes; hidden ones are left out, and no folder is entered twice through links."""
    found: list[str] = []
    entered: set[str] = set()
    for parent, folders, names in os.walk(directory, followlinks=True):
        folders[:] = [] if os.path.realpath(parent) in entered else [n for n in folders if not n.startswith(".")]
        entered.add(os.path.realpath(parent))
        base = Path(parent).relative_to(directory)
        visible = (name for name in names if not name.startswith(".") and Path(name).suffix.lower() in suffixes)
        found += [(base / name).as_posix() for name in visible]
    return found
