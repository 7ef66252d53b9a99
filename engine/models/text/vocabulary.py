"""Where tokenizers come from: the checkpoint's metadata, files beside the model, then the tokenizers folder.

A tokenizer is the JSON text of the `tokenizers` library. Nothing is opened until a prompt needs it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from sigmagraph.engine.errors import CorruptFile, MissingFile
from sigmagraph.engine.models.text.tokenizer import Vocabulary

METADATA_PREFIX = "tokenizer."
FOLDER = "tokenizers"
# The two CLIPs share one vocabulary; diffusers keeps one folder per encoder.
FILE_NAMES: Mapping[str, tuple[str, ...]] = {
    "clip_l": ("clip_l.tokenizer.json", "clip.tokenizer.json", "clip_g.tokenizer.json", "tokenizer/tokenizer.json"),
    "clip_g": ("clip_g.tokenizer.json", "clip.tokenizer.json", "clip_l.tokenizer.json", "tokenizer_2/tokenizer.json"),
    "t5xxl": ("t5xxl.tokenizer.json", "tokenizer_3/tokenizer.json"),
}
LARGEST_TOKENIZER_BYTES = 64 * 1024 * 1024
FETCH = "sigmagraph fetch tokenizers"


@dataclass(frozen=True, slots=True)
class Vocabularies:
    """The tokenizers that one text encoder file (or several) can use, looked for in this order."""

    metadata: Mapping[str, str] = field(default_factory=dict)
    folders: Sequence[Path] = ()

    @classmethod
    def beside(cls, paths: Sequence[Path], metadata: Mapping[str, str]) -> "Vocabularies":
        """Those in `metadata`, in the folders of `paths` and in the `tokenizers` folder next to those folders."""
        homes = [path.parent for path in paths]
        around = [ancestor for home in homes for ancestor in (home.parent, home.parent.parent)]
        return cls(metadata, tuple(dict.fromkeys([*homes, *(a / FOLDER for a in around), *around])))

    def __getitem__(self, encoder: str) -> Vocabulary:
        """The vocabulary of `clip_l`, `clip_g` or `t5xxl`. Raises `MissingFile`, naming the command that brings it."""
        text = self.metadata.get(METADATA_PREFIX + encoder)
        if text is not None:
            return _parsed(text, f"metadata {METADATA_PREFIX}{encoder}")
        for folder in self.folders:
            for name in FILE_NAMES[encoder]:
                if (folder / name).is_file():
                    return _parsed(_text(folder / name), str(folder / name))
        looked = ", ".join(str(folder) for folder in self.folders) or "no folder"
        name = FILE_NAMES[encoder][0]
        raise MissingFile(name, f"no tokenizer for {encoder} in the model file or in {looked}; `{FETCH}` brings it")


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST_TOKENIZER_BYTES:
            raise CorruptFile(path, f"is larger than {LARGEST_TOKENIZER_BYTES} bytes: no tokenizer")
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CorruptFile(path, f"cannot be read as a tokenizer ({error})") from error


@lru_cache(maxsize=8)
def _parsed(text: str, place: str) -> Vocabulary:
    from tokenizers import Tokenizer  # compiled library; needed for text only

    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception for every malformed file
        raise CorruptFile(place, f"is not a tokenizer ({error})") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def ids(words: str) -> list[int]:
        found: list[int] = tokenizer.encode(words, add_special_tokens=False).ids
        return found

    return ids
