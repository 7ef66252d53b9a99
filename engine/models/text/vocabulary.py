"""Where tokenizers come from: the checkpoint's metadata, beside the model, tokenizers folders, then ours for CLIP.

A tokenizer is the JSON text of the `tokenizers` library, or for CLIP a `vocab.json` with its `merges.txt`, as ComfyUI
and diffusers have them. Nothing is opened until a prompt needs it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from sigmagraph.engine.errors import CorruptFile, MissingFile
from sigmagraph.engine.models.text.tokenizer import Vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer

METADATA_PREFIX = "tokenizer."
FOLDER = "tokenizers"
# Folders with a vocab.json and a merges.txt, or a T5 tokenizer.json: of diffusers, and of a ComfyUI checkout.
PAIRS: Mapping[str, tuple[str, ...]] = {
    "clip_l": (".", "tokenizer", "sd1_tokenizer", "comfy/sd1_tokenizer"),
    "clip_g": (".", "tokenizer_2", "sd1_tokenizer", "comfy/sd1_tokenizer"),
}
T5_PLACES = ("t5_tokenizer/tokenizer.json", "comfy/text_encoders/t5_tokenizer/tokenizer.json")
# The two CLIPs share one vocabulary; diffusers keeps one folder per encoder.
FILE_NAMES: Mapping[str, tuple[str, ...]] = {
    "clip_l": ("clip_l.tokenizer.json", "clip.tokenizer.json", "clip_g.tokenizer.json", "tokenizer/tokenizer.json"),
    "clip_g": ("clip_g.tokenizer.json", "clip.tokenizer.json", "clip_l.tokenizer.json", "tokenizer_2/tokenizer.json"),
    "t5xxl": ("t5xxl.tokenizer.json", "tokenizer_3/tokenizer.json", *T5_PLACES),
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

    def looking_in(self, folders: Sequence[Path]) -> "Vocabularies":
        """The same, and after all others these folders."""
        return replace(self, folders=tuple(dict.fromkeys([*self.folders, *folders])))

    def __getitem__(self, encoder: str) -> Vocabulary:
        """The vocabulary of `clip_l`, `clip_g` or `t5xxl`. Raises `MissingFile`, naming the command that brings it."""
        return self.located(encoder)()

    def located(self, encoder: str) -> Callable[[], Vocabulary]:
        """What opens the encoder's vocabulary; nothing is read before. Raises `MissingFile` as reading it would."""
        text = self.metadata.get(METADATA_PREFIX + encoder)
        if text is not None:
            return partial(_parsed, text, f"metadata {METADATA_PREFIX}{encoder}")
        for folder in self.folders:
            for name in FILE_NAMES[encoder]:
                if (folder / name).is_file():
                    return lambda path=folder / name: _parsed(_text(path), str(path))  # type: ignore[misc]
            for place in PAIRS.get(encoder, ()):
                pair = folder / place / "vocab.json", folder / place / "merges.txt"
                if all(file.is_file() for file in pair):
                    return lambda pair=pair: _paired(*map(_text, pair), str(pair[0]))  # type: ignore[misc]
        if encoder in PAIRS:
            return _shipped
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
    return _vocabulary(tokenizer)


@lru_cache(maxsize=8)
def _paired(vocabulary: str, merges: str, place: str) -> Vocabulary:
    from sigmagraph.engine.models.text.clip_vocabulary import tokenizer_from_pair

    return _vocabulary(tokenizer_from_pair(vocabulary, merges, place))


@lru_cache(maxsize=1)
def _shipped() -> Vocabulary:
    from sigmagraph.engine.models.text.clip_vocabulary import shipped_tokenizer

    return _vocabulary(shipped_tokenizer())


def _vocabulary(tokenizer: "Tokenizer") -> Vocabulary:
    def ids(words: str) -> list[int]:
        found: list[int] = tokenizer.encode(words, add_special_tokens=False).ids
        return found

    return ids
