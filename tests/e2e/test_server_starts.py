"""What keeps a server from starting is one line that names it and exit code 1; nothing is changed on the way."""

import fcntl
import json
import socket
import sqlite3
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serving import CHECKOUT, COMMAND


def refusal(home: Path, *options: str) -> str:
    """Start a server that must refuse to; its one line about why."""
    arguments = ["--home", str(home), "--port", "0", *options]
    done = subprocess.run([*COMMAND, *arguments], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    (tmp_path / "user").mkdir()
    return tmp_path


def test_a_port_in_use(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"port {port} on 127.0.0.1 is in use; choose another with --port" in refusal(home, "--port", port)


def test_a_model_folder_that_is_not_there(tmp_path: Path) -> None:
    line = refusal(tmp_path)
    assert f"{tmp_path}/models: there is no such folder" in line
    assert "--home" in line


def test_an_output_folder_that_cannot_be_written(home: Path) -> None:
    (home / "file").write_text("")
    assert f"{home}/file/out: cannot be written" in refusal(home, "--output", str(home / "file/out"))


def test_settings_with_unknown_keys_are_all_named(home: Path) -> None:
    (home / "s.toml").write_text('prot = 1\nlog_levle = "info"\n')
    line = refusal(home, "--config", str(home / "s.toml"))
    assert f"setting 'prot' ({home}/s.toml): there is no such setting; did you mean 'port'?" in line
    assert "did you mean 'log_level'?" in line


def test_a_bind_that_others_reach_without_a_key_names_the_command_that_makes_one(home: Path) -> None:
    assert "`sigmagraph keys create NAME`" in refusal(home, "--host", "0.0.0.0")


def not_a_database(path: Path) -> None:
    path.write_bytes(b"this is no database at all, whatever its name says\n" * 100)


def damaged(path: Path) -> None:
    """A real database whose pages after the first are gone bad."""
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE alembic_version (version_num TEXT PRIMARY KEY)")
        connection.executemany("INSERT INTO alembic_version VALUES (?)", [(f"{i:>900}",) for i in range(50)])
    connection.close()
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))


@pytest.mark.parametrize(
    ("damage", "words"),
    [(not_a_database, "file is not a database"), (damaged, "malformed")],
    ids=["rubbish", "damaged"],
)
def test_a_database_that_is_none_is_named_and_left_alone(
    home: Path, damage: Callable[[Path], None], words: str
) -> None:
    path = home / "user/jobs.sqlite"
    damage(path)
    before = path.read_bytes()
    line = refusal(home)
    assert "user/jobs.sqlite" in line
    assert words in line
    assert path.read_bytes() == before


def test_a_database_that_another_server_works_on(home: Path) -> None:
    with (home / "user/jobs.sqlite.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another server works on" in refusal(home)


def test_the_settings_in_force_are_printed_as_the_file_that_makes_them(home: Path) -> None:
    (home / "s.toml").write_text('port = 9000\nhosts = ["studio.lan"]\n')
    command = [
        *COMMAND,
        "--home",
        str(home),
        "--config",
        str(home / "s.toml"),
        "--print-config",
        "--log-level",
        "error",
    ]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    settings = tomllib.loads(done.stdout)
    assert (settings["port"], settings["hosts"], settings["log_level"]) == (9000, ["studio.lan"], "error")
    assert json.dumps(settings["home"]) == json.dumps(str(home))
