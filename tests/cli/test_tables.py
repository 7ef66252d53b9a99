"""Tables and lines in a terminal of 80 columns: names stay whole, and what is piped is not folded at all."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from sigmagraph.engine.cli import console
from sigmagraph.engine.cli.app import app
from tests.cli.test_models import DEMO, ROOT

LONG = "euler_ancestral_cfg_pp"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """What is printed to a terminal of 80 columns."""
    shown = StringIO()
    monkeypatch.setattr(
        console, "out", lambda: Console(file=shown, force_terminal=True, no_color=True, width=80, highlight=False)
    )
    return shown


def lines_of(shown: StringIO) -> list[str]:
    found = [line.replace("\x1b[1m", "").replace("\x1b[0m", "").rstrip() for line in shown.getvalue().splitlines()]
    assert max(map(len, found)) <= 80
    return found


def test_a_word_is_folded_only_where_there_is_no_room_for_it(terminal: StringIO) -> None:
    table = console.columns("name", "one", "two", "three")
    table.add_row("first", f"heun, {LONG}, heun", "several words that are short " * 4, f"{LONG} again and again")
    console.out().print(table)
    words = " ".join(lines_of(terminal)).split()
    assert words.count(LONG) + words.count(f"{LONG},") == 2
    narrow = console.columns("name", "one")
    narrow.add_row("n" * 60, "o" * 60)
    console.out().print(narrow)
    assert "o" * 18 in terminal.getvalue()


def test_the_lists_of_nodes_and_files_keep_their_names(terminal: StringIO, tmp_path: Path) -> None:
    (tmp_path / "models/checkpoints").mkdir(parents=True)
    (tmp_path / "models/checkpoints" / DEMO).symlink_to(ROOT / "models/checkpoints" / DEMO)
    for command in (["models"], ["nodes"], ["nodes", "KSampler"]):
        done = CliRunner().invoke(app, [*command, "--home", str(tmp_path)])
        assert done.exit_code == 0, done.output
    words = set(" ".join(lines_of(terminal)).replace(",", "").split())
    assert {f"checkpoints/{DEMO}", "sampler_comparison", LONG} <= words  # a file, what it completes, a choice
    assert {"_for_testing", "text_encoder_diff", "temporal_overlap"} <= words  # a category, inputs
    assert str(2**64 - 1) in words  # the largest seed, to the last digit


def test_lines_fold_between_words_in_a_terminal(terminal: StringIO, tmp_path: Path) -> None:
    line = f"refused: {'folder/' * 6}name-of-a-file.json: what is wrong with it in rather more words than a line has"
    console.tell(line)
    folded = lines_of(terminal)
    assert len(folded) > 1
    assert " ".join(part.strip() for part in folded) == line
    (tmp_path / "a-drawing-that-is-broken.json").write_text('{"nodes": [1]}', "utf-8")
    CliRunner().invoke(app, ["check", str(tmp_path), "--home", str(tmp_path)])
    assert "refused: a-drawing-that-is-broken.json: " in " ".join(lines_of(terminal))


def test_a_pipe_gets_whole_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    console.tell("word " * 40)
    assert len(capsys.readouterr().out.splitlines()) == 1
