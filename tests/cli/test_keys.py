"""`sigmagraph keys`: a key is shown once; limits, credits and withdrawal reach the store."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sigmagraph.engine.cli.app import app


def said(home: Path, *words: str) -> str:
    done = CliRunner().invoke(app, ["keys", *words, "--home", str(home)])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path


def test_a_key_lives_from_create_to_revoke(home: Path) -> None:
    made = said(home, "create", "alice", "--credits", "2", "--endpoint", "x", "--scopes", "read,submit")
    secret = next(word for word in made.split() if word.startswith("SG_"))
    key_id = made.split("key ")[1].split()[0]
    listed = said(home, "list")
    assert secret not in listed
    assert "alice" in listed
    assert "works" in listed
    assert said(home, "credit", key_id, "0.5").strip() == "2.5"
    said(home, "revoke", key_id)
    assert "revoked" in said(home, "list")
    assert secret.encode() not in (home / "user" / "jobs.sqlite").read_bytes()


def test_credits_that_are_no_number_are_refused(home: Path) -> None:
    done = CliRunner().invoke(app, ["keys", "create", "bob", "--credits", "nan", "--home", str(home)])
    assert done.exit_code == 1
    assert "credits" in done.output


def test_taking_more_than_there_is_is_refused(home: Path) -> None:
    made = said(home, "create", "bob", "--credits", "1")
    key_id = made.split("key ")[1].split()[0]
    done = CliRunner().invoke(app, ["keys", "credit", "--home", str(home), "--", key_id, "-2"])
    assert done.exit_code == 1
