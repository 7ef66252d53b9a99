"""Every `sigmagraph` line of the documentation names a command and options that there are; Python blocks compile."""

import re
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sigmagraph.engine.cli.app import app
from tests.serving import CHECKOUT

PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
SHELL = re.compile(r"^```(?:sh|bash|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PYTHON = re.compile(r"^```python[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINE = re.compile(r"(?:^|\$ |&& |bin/)sigmagraph ([^#&|>\n]*)", re.MULTILINE)


def lines() -> list[tuple[str, str]]:
    """(page, what follows `sigmagraph`) of every shell block; a line may go on behind a backslash."""
    found = []
    for page in PAGES:
        for block in SHELL.findall(page.read_text(encoding="utf-8")):
            found += [(page.name, line.strip()) for line in LINE.findall(block.replace("\\\n", " "))]
    return found


@cache
def help_of(*words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, (words, done.output)
    return done.stdout


@pytest.mark.parametrize(("page", "line"), sorted(set(lines())))
def test_a_line_names_a_command_and_options_that_there_are(page: str, line: str) -> None:
    words = re.findall(r"[^\s'\"]+|'[^']*'|\"[^\"]*\"", line)
    command = (
        words[:1] if words[0] not in ("keys", "endpoints") or len(words) == 1 or words[1][:1] == "-" else words[:2]
    )
    if command[0].startswith("--"):
        command = []
    known = help_of(*command)
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert re.search(rf"{option}\b", known) or option == "--help", f"{page}: {option} in {line!r}"
    for word in words:
        if word.startswith(("workflows/", "models/", "docs/")) and "FOLDER" not in word:
            assert Path(CHECKOUT, word).exists() or "sd3.5" in word, f"{page}: {word}"


def test_there_are_lines_on_most_pages() -> None:
    assert len(lines()) > 25


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_every_python_block_compiles(page: Path) -> None:
    for number, block in enumerate(PYTHON.findall(page.read_text(encoding="utf-8"))):
        compile(block, f"{page.name}, block {number}", "exec", dont_inherit=True)
