"""Bring the packs of `packs.txt` at their commits into `.fetched/`, which git ignores. Nothing of them is run here.

python benchmarks/node_packs/fetch.py [NAME ...]
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
FETCHED = HERE / ".fetched"
HUB = "https://github.com/"


def main() -> None:
    """Clone what is missing, or what is named."""
    for line in (HERE / "packs.txt").read_text(encoding="utf-8").splitlines():
        repository, commit, *_ = [*line.split(), ""]
        folder = FETCHED / repository.partition("/")[2]
        if not repository or repository.startswith("#") or (sys.argv[1:] and folder.name not in sys.argv[1:]):
            continue
        if not folder.is_dir():
            git("init", "--quiet", str(folder))
            git("-C", str(folder), "fetch", "--quiet", "--depth", "1", HUB + repository, commit)
            git("-C", str(folder), "checkout", "--quiet", "FETCH_HEAD")
            git("-C", str(folder), "submodule", "update", "--quiet", "--init", "--depth", "1")
        print(folder)


def git(*arguments: str) -> None:
    """Run git; its own words say what went wrong."""
    subprocess.run(["git", *arguments], check=True)


if __name__ == "__main__":
    main()
