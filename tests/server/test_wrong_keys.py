"""Keys that are tried, graphs that are sent too fast, and names that a client makes up for this server."""

import time
from pathlib import Path
from typing import Any

import pytest

from sigmagraph.engine.errors import few_hints, nearest
from sigmagraph.engine.graph.validate import validate
from sigmagraph.engine.graph.workflow import Link, Workflow, WorkflowNode
from sigmagraph.engine.server.access.wrong_keys import TooManyWrongKeys, WrongKeys, place_of
from tests.server.conftest import Serving
from tests.server.endpoints.conftest import LARGE, SMALL
from tests.server.endpoints.conftest import serving as endpoints
from tests.server.known_keys import FixedKeys, account
from tests.server.stubs import NODES, picture_graph
from tests.server.test_security import KEYS, key

V2 = LARGE.replace("/v1/", "/v2/")


def test_wrong_keys_of_one_address_hold_up_its_unknown_keys_alone() -> None:
    now = [0.0]
    wrong_keys = WrongKeys(3.0, lambda: now[0])
    wrong_keys.tell("10.0.0.1", "right", is_right=True)
    for turn in range(3):
        wrong_keys.check("10.0.0.1", f"wrong-{turn}")
        wrong_keys.tell("10.0.0.1", f"wrong-{turn}", is_right=False)
    with pytest.raises(TooManyWrongKeys, match="try again in 20 s"):
        wrong_keys.check("10.0.0.1", "wrong-4")
    wrong_keys.check("10.0.0.1", "right")
    wrong_keys.check("10.0.0.2", "wrong-4")
    wrong_keys.tell("10.0.0.2", "right", is_right=False)  # withdrawn meanwhile
    with pytest.raises(TooManyWrongKeys):
        wrong_keys.check("10.0.0.1", "right")
    now[0] = 21.0
    wrong_keys.check("10.0.0.1", "wrong-4")


def test_a_network_of_ipv6_counts_as_one() -> None:
    assert place_of("2001:db8::1") == place_of("2001:db8::ffff:1") != place_of("2001:db8:0:1::1")
    assert place_of("10.0.0.1") != place_of("10.0.0.2")
    assert place_of("::ffff:10.0.0.1") == place_of("10.0.0.1") != place_of("::ffff:10.0.0.2")
    assert place_of(None) == place_of("not an address") == ""


@pytest.mark.parametrize("path", ["/queue", "/login"])
async def test_guessing_keys_ends_in_a_429_on_every_door(serving: Serving, path: str) -> None:
    async with serving(keys=KEYS) as api:
        assert (await api.get("/queue", headers=key("a"))).status == 200
        seen = []
        for turn in range(61):
            tried = {"key": f"guess-{turn}"}
            response = (
                await api.client.post(path, data=tried)
                if path == "/login"
                else await api.get(path, headers={"X-API-Key": tried["key"]})
            )
            seen.append(response.status)
        assert seen == [401] * 60 + [429]
        assert 0 < int(response.headers["Retry-After"]) <= 60
        assert (await api.get("/queue", headers=key("a"))).status == 200  # it worked before
        assert (await api.get("/queue", headers=key("b"))).status == 429
        assert (await api.get("/queue")).status == 401


async def test_guessing_keys_at_published_workflows_is_a_429(tmp_path: Path) -> None:
    async with endpoints(tmp_path) as served:
        headers = await served.key()
        assert (await served.client.get("/v1/get-user-credits", headers=headers)).status == 200
        statuses = [
            (await served.client.get("/v1/get-user-credits", headers={"x-api-key": f"g{turn}"})).status
            for turn in range(61)
        ]
        assert statuses == [401] * 60 + [429]
        assert (await served.client.get("/v1/get-user-credits", headers=headers)).status == 200


async def test_graphs_are_taken_at_the_rate_of_their_key(serving: Serving) -> None:
    slow = account("ann", requests_per_minute=2.0)
    keys = FixedKeys({"key-a": slow, "key-b": account("bob")})
    async with serving(keys=keys, requests_per_minute=4.0) as api:
        for name, count in (("a", 2), ("b", 4)):
            statuses = [
                (await api.post("/prompt", {"prompt": picture_graph(turn)}, headers=key(name))).status
                for turn in range(count + 1)
            ]
            assert statuses == [200] * count + [429]
        late = await api.post("/workflows/none/run", {}, headers=key("a"))
        assert late.status == 404  # nothing was submitted
    async with serving(requests_per_minute=1.0) as api:
        for turn in range(5):
            await api.queue(picture_graph(turn))  # without keys nobody is counted


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/inspect", {"workflow": picture_graph()}),
        ("/replay", {"workflow": picture_graph(), "dry_run": True}),
        ("/workflows/mine", {"workflow": picture_graph()}),
    ],
)
async def test_a_graph_that_is_read_and_not_run_counts_too(serving: Serving, path: str, body: object) -> None:
    async with serving(keys=FixedKeys({"key-a": account("ann", requests_per_minute=2.0)})) as api:
        answers = [await api.post(path, body, headers=key("a")) for _ in range(3)]
        assert [answer.status < 300 for answer in answers] == [True, True, False]
        assert (answers[2].status, int(answers[2].headers["Retry-After"]) > 0) == (429, True)


async def test_a_replay_that_runs_counts_once(serving: Serving) -> None:
    async with serving(keys=FixedKeys({"key-a": account("ann", requests_per_minute=2.0)})) as api:
        body = {"workflow": picture_graph()}
        assert [(await api.post("/replay", body, headers=key("a"))).status for _ in range(3)] == [200, 200, 429]


async def test_a_name_a_client_made_up_is_in_no_url_and_no_webhook(tmp_path: Path) -> None:
    async with endpoints(tmp_path) as served:
        headers = await served.key()
        server = f"http://127.0.0.1:{served.client.port}"
        for forged in ("evil.example", "evil.example:8188", "127.0.0.1.evil.example", "", "a b", "[::1", "@evil"):
            response = await served.client.post(V2, json=SMALL, headers=headers | {"Host": forged})
            if response.status == 403:  # a loopback server knows its names
                continue
            body: Any = await response.json()
            assert body["status_url"].startswith(server + "/"), (forged, body)
            job = await served.jobs.get(body["request_id"])
            assert job.meta["base"] == server
    for bind, host, allowed in (
        ("0.0.0.0", "evil.example", False),
        ("0.0.0.0", "studio.lan:9000", True),
        ("0.0.0.0", "localhost:9000", True),
    ):
        async with endpoints(tmp_path, settings={"host": bind, "hosts": ("studio.lan",)}) as served:
            response = await served.client.post(V2, json=SMALL, headers=await served.key() | {"Host": host})
            expected = f"http://{host}" if allowed else f"http://127.0.0.1:{served.client.port}"
            assert (await response.json())["status_url"].startswith(expected + "/")
            described = await (await served.client.get("/openapi.json", headers={"Host": host})).json()
            assert described["servers"][0]["url"] == expected


def test_20000_near_misses_cost_a_few_searches() -> None:
    nodes = {str(i): WorkflowNode("EmptyImag", {}) for i in range(20_000)}
    links = {str(i): WorkflowNode("SaveImage", {"images": Link(f"{i}x", 0)}) for i in range(20_000)}
    for workflow in (Workflow(nodes), Workflow(links)):
        begun = time.process_time()
        with pytest.raises(Exception, match="EmptyImag|not in the workflow") as raised:
            validate(workflow, NODES)
        assert time.process_time() - begun < 5.0  # 8 s and, for links, hours
        problems = raised.value.problems  # type: ignore[attr-defined]
        assert len(problems) >= 20_000
    assert nearest("EmptyImag", NODES) == "EmptyImage"
    with few_hints(len(NODES)):
        assert [nearest("EmptyImag", NODES) for _ in range(3)] == ["EmptyImage", None, None]
