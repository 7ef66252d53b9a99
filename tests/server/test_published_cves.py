"""Holes that were published for ComfyUI and its manager, tried here.

CVE-2025-67303: the manager's settings lay where the user-data routes reach, so anybody could lower its security.
CVE-2026-22777: a value with a line break in a request became further lines of its settings file.
ComfyUI#13245: `Origin: null`, which a sandboxed frame of any site sends, passed the check of origins.
"""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from sigmagraph.engine.server.settings import Settings, as_toml, load_settings
from tests.server.conftest import Api, Serving
from tests.server.stubs import picture_graph

BREAKS = ("\r\n", "\n", "\r", "\x0b", "\x85", "\u2028", "\0")
OURS = ("jobs.sqlite", "output-urls.key", "sigmagraph.toml", "config.ini", "models/aliases.toml")


async def test_what_rules_the_server_is_out_of_reach_of_the_files_a_page_keeps(serving: Serving) -> None:
    """CVE-2025-67303."""
    async with serving() as api:
        for name in OURS:
            for place in (api.root / "user", api.root):
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                if not (place / name).exists():
                    (place / name).write_text("security_level = strong")
        before = snapshot(api)
        for name in OURS:
            for way in ("../", "../../", "default/../../", "./../", "..\\", f"{api.root}/user/", f"/{api.root}/"):
                path = "/userdata/" + quote(way + name, safe="")
                async with await api.get(path) as response:
                    assert b"security_level" not in await response.read(), path
                await api.post(path, data=b"security_level = weak")
                await api.client.delete(path)
                async with await api.get(f"/userdata?recurse=true&full_info=true&dir={quote(way, safe='')}") as listing:
                    assert name.encode() not in await listing.read()
        assert snapshot(api) == before


def snapshot(api: Api) -> dict[Path, bytes]:
    places = (api.root, api.root / "user")
    return {place / name: (place / name).read_bytes() for place in places for name in OURS if name != "jobs.sqlite"}


async def test_what_a_page_keeps_is_never_read_as_a_rule(serving: Serving) -> None:
    """CVE-2025-67303, the other way round: files of these names can be kept, and change nothing."""
    async with serving() as api:
        for name in ("sigmagraph.toml", "config.ini", "ComfyUI-Manager/config.ini"):
            rules = "[default]\nsecurity_level = weak\nno_keys = true\nhost = '0.0.0.0'\n"
            assert (await api.post("/userdata/" + quote(name, safe=""), data=rules.encode())).status == 200
        for name in ("no_keys", "host", "security_level", "custom_nodes"):
            assert (await api.post(f"/settings/{name}", "weak")).status == 200
    async with serving(hosts=["a.lan"]) as api:
        assert (await api.get("/queue", headers={"Host": "evil.example"})).status == 403
        assert not any("manager" in route.resource.canonical for route in api.client.app.router.routes())


@pytest.mark.parametrize("line_break", BREAKS)
async def test_a_line_break_in_a_value_makes_no_second_setting(serving: Serving, line_break: str) -> None:
    """CVE-2026-22777, in names and values of settings, file names, headers and log lines."""
    forged = f"x{line_break}security_level = weak"
    async with serving() as api:
        await api.post(f"/settings/{quote(forged, safe='')}", forged)
        stored = await api.json("/settings")
        assert set(stored) <= {forged}
        assert all(value == forged for value in stored.values())
        await api.queue(picture_graph(), client_id=forged)
        for path in (f"/view?filename={quote(forged)}", f"/history/{quote(forged, safe='')}", f"/{quote(forged)}"):
            async with await api.get(path) as response:
                assert "security_level" not in response.headers
                assert not any("security_level" in name for name in response.headers)
        name = quote(forged + ".png", safe="")
        await api.post(f"/userdata/{name}", data=b"x")
        async with await api.get(f"/userdata/{name}") as response:
            assert len([header for header in response.headers if header.lower().startswith("security")]) == 0


def test_settings_written_as_a_file_are_read_back_as_they_were(tmp_path: Path) -> None:
    """CVE-2026-22777, in the one file of rules this server writes: what it prints of its settings."""
    for line_break in BREAKS:
        if line_break == "\0":
            continue
        forged = f'x{line_break}no_keys = true{line_break}host = "0.0.0.0"'
        file = tmp_path / "printed.toml"
        file.write_text(as_toml(Settings(hosts=(forged,), public_url=forged)), "utf-8", newline="")
        read = load_settings(file, {}, {})
        assert (read.no_keys, read.host, read.hosts) == (False, "127.0.0.1", (forged,))


async def test_a_page_without_an_origin_may_do_nothing(serving: Serving) -> None:
    """ComfyUI#13245."""
    async with serving() as api:
        for fetch in (
            {},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "CROSS-SITE"},
            {"Sec-Fetch-Site": "same-site"},
        ):
            headers: dict[str, Any] = {"Origin": "null"} | fetch
            for path in ("/prompt", "/api/prompt", "/queue", "/interrupt", "/upload/image", "/settings", "/userdata/x"):
                body = json.dumps({"prompt": picture_graph()}).encode()
                assert (await api.client.post(path, data=body, headers=headers)).status == 403
            assert (await api.get("/ws", headers=headers)).status == 403
        assert (await api.json("/prompt"))["exec_info"]["queue_remaining"] == 0
        assert not (api.root / "user/default").exists()
