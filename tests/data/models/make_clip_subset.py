"""Write clip_subset.tokenizer.json: the part of CLIP's vocabulary that the prompts of tokens.json can reach.

    python make_clip_subset.py bpe_simple_vocab_16e6.txt.gz

(The CLIP texts of conditioning.json are covered too.) The vocabulary is the one of OpenAI's CLIP (MIT licence), as
shipped in the PyPI package open_clip_torch. Ids and the order of merges are the original's; merges that no stretch of
these prompts spells are left out, which changes no result.
"""

import gzip
import json
import lzma
import sys
from pathlib import Path

HERE = Path(__file__).parent
MERGES = 49152 - 256 - 2
WORD_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def byte_symbols() -> dict[int, str]:
    """The printable stand-in of every byte: itself where printable, else the next code point from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


def main(vocabulary_path: str) -> None:
    """Cut the vocabulary down and write the tokenizer beside this file."""
    lines = gzip.decompress(Path(vocabulary_path).read_bytes()).decode("utf-8").split("\n")
    merges = [tuple(line.split()) for line in lines[1 : MERGES + 1]]
    symbols = byte_symbols()
    ordered = list(symbols.values())
    tokens = ordered + [s + "</w>" for s in ordered] + ["".join(pair) for pair in merges]
    ids = {token: index for index, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    prompts = json.loads(lzma.decompress((HERE / "tokens.json.xz").read_bytes())).values()
    cases = json.loads(lzma.decompress((HERE / "conditioning.json.xz").read_bytes()))["cases"].values()
    texts = [case["text"].lower() for case in prompts] + [case.get("clip_l", "") for case in cases]
    spelled = " ".join("".join(symbols[b] for b in word.encode()) for text in texts for word in text.split()) + " "
    reached = [pair for pair in merges if "".join(pair).removesuffix("</w>") in spelled]
    kept = set(tokens[:512]) | {"".join(pair) for pair in reached} | {"<|startoftext|>", "<|endoftext|>"}
    specials = ("<|startoftext|>", "<|endoftext|>")
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {"id": ids[token], "content": token, "special": True}
            | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            for token in specials
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "NFC"},
                {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
                {"type": "Lowercase"},
            ],
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": WORD_PATTERN}, "behavior": "Removed", "invert": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            ],
        },
        "model": {
            "type": "BPE",
            "unk_token": "<|endoftext|>",
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>",
            "vocab": {token: index for token, index in ids.items() if token in kept},
            "merges": [list(pair) for pair in reached],
        },
    }
    (HERE / "clip_subset.tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=True), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
