"""Count what `sigmagraph check FOLDER --json` says of a folder of public files, the neutral image files by themselves.

python benchmarks/corpora/count.py CHECKED.json

A class that is not here is one of ComfyUI's, of a kind that `core.txt` says, or else of a node pack. Image files lack
no class of video, audio, 3D, training, partners or capture. Neutral ones lack none of another model family, and none
of a pack either: each of their classes is here, or is one of ComfyUI's that would suit this backend.
"""

import json
import statistics
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MEDIA = frozenset(("video", "audio", "3d", "training", "partner", "capture"))
FAMILIES = frozenset(("family", "unet"))


def main() -> None:
    """The table, the reasons and what is missing most."""
    told = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    files: list[dict[str, Any]] = told["files"]
    kinds = kinds_of_classes()
    wants = [{kinds.get(name, "pack") for name in file["missing"]} for file in files]
    sources = {file["file"].partition("/")[0] for file in files}
    row("sources", len(sources))
    for name, count in told["totals"].items():
        if name != "missing classes":
            row(name, count)
    for name, chosen in (
        ("image files", [not want & MEDIA for want in wants]),
        ("of them free of other families", [not want & (MEDIA | FAMILIES) for want in wants]),
        ("neutral: and of packs that are not loaded", [want <= {"suits"} for want in wants]),
    ):
        of_these = [file for file, is_one in zip(files, chosen, strict=True) if is_one]
        row(name, len(of_these))
        row("- all classes here", sum(not file["missing"] and file["state"] != "refused" for file in of_these))
        row("- valid but for files", sum(file["state"] in ("valid", "files missing") for file in of_these))
    times = sorted((file["ms"], file["file"]) for file in files)
    row("milliseconds, median", f"{statistics.median(took for took, _ in times):.2f}")
    row("milliseconds, slowest", f"{times[-1][0]:.0f} ({times[-1][1]})")
    print("\nFiles that lack classes, by the kinds of these classes:")
    for reasons, count in Counter(" + ".join(sorted(want)) for want in wants if want).most_common():
        row(reasons, count)
    print("\nMissing most:")
    missing = Counter(name for file in files for name in file["missing"])
    for kind in ("suits", "family", "pack"):
        most = [f"{name} {n}" for name, n in missing.most_common() if kinds.get(name, "pack") == kind][:12]
        row(kind, ", ".join(most) or "-")


def kinds_of_classes() -> Mapping[str, str]:
    """Class -> kind, of ComfyUI's classes that are not here."""
    kinds: dict[str, str] = {}
    kind = ""
    for line in (HERE / "core.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            kind = line.strip("[]")
        elif line and not line.startswith("#"):
            kinds[line] = kind
    return kinds


def row(name: str, value: object) -> None:
    """One row of a table."""
    print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
