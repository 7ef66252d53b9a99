"""CLIP's vocabulary: merges of byte pairs (Radford 2021, arXiv:2103.00020), shipped or read from files.

`clip_merges.txt.gz` holds the 48,894 merges that CLIP uses, in order, taken from the package open_clip_torch (MIT, see
`clip_merges.LICENSE`). Ids follow from them: the stand-ins of the 256 bytes, the same at the end of a word, the merges,
start, end.
"""

import gzip
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

from sigmagraph.engine.errors import CorruptFile

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SHIPPED = "clip_merges.txt.gz"
START, END, END_OF_WORD = "<|startoftext|>", "<|endoftext|>", "</w>"
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
Merges = Sequence[tuple[str, str]]


def shipped_tokenizer() -> "Tokenizer":
    """CLIP's tokenizer from the merges that come with the code."""
    text = gzip.decompress((files(__package__) / SHIPPED).read_bytes()).decode("utf-8")
    merges = _merges(text)
    stand_ins = _byte_stand_ins()
    tokens = [*stand_ins, *(one + END_OF_WORD for one in stand_ins), *("".join(pair) for pair in merges), START, END]
    return _tokenizer({token: index for index, token in enumerate(tokens)}, merges)


def tokenizer_from_pair(vocabulary: str, merges: str, place: str) -> "Tokenizer":
    """A tokenizer from the texts of a vocab.json and its merges.txt. Raises `CorruptFile`."""
    try:
        return _tokenizer(json.loads(vocabulary), _merges(merges))
    except Exception as error:  # the library raises bare Exception where the two do not fit
        raise CorruptFile(place, f"is not a CLIP vocabulary for the merges beside it ({error})") from error


def _tokenizer(ids: Mapping[str, int], merges: Merges) -> "Tokenizer":
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    model = models.BPE(vocab=dict(ids), merges=list(merges), unk_token=END, end_of_word_suffix=END_OF_WORD)
    tokenizer = Tokenizer(model)
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    words = pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.add_special_tokens([START, END])
    return tokenizer


def _merges(text: str) -> Merges:
    """Pairs, one a line; a first line may name the version."""
    lines = (line.strip().split(" ") for line in text.split("\n") if line and not line.startswith("#version"))
    return [(first, second) for first, second in lines]


def _byte_stand_ins() -> list[str]:
    """A printable character for every byte, in the order of ids: itself where printable, else one from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]
