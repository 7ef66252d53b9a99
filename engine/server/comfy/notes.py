"""What is said about a template: `NAME.md` beside `NAME.json`, written to be read as it stands.

    # Title

    One paragraph of description.

    Tags: image to image, demo
    Models: SD3.5 Large

Every part may be missing; the title is then the file's name.
"""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Notes", "notes_of"]

LONGEST = 16 * 1024  # characters
SHORT_NAMES = (("sd3", "SD3"), ("txt2img", "text to image"), ("img2img", "image to image"))


@dataclass(frozen=True, slots=True)
class Notes:
    """The parts of a note."""

    title: str
    description: str
    tags: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


def notes_of(workflow: Path) -> Notes:
    """The note beside a workflow file, or what its name says."""
    try:
        with workflow.with_suffix(".md").open(encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file.read(LONGEST).splitlines()]
    except OSError:
        lines = []
    title = next((line.removeprefix("# ").strip() for line in lines if line.startswith("# ")), "")
    described = " ".join(_first_paragraph(lines))
    return Notes(
        title or _named(workflow.stem),
        described or f"The workflow {workflow.name} of this server.",
        _listed(lines, "Tags:"),
        _listed(lines, "Models:"),
    )


def _first_paragraph(lines: list[str]) -> list[str]:
    found: list[str] = []
    for line in lines:
        if line and not line.startswith(("# ", "Tags:", "Models:")):
            found.append(line)
        elif found:
            break
    return found


def _listed(lines: list[str], key: str) -> tuple[str, ...]:
    """The names of a line `Key: one, two`."""
    line = next((line for line in lines if line.startswith(key)), key)
    return tuple(name.strip() for name in line.removeprefix(key).split(",") if name.strip())


def _named(stem: str) -> str:
    title = stem.replace("_", " ")
    for short, long in SHORT_NAMES:
        title = title.replace(short, long)
    return title[:1].upper() + title[1:]
