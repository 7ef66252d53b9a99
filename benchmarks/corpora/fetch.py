"""Bring the files of `sources.txt` that may carry a workflow into `.fetched/`, which git ignores; each content once.

python benchmarks/corpora/fetch.py [--copies FOLDER] [OWNER/NAME ...]

Files of 4 MiB and more are left out. With --copies, git directories at FOLDER/OWNER/NAME stand in for the network.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
FETCHED = HERE / ".fetched"
CLONES = HERE / ".fetched" / ".clones"
HUB = "https://github.com/"
ENDINGS = (".json", ".png", ".webp", ".jpg", ".jpeg", ".avif", ".svg", ".latent")
LARGEST = 4 << 20
WHOLE = dict(os.environ, GIT_NO_LAZY_FETCH="1")  # what was left out stays left out


def main() -> None:
    """Fetch what is missing, or what is named; then leave out what an earlier source holds too."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--copies", type=Path)
    parser.add_argument("names", nargs="*")
    chosen = parser.parse_args()
    for repository, commit in sources():
        folder = FETCHED / repository.replace("/", "+")
        if folder.is_dir() or (chosen.names and repository not in chosen.names):
            continue
        clone = chosen.copies / repository if chosen.copies else fetched(repository, commit)
        print(f"{take(clone, commit, folder):5d} {repository}", flush=True)
    shutil.rmtree(CLONES, ignore_errors=True)
    print(f"{leave_out_copies()} files hold what another holds")


def sources() -> list[tuple[str, str]]:
    """Repository and commit of each source."""
    lines = (HERE / "sources.txt").read_text(encoding="utf-8").splitlines()
    return [(line.split()[0], line.split()[1]) for line in lines if line and not line.startswith("#")]


def fetched(repository: str, commit: str) -> Path:
    """One commit of a repository, without its large files."""
    clone = CLONES / repository
    git("init", "--quiet", "--bare", str(clone))
    size = f"--filter=blob:limit={LARGEST}"
    git("-C", str(clone), "fetch", "--quiet", "--depth", "1", size, HUB + repository, commit)
    return clone


def take(clone: Path, commit: str, folder: Path) -> int:
    """Write the files that may carry a workflow below a folder; how many there are."""
    draft = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    there = git("-C", str(clone), "cat-file", "--batch-all-objects", "--batch-check=%(objectname) %(objectsize)")
    sizes = {line.split()[0]: int(line.split()[1]) for line in there.decode().splitlines()}
    wanted = [(name, id) for name, id in listed(clone, commit) if sizes.get(id, LARGEST) < LARGEST]
    ids = "\n".join(id for _, id in wanted).encode()
    found = io.BytesIO(git("-C", str(clone), "cat-file", "--batch", input=ids))
    taken = 0
    for name, id in wanted:
        found.readline()
        data = found.read(sizes[id] + 1)[:-1]
        if may_carry(name, data):
            path = draft / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            taken += 1
    draft.rename(folder)
    return taken


def listed(clone: Path, commit: str) -> Iterator[tuple[str, str]]:
    """Path and object of each file with a known ending."""
    for line in git("-C", str(clone), "ls-tree", "-r", "-z", commit).split(b"\0"):
        about, _, name = line.decode("utf-8", "replace").partition("\t")
        if about.startswith("100") and name.lower().endswith(ENDINGS):
            yield name, about.split()[2]


def may_carry(name: str, data: bytes) -> bool:
    """Whether it is worth keeping: JSON files of something else are left where they are."""
    return not name.lower().endswith(".json") or b'"class_type"' in data or b'"nodes"' in data


def leave_out_copies() -> int:
    """Remove each file whose content stands in an earlier one; documents are compared as values."""
    seen: set[bytes] = set()
    removed = 0
    for path in sorted(path for path in FETCHED.rglob("*") if path.is_file()):
        key = content(path)
        if key in seen:
            path.unlink()
            removed += 1
        seen.add(key)
    return removed


def content(path: Path) -> bytes:
    """A hash of the bytes, or of the value where it is JSON."""
    data = path.read_bytes()
    if path.suffix.lower() == ".json":
        with contextlib.suppress(ValueError, RecursionError):
            data = json.dumps(json.loads(data), sort_keys=True).encode()
    return hashlib.sha256(data).digest()


def git(*arguments: str, input: bytes | None = None) -> bytes:
    """Run git; its own words say what went wrong."""
    return subprocess.run(["git", *arguments], check=True, input=input, stdout=subprocess.PIPE, env=WHOLE).stdout


if __name__ == "__main__":
    main()
