"""Settings from file, environment and flags; the log; weight folders of others; what makes a start fail."""

import asyncio
import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from typer.testing import CliRunner

from sigmagraph.engine.cli.app import app
from sigmagraph.engine.compose.model_paths import extra_folders
from sigmagraph.engine.compose.owners import folders_of
from sigmagraph.engine.compose.serving import BadBind, address, bound, compose, welcome
from sigmagraph.engine.errors import BadValue, MissingFile, WriteFailed
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.server.monitoring.logs import JsonFormatter, RecentLines, RequestLogger, configure
from sigmagraph.engine.server.settings import (
    BadSettings,
    Settings,
    as_markdown,
    as_toml,
    load_settings,
    misspelt,
    options,
)
from tests.serving import CHECKOUT


def test_flags_win_over_the_environment_which_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('port = 1\nhost = "::1"\ncache = "off"\n')
    environment = {"SIGMAGRAPH_PORT": "2", "SIGMAGRAPH_HOST": "localhost", "OTHER": "x"}
    settings = load_settings(file, environment, {"port": 3, "host": None})
    assert (settings.port, settings.host, settings.cache) == (3, "localhost", "off")


def test_every_setting_is_a_flag_too(tmp_path: Path) -> None:
    assert [option.name for option in options()] == list(Settings.model_fields)
    flags = {option.name: option.flag for option in options()}
    assert flags["port"] == "--port"
    assert (flags["demo"], flags["no_keys"], flags["plugins"]) == ("--demo/--no-demo", "--no-keys", "--plugin")
    given = ["--port", "0", "--demo", "--no-previews", "--no-keys", "--hosts", "a", "--hosts", "b", "--max-pixels", "7"]
    shown = CliRunner().invoke(app, ["serve", *given, "--home", str(tmp_path), "--print-config"])
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    for line in (
        "port = 0",
        "demo = true",
        "previews = false",
        "no_keys = true",
        'hosts = ["a", "b"]',
        "max_pixels = 7",
    ):
        assert line in lines
    assert f'home = "{tmp_path}"' in lines
    wrong = CliRunner().invoke(app, ["serve", "--port", "many", "--print-config"])
    assert (wrong.exit_code, "setting 'port' (flag): 'many'" in wrong.stderr) == (1, True)


def test_the_help_has_every_setting_and_its_meaning() -> None:
    shown = " ".join(CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200"}).stdout.split())
    for option in options():
        assert option.flag.split("/")[0] in shown
    assert "Port to listen on; 0 takes a free one (default: 8188)" in shown


def test_the_table_in_the_docs_is_the_generated_one() -> None:
    text = (CHECKOUT / "docs/service.md").read_text(encoding="utf-8")
    assert as_markdown() in text, "put the result of sigmagraph.engine.server.settings.as_markdown() there"


@pytest.mark.parametrize("name", ["home", "workflows", "endpoints"])
def test_a_folder_that_is_not_there_is_named_with_its_setting(name: str) -> None:
    done = CliRunner().invoke(app, ["serve", "--print-config"], env={f"SIGMAGRAPH_{name.upper()}": "/nope"})
    assert done.exit_code == 1
    assert done.stderr == f"error: /nope: there is no such folder; the setting {name!r} names it\n"


def test_the_server_lives_in_the_current_folder_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(app, ["serve", "--print-config"], env={"SIGMAGRAPH_HOME": ""}).stdout
    assert f'home = "{tmp_path}"' in shown
    assert f'output = "{tmp_path}/output"' in shown


def test_somebody_at_a_terminal_is_told_where_to_look_and_what_is_missing(tmp_path: Path) -> None:
    with bound("127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with_editor = welcome(Settings(), listener, tmp_path)
        assert with_editor[0] == f"Open {url} in a browser; Ctrl+C ends it."
        assert with_editor[1].endswith(f"{url}home")
        told = welcome(Settings(), listener, None)
    assert told[:2] == [
        f"Open {url} in a browser; Ctrl+C ends it.",
        "The editor is missing: pip install 'sigmagraph[editor]'",
    ]


@pytest.mark.parametrize(
    ("form", "is_terminal", "is_text"), [("auto", True, True), ("auto", False, False), ("json", True, False)]
)
def test_the_log_is_text_in_a_terminal_and_json_elsewhere(
    form: str, is_terminal: bool, is_text: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    stream = io.StringIO()
    stream.isatty = lambda: is_terminal  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stderr", stream)
    configure(form, "info")
    logging.getLogger("sigmagraph.x").info("hello")
    assert stream.getvalue().startswith("{") is not is_text


async def _one_request(path: str) -> list[logging.LogRecord]:
    heard: list[logging.LogRecord] = []
    log = logging.Logger("access")
    log.addHandler(Keeping(heard))
    server = TestServer(web.Application())
    await server.start_server(access_log=log, access_log_class=RequestLogger)
    async with TestClient(server) as client:
        await client.get(path)
    return heard


class Keeping(logging.Handler):
    """Keeps records."""

    def __init__(self, heard: list[logging.LogRecord]) -> None:
        super().__init__()
        self.heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record)


def test_the_access_log_has_a_line_a_request_and_no_secret_of_its_query() -> None:
    [record] = asyncio.run(_one_request("/nowhere?token=secret"))
    line = json.loads(JsonFormatter().format(record))
    assert (line["message"], line["method"], line["path"], line["status"]) == ("request", "GET", "/nowhere", 404)
    assert line["ms"] >= 0
    assert "secret" not in json.dumps(line)


def test_printed_settings_read_back_as_they_were(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    before = load_settings(None, {}, {"hosts": ["a", 'b"'], "compress": True, "output": "/x", "max_upload_mb": 1.5})
    file.write_text(as_toml(before))
    assert load_settings(file, {}, {}) == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"prot": 1}, "setting 'prot' (flag): there is no such setting; did you mean 'port'?"),
        ({"port": 70000}, "setting 'port' (flag): 70000"),
        ({"cors_origin": "app.example"}, "must be * or start with http"),
        ({"log_format": "xml"}, "'json' or 'text'"),
    ],
)
def test_a_wrong_setting_is_named_with_its_place(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSettings) as caught:
        load_settings(None, {}, flags)
    assert message in str(caught.value)


def test_a_misspelt_variable_is_told_and_others_are_let_be() -> None:
    told = misspelt({"SIGMAGRAPH_PROT": "1", "SIGMAGRAPH_PORT": "1", "SIGMAGRAPH_XYZZY": "1", "PROT": "1"})
    assert told == ["SIGMAGRAPH_PROT; did you mean 'port'?"]


def test_a_file_that_is_no_toml_or_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("port 1")
    with pytest.raises(BadValue, match="bad.toml"):
        load_settings(tmp_path / "bad.toml", {}, {})
    with pytest.raises(MissingFile, match="none.toml"):
        load_settings(tmp_path / "none.toml", {}, {})


@pytest.mark.parametrize(
    ("host", "is_local"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],
)
def test_what_counts_as_this_machine_alone(host: str, is_local: bool) -> None:
    assert Settings(host=host).is_loopback is is_local


def test_a_port_in_use_is_named() -> None:
    with bound("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(BadBind, match=f"port {taken.getsockname()[1]} on 127.0.0.1 is in use"):
            bound("127.0.0.1", taken.getsockname()[1])
    assert address("0.0.0.0", 1) == "http://127.0.0.1:1/"


def test_missing_models_and_an_unwritable_output_folder_end_the_start(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="--home"):
        compose(Settings(home=tmp_path, output=tmp_path / "out"))
    (tmp_path / "models").mkdir()
    (tmp_path / "out").write_text("a file")
    with pytest.raises(WriteFailed):
        compose(Settings(home=tmp_path, output=tmp_path / "out"))


def test_weight_folders_of_a_comfyui_installation_are_found(tmp_path: Path) -> None:
    (tmp_path / "comfy").mkdir()
    file = tmp_path / "extra_model_paths.yaml"
    file.write_text(
        "a:\n  base_path: comfy\n  checkpoints: models/checkpoints/\n  clip: |\n    models/clip/\n    more\n"
        "  custom_nodes: custom_nodes/\n"
        "b:\n  base_path: comfy\n  is_default: true\n  checkpoints: first\n"
    )
    base = tmp_path / "comfy"
    ours, shipped = tmp_path / "models", tmp_path / "shipped"
    extra = extra_folders([file], ours, {"checkpoints": [shipped]})
    assert extra == {
        "checkpoints": [base / "first", ours / "checkpoints", base / "models/checkpoints", shipped],
        "clip": [base / "models/clip", base / "more"],
    }
    folders = Folders(ours, tmp_path, tmp_path, tmp_path, extra)
    assert folders.directories("checkpoints") == extra["checkpoints"]
    assert folders.directories("clip")[:3] == [ours / "clip", base / "models/clip", base / "more"]
    for place, name in ((base / "first", "a"), (ours / "checkpoints", "a"), (ours / "clip", "b"), (base / "more", "b")):
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{name}.safetensors").touch()
    assert folders.path("checkpoints", "a.safetensors") == base / "first/a.safetensors"
    assert folders.path("clip", "b.safetensors") == ours / "clip/b.safetensors"


def test_a_damaged_paths_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "paths.yaml"
    for text in ("a: [", "just text", "a:\n  base_path: /nowhere\n  vae: x\n"):
        file.write_text(text)
        with pytest.raises((BadValue, MissingFile)):
            extra_folders([file], tmp_path / "models")


def test_each_owner_has_folders_of_its_own_and_weights_are_shared(tmp_path: Path) -> None:
    base = Folders(tmp_path / "models", tmp_path / "in", tmp_path / "out", tmp_path / "temp")
    owned = folders_of(base)
    ann, odd = owned("ann"), owned("../../etc")
    assert owned("local") is base
    assert ann.output_dir == tmp_path / "out/.owners/ann"
    assert odd.output_dir.parent == tmp_path / "out/.owners"
    assert ann.models == base.models
    (ann.input_dir / "a.png").write_bytes(b"")
    assert (ann.files("input"), base.files("input"), owned("bob").files("input")) == (["a.png"], [], [])


def test_log_lines_are_json_with_their_fields_and_the_last_are_kept() -> None:
    lines, formatter = RecentLines(kept=2), JsonFormatter()
    record = logging.LogRecord("sigmagraph", logging.INFO, "f", 1, "job %s", ("ended",), None)
    record.job = "j1"
    line = json.loads(formatter.format(record))
    assert (line["message"], line["level"], line["job"]) == ("job ended", "info", "j1")
    heard: list[logging.LogRecord] = []
    lines.listeners.append(heard.append)
    for _ in range(3):
        lines.emit(record)
    assert (len(lines.entries), len(heard)) == (2, 3)
    assert lines.entry(heard[0]) == lines.entries[0]
    assert "job ended job=j1" in lines.entries[0]["m"]
