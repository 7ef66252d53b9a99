"""Keys, origins, hosts: who may ask, and that nobody sees what is another's."""

import base64
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.server.conftest import Api, Serving, is_end
from tests.server.known_keys import FixedKeys, account
from tests.server.stubs import picture_graph, slow_graph

KEYS = FixedKeys(
    {
        "key-a": account("ann"),
        "key-b": account("bob"),
        "key-r": account("reader", frozenset({"read"})),
        "key-x": account("root", frozenset({"admin"})),
    }
)


def key(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer key-{name}"}


async def ann_works(api: Api) -> tuple[str, str]:
    """Ann has an ended job with a picture, a running one, an upload, a file and a setting."""
    done = await api.queue(picture_graph(0x123456), headers=key("a"), client_id="secret-client")
    await api.jobs.wait(done, timeout_s=20)
    form = aiohttp.FormData()
    form.add_field("image", b"secret picture", filename="secret.png")
    await api.client.post("/upload/image", data=form, headers=key("a"))
    await api.post("/userdata/workflows%2Fsecret.json", {"secret": 1}, headers=key("a"))
    await api.post("/settings/secret", "secret", headers=key("a"))
    running = await api.queue(slow_graph(7), headers=key("a"), client_id="secret-client")
    await api.running(running)
    return done, running


async def test_nothing_of_one_key_is_visible_to_another_on_any_route(serving: Serving) -> None:
    async with serving(keys=KEYS) as api:
        done, running = await ann_works(api)
        paths = [
            *("/queue", "/history", "/prompt", "/jobs", "/settings", "/v2/userdata", "/object_info", "/system_stats"),
            *(f"/history/{done}", f"/jobs/{done}", f"/jobs/{running}", f"/jobs/{done}/events", "/settings/secret"),
            *("/view?filename=x_00001_.png", "/view?filename=secret.png&type=input"),
            *("/view?filename=x_00001_.png&subfolder=.owners/ann", "/view?filename=x_00001_.png&subfolder=../ann"),
            *(
                "/userdata?dir=workflows&recurse=true",
                "/userdata/workflows%2Fsecret.json",
                "/userdata/..%2Fann%2Fsecret",
            ),
            *("/users", "/models", "/embeddings", "/extensions", "/features", "/i18n"),
        ]
        plain = ["/internal/logs", "/internal/logs/raw", "/internal/files/output", "/internal/files/input"]
        for path in [prefix + path for path in paths for prefix in ("", "/api")] + plain:
            response = await api.get(path, headers=key("b"))
            text = (await response.read()).decode("utf-8", "replace")
            for trace in ("secret picture", "x_00001_", "secret.png", done, running, "secret-client", '"secret"'):
                is_echo = path.startswith(("/jobs/", "/api/jobs/")) and response.status == 404
                assert trace not in text or is_echo, (path, trace)
            if done in path or running in path:
                assert response.status == 404 or text == "{}", path
        assert (await api.json("/prompt", headers=key("b")))["exec_info"]["queue_remaining"] == 0


async def test_nothing_of_one_key_can_be_changed_by_another(serving: Serving) -> None:
    async with serving(keys=KEYS) as api:
        done, running = await ann_works(api)
        waiting = await api.queue(slow_graph(8), headers=key("a"))
        for path, body in (
            ("/interrupt", None),
            ("/interrupt", {"prompt_id": running}),
            ("/queue", {"clear": True}),
            ("/queue", {"delete": [waiting]}),
            ("/history", {"clear": True}),
            ("/history", {"delete": [done]}),
            (f"/jobs/{running}/cancel", None),
            ("/jobs/cancel", {"job_ids": [running, waiting]}),
        ):
            assert (await api.post(path, body, headers=key("b"))).status == 200, path
        assert (await api.client.delete("/userdata/workflows%2Fsecret.json", headers=key("b"))).status == 404
        assert (await api.post("/free", {"unload_models": True}, headers=key("b"))).status == 403
        states = {job.id: str(job.state) for job in [await api.jobs.get(i) for i in (done, running, waiting)]}
        assert states == {done: "succeeded", running: "running", waiting: "queued"}
        same = await api.post("/prompt", {"prompt": picture_graph(), "prompt_id": done}, headers=key("b"))
        assert same.status == 400


async def test_a_socket_hears_its_own_key_only_even_with_the_same_client_id(serving: Serving) -> None:
    async with serving(keys=KEYS) as api, AsyncExitStack() as sockets:
        ann = await sockets.enter_async_context(api.socket("c", headers=key("a")))
        bob = await sockets.enter_async_context(api.socket("c", headers=key("b")))
        await api.queue(picture_graph(), headers=key("a"), client_id="c")
        await ann.until(is_end)
        mine = await api.queue(picture_graph(1), headers=key("b"), client_id="c")
        heard = await bob.until(is_end)
        ids = {m["data"]["prompt_id"] for m in heard if m["type"] != "status"}
        assert ids == {mine}


async def test_without_a_key_only_health_and_login_answer(serving: Serving) -> None:
    async with serving(keys=KEYS) as api:
        for path in ("/", "/queue", "/api/history", "/view?filename=x", "/ws", "/metrics", "/ready", "/internal/logs"):
            response = await api.get(path)
            assert response.status == 401, path
        assert (await api.get("/health")).status == 200
        assert (await api.get("/queue", headers={"Authorization": "Bearer key-q"})).status == 401
        page = await api.get("/", headers={"Accept": "text/html"})
        assert (page.status, str(page.url.path)) == (200, "/login")


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": "Bearer key-a"}, {"X-API-Key": "key-a"}, {"Authorization": "Basic dTprZXktYQ=="}],
)
async def test_a_key_may_come_in_the_ways_clients_have(serving: Serving, headers: dict[str, str]) -> None:
    async with serving(keys=KEYS) as api:
        assert (await api.get("/queue", headers=headers)).status == 200


async def test_logging_in_keeps_the_key_where_no_script_reads_it(serving: Serving) -> None:
    async with serving(keys=KEYS) as api:
        wrong = await api.client.post("/login", data={"key": "nope"})
        assert wrong.status == 401
        right = await api.client.post("/login", data={"key": "key-a"}, allow_redirects=False)
        assert right.status == 303
        cookie = right.cookies["sigmagraph_key"]
        assert (bool(cookie["httponly"]), cookie["samesite"]) == (True, "Strict")


async def test_on_a_public_bind_a_cookie_counts_for_pages_of_this_server_only(serving: Serving) -> None:
    async with serving(keys=KEYS, host="0.0.0.0", public_url="https://pictures.example/") as api:
        cookie, here = {"Cookie": "sigmagraph_key=key-a"}, {"Host": "studio.lan:8188"}
        link = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        for more, status in (
            ({}, 200),
            ({"Origin": "http://studio.lan:8188"}, 200),
            ({"Origin": "https://pictures.example"}, 200),
            ({"Sec-Fetch-Site": "same-origin"}, 200),
            (link, 200),
            (link | {"Sec-Fetch-Dest": "iframe"}, 403),
            ({"Sec-Fetch-Site": "same-site"}, 403),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Origin": "null"}, 403),
            ({"Origin": "http://other.lan"}, 403),
            ({"Origin": "http://studio.lan:9999"}, 403),
            ({"Origin": "http://studio.lan"}, 403),  # the web server at port 80 of the same machine
            ({"Origin": "https://studio.lan"}, 403),
            ({"Origin": "https://studio.lan", "Sec-Fetch-Site": "same-origin"}, 200),  # a proxy told its own port
        ):
            for path in ("/queue", "/api/queue"):
                assert (await api.get(path, headers=cookie | here | more)).status == status, more
            keyed = await api.get("/queue", headers=cookie | here | more | key("a"))
            assert keyed.status == 200, more  # whoever shows a key means it
        password = {"Authorization": "Basic " + base64.b64encode(b"x:key-a").decode()}  # browsers send it by themselves
        for more, status in (({}, 200), ({"Origin": "http://studio.lan:8188"}, 200), ({"Origin": "http://evil"}, 403)):
            assert (await api.get("/queue", headers=password | here | more)).status == status, more
        other = {"Authorization": "Negotiate abc", "Origin": "http://evil"}
        assert (await api.get("/queue", headers=cookie | here | other)).status == 403
        for path in ("/login", "/logout"):
            forged = await api.client.post(
                path, data={"key": "key-b"}, headers=here | {"Origin": "http://evil.example"}
            )
            assert (forged.status, "Set-Cookie" in forged.headers) == (403, False)
        own = here | {"Origin": "http://studio.lan:8188"}
        assert (
            await api.client.post("/login", data={"key": "key-a"}, headers=own, allow_redirects=False)
        ).status == 303


async def test_with_cors_a_cookie_still_counts_for_known_pages_only(serving: Serving) -> None:
    cookie = {"Cookie": "sigmagraph_key=key-a"}
    for allowed in ("*", "https://app.example"):
        async with serving(keys=KEYS, cors_origin=allowed) as api:
            foreign = await api.get("/queue", headers=cookie | {"Origin": "https://evil.example"})
            assert foreign.status == 403
            known = await api.get("/queue", headers=cookie | {"Origin": "https://app.example"})
            assert known.status == (200 if allowed != "*" else 403)


async def test_replies_to_somebody_are_kept_by_nobody(serving: Serving, tmp_path: Path) -> None:
    root = tmp_path / "page"
    root.mkdir()
    (root / "index.html").write_text("x")
    (root / "logo.png").write_text("x")
    async with serving(keys=KEYS, frontend_root=root) as api:
        await api.post("/userdata/x.png", data=b"mine", headers=key("a"))
        await api.post("/userdata/app.js", data=b"mine", headers=key("a"))
        done = await api.queue(picture_graph(), headers=key("a"))
        await api.jobs.wait(done, timeout_s=20)
        for path in (
            *(
                "/userdata/x.png",
                "/userdata/app.js",
                "/history/x.png",
                "/jobs/x.png",
                "/queue",
                "/view?filename=x_00001_.png",
            ),
            *("/settings/x.png", "/nothing.png", "/templates/index.json", "/login", "/userdata/nothing.png"),
        ):
            response = await api.get(path, headers=key("a"))
            assert response.headers["Cache-Control"] == "private, no-store", path
        assert (await api.get("/queue/x.png")).headers["Cache-Control"] == "private, no-store"
        assert "public" in (await api.get("/logo.png", headers=key("a"))).headers["Cache-Control"]


async def test_a_reading_key_submits_nothing(serving: Serving) -> None:
    async with serving(keys=KEYS) as api:
        assert (await api.get("/history", headers=key("r"))).status == 200
        assert (await api.post("/prompt", {"prompt": picture_graph()}, headers=key("r"))).status == 403
        assert (await api.get("/metrics", headers=key("a"))).status == 403
        assert (await api.get("/metrics", headers=key("x"))).status == 200


async def origin(api: Api, **headers: str) -> int:
    return (await api.get("/queue", headers={name.replace("_", "-"): value for name, value in headers.items()})).status


async def test_pages_of_other_sites_may_not_call(serving: Serving) -> None:
    async with serving() as api:
        here = f"127.0.0.1:{api.client.port}"
        assert await origin(api, Origin=f"http://{here}") == 200
        assert await origin(api, Origin="http://127.0.0.1") == 200
        assert await origin(api, Origin="null", Sec_Fetch_Site="same-origin") == 200
        assert await origin(api) == 200
        assert await origin(api, Origin="null") == 403
        assert await origin(api, Origin="null", Sec_Fetch_Site="cross-site") == 403
        assert await origin(api, Origin=f"http://localhost:{api.client.port}") == 403
        assert await origin(api, Origin="http://127.0.0.1:1") == 403
        assert await origin(api, Origin="https://evil.example") == 403
        assert await origin(api, Origin="http://[") == 403
        for path in ("/ws", "/api/ws", "/prompt"):
            for foreign in ("https://evil.example", "null"):  # ComfyUI#13245: a sandboxed frame has no origin
                assert (await api.get(path, headers={"Origin": foreign})).status == 403


async def test_a_name_that_was_re_pointed_at_this_machine_is_refused(serving: Serving) -> None:
    async with serving(hosts=["Studio.lan"]) as api:
        assert await origin(api, Host="evil.example:80", Origin="http://evil.example:80") == 403
        assert await origin(api, Host="studio.lan", Origin="http://studio.lan") == 200
        assert await origin(api, Host="localhost:8188") == 200


async def test_an_allowed_origin_is_marked_on_every_answer(serving: Serving) -> None:
    async with serving(cors_origin="https://app.example") as api:
        for path in ("/queue", "/nothing"):
            response = await api.get(path, headers={"Origin": "https://app.example"})
            assert response.headers["Access-Control-Allow-Origin"] == "https://app.example"
            assert response.headers["Access-Control-Allow-Credentials"] == "true"


async def test_a_page_of_the_allowed_origin_is_told_beforehand_what_it_may_send(serving: Serving) -> None:
    asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    async with serving(cors_origin="https://app.example", keys=KEYS) as api:
        response = await api.client.options("/prompt", headers=asked)
        assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (200, "https://app.example")
        assert "POST" in response.headers["Access-Control-Allow-Methods"]
        assert "Authorization" in response.headers["Access-Control-Allow-Headers"]
    async with serving() as api:
        response = await api.client.options("/prompt", headers=asked)
        assert (response.status, "Access-Control-Allow-Origin" in response.headers) == (200, False)


async def test_bodies_beyond_the_limit_are_refused(serving: Serving) -> None:
    async with serving(max_upload_mb=0.01) as api:
        large = json.dumps({"prompt": {}, "x": "y" * 20_000}).encode()
        for path in ("/prompt", "/settings", "/userdata/x.json"):
            assert (await api.post(path, data=large)).status == 413


async def test_an_error_of_ours_reaches_the_client_without_a_traceback(serving: Serving, monkeypatch: Any) -> None:
    async with serving() as api:

        async def broken(*_: Any) -> Any:
            raise RuntimeError("with a secret")

        monkeypatch.setattr(api.jobs, "counts", broken)
        response = await api.get("/prompt")
        assert response.status == 500
        assert "secret" not in await response.text()
