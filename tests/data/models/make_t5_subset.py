"""Write t5_subset.json.xz: the part of T5's vocabulary that the prompts of tokens.json and conditioning.json can reach.

    python make_t5_subset.py t5xxl.tokenizer.json

The vocabulary is that of T5 v1.1 (Apache License 2.0, Google). `pieces` are [id, piece, score] of every piece that some
stretch of these prompts spells: the best way through a text is the same without the others. The table of replaced
characters (310 KB) is left out; the tests use NFKC and plain spaces, on which it is built.
"""

import json
import lzma
import sys
import unicodedata
from pathlib import Path

HERE = Path(__file__).parent
SPACE = "\u2581"


def main(tokenizer_path: str) -> None:
    """Cut the vocabulary down and write it beside this file."""
    whole = json.loads(Path(tokenizer_path).read_text("utf-8"))
    prompts = json.loads(lzma.decompress((HERE / "tokens.json.xz").read_bytes())).values()
    cases = json.loads(lzma.decompress((HERE / "conditioning.json.xz").read_bytes()))["cases"].values()
    texts = [case["text"] for case in prompts] + [case.get("t5xxl", "") for case in cases]
    spelled = SPACE + SPACE.join(unicodedata.normalize("NFKC", " ".join(texts)).split()) + SPACE
    pieces = [
        [index, piece, score]
        for index, (piece, score) in enumerate(whole["model"]["vocab"])
        if piece in spelled or piece.removeprefix(SPACE) in spelled or index < 3  # a segment begins with a space
    ]
    document = {"size": len(whole["model"]["vocab"]), "pieces": pieces}
    (HERE / "t5_subset.json.xz").write_bytes(lzma.compress(json.dumps(document).encode(), preset=9))


if __name__ == "__main__":
    main(sys.argv[1])
