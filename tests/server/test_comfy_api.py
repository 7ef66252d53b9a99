"""Comfy API v2: jobs, events and assets by the letter of its contract."""

import asyncio
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import aiohttp
import blake3
import pytest
from PIL import Image

from sigmagraph.engine.jobs.events import JobEvent, Started
from sigmagraph.engine.server.comfy_api.job_json import place_of
from sigmagraph.engine.server.comfy_api.progress import needed
from tests.server.conftest import Api, Serving
from tests.server.known_keys import FixedKeys, account
from tests.server.stubs import picture_graph, png, slow_graph

JOBS, ASSETS = "/api/v2/jobs", "/api/v2/assets"


async def submitted(api: Api, workflow: Any = None, status: int = 201, **more: Any) -> Any:
    headers = more.pop("headers", None)
    body = {"workflow": picture_graph() if workflow is None else workflow, **more}
    async with await api.post(JOBS, body, headers=headers) as response:
        found = await response.json()
        assert response.status == status, found
        return found


async def ended(api: Api, job_id: str) -> Any:
    await api.jobs.wait(job_id, timeout_s=20)
    return await api.json(f"{JOBS}/{job_id}")


async def code(response: aiohttp.ClientResponse) -> str:
    body = await response.json()
    assert set(body) == {"error"}, body
    assert isinstance(body["error"]["message"], str)
    return str(body["error"]["code"])


def upload(data: bytes, path: str = "photo.png", **more: str) -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field("file_path", path)
    for name, value in more.items():
        form.add_field(name, value)
    form.add_field("file", data, filename="photo.png", content_type="image/png")
    return form


def frames(text: str) -> list[tuple[str, str, Any]]:
    """Number, name and data of each event."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields.get("id", ""), fields["event"], json.loads(fields["data"])))
    return found


async def test_a_job_runs_and_its_picture_is_an_asset(serving: Serving) -> None:
    async with serving() as api:
        first = await submitted(api, metadata={"team": "a"})
        assert first["status"] in ("queued", "running", "succeeded")
        assert first["urls"] == {
            "self": f"{JOBS}/{first['id']}",
            "events": f"{JOBS}/{first['id']}/events",
            "cancel": f"{JOBS}/{first['id']}/cancel",
        }
        job = await ended(api, first["id"])
        assert (job["status"], job["error"], job["metadata"]) == ("succeeded", None, {"team": "a"})
        assert job["created_at"] <= job["started_at"] <= job["completed_at"] < job["expires_at"]
        [output] = job["outputs"]
        assert (output["node_id"], output["type"], output["content_type"]) == ("9", "image", "image/png")
        content = await api.get(f"{ASSETS}/{output['id']}/content")
        data = await content.read()
        assert (content.status, len(data)) == (200, output["size_bytes"])
        asset = await api.json(f"{ASSETS}/{output['id']}")
        assert asset["hash"] == "blake3:" + blake3.blake3(data).hexdigest()
        assert asset["job_id"] == job["id"]
        part = await api.get(f"{ASSETS}/{output['id']}/content", headers={"Range": "bytes=1-3"})
        assert (part.status, await part.read()) == (206, data[1:4])
        assert (await api.client.delete(f"{ASSETS}/{output['id']}")).status == 422


async def test_events_tell_the_course_and_go_on_where_a_reader_stopped(serving: Serving) -> None:
    async with serving() as api:
        job = await submitted(api)
        whole = frames(await (await api.get(f"{JOBS}/{job['id']}/events")).text())
        states = [data["status"] for _, name, data in whole if name == "status"]
        assert states == ["queued", "running", "succeeded"]
        assert whole[-1][1:] == ("status", {"status": "succeeded", "queue_position": None})
        [output] = [data for _, name, data in whole if name == "output"]
        assert output == (await ended(api, job["id"]))["outputs"][0]
        numbers = [int(number.partition(".")[0]) for number, *_ in whole]
        assert numbers == sorted(numbers)
        last = [data["value"] for _, name, data in whole if name == "progress"][-1]
        assert last == 1.0
        middle = numbers[len(numbers) // 2]
        rest = await api.get(f"{JOBS}/{job['id']}/events", headers={"Last-Event-ID": str(middle)})
        told = frames(await rest.text())
        assert min(int(number.partition(".")[0]) for number, *_ in told) > middle
        later = [event for event, number in zip(whole, numbers, strict=True) if number > middle]
        firm = [event for event in later if event[1] != "progress"]  # progress is thinned by time
        assert [event for event in told if event[1] != "progress"] == firm
        for wrong in ("x", "1.", ".1", "1.x", "1.2.3", "-1"):
            assert await code(await api.get(f"{JOBS}/{job['id']}/events?after={wrong}")) == "invalid_request"


async def test_a_cut_between_what_one_event_made_loses_and_repeats_nothing(serving: Serving) -> None:
    """The saving node's end is a progress and an output; a reader is cut off after each event."""
    async with serving() as api:
        job = await submitted(api)
        await ended(api, job["id"])
        whole = frames(await (await api.get(f"{JOBS}/{job['id']}/events")).text())
        ids = [event_id for event_id, *_ in whole]
        assert len(set(ids)) == len(ids)
        assert ids[-3:-1] == [f"{ids[-2]}.0", ids[-2]]
        for place, event_id in enumerate(ids):
            rest = await api.get(f"{JOBS}/{job['id']}/events", headers={"Last-Event-ID": event_id})
            told = [event for event in frames(await rest.text()) if event[1] != "progress"]
            assert told == [event for event in whole[place + 1 :] if event[1] != "progress"], event_id


async def test_a_running_job_says_how_far_it_is_shows_previews_and_is_cancelled(serving: Serving) -> None:
    async with serving() as api:
        job = await submitted(api, slow_graph())
        behind = await submitted(api, slow_graph(turn=1))
        await api.running(job["id"])
        async with await api.get(f"{JOBS}/{job['id']}/events") as response:
            seen = b""
            while b"event: preview" not in seen:
                seen += await asyncio.wait_for(response.content.readany(), 20)
        now = await api.json(f"{JOBS}/{job['id']}")
        assert now["status"] == "running"
        assert now["progress"]["nodes_total"] == len(slow_graph())
        assert 0 < now["progress"]["value"] < 1
        assert now["progress"]["current_node_class"] == "Slow"
        waiting = await api.json(f"{JOBS}/{behind['id']}")
        assert (waiting["status"], waiting["queue_position"], waiting["progress"]) == ("queued", 1, None)
        for stopped in (behind, job):
            stopping = await (await api.post(f"{JOBS}/{stopped['id']}/cancel")).json()
            assert stopping["status"] in ("canceling", "canceled")
            assert (await ended(api, stopped["id"]))["status"] == "canceled"
        again = await (await api.post(f"{JOBS}/{job['id']}/cancel")).json()
        assert again["status"] == "canceled"


async def test_a_failed_job_names_its_node(serving: Serving) -> None:
    graph = picture_graph() | {"9": {"class_type": "Fail", "inputs": {"images": ["5", 0], "how": "now"}}}
    async with serving() as api:
        job = await ended(api, (await submitted(api, graph))["id"])
        assert job["status"] == "failed"
        assert job["error"]["code"] == "node_execution_error"
        assert (job["error"]["node_id"], job["error"]["class_type"]) == ("9", "Fail")
        assert "failed now" in job["error"]["message"]


async def test_an_idempotency_key_is_for_one_job(serving: Serving) -> None:
    async with serving() as api:
        bad = {"1": {"class_type": "Nothing", "inputs": {}}}
        await submitted(api, bad, 422, headers={"Idempotency-Key": "k"})  # no job: the key stays free
        await submitted(api, headers={"Idempotency-Key": "k"})
        refused = await submitted(api, None, 422, headers={"Idempotency-Key": "k"})
        assert refused["error"]["code"] == "idempotency_key_reuse"
        assert len((await api.json(JOBS))["jobs"]) == 1
        assert (await submitted(api, None, 400, headers={"Idempotency-Key": "x" * 300}))["error"]["code"]


@pytest.mark.parametrize(
    ("body", "status", "wanted"),
    [
        ([], 400, "invalid_request"),
        ({}, 422, "invalid_workflow"),
        ({"workflow": {"1": {"class_type": "Nothing", "inputs": {}}}}, 422, "invalid_workflow"),
        ({"workflow": picture_graph(), "more": 1}, 400, "invalid_request"),
        ({"workflow": picture_graph(), "extra_data": {"a": 1}}, 400, "invalid_request"),
        ({"workflow": picture_graph(), "extra_data": {"api_key_comfy_org": None}}, 400, "invalid_request"),
        ({"workflow": picture_graph(), "metadata": {"a": 1}}, 422, "invalid_request"),
        ({"workflow": picture_graph(), "metadata": "x" * 5000}, 422, "invalid_request"),
        ({"workflow": picture_graph(), "priority": True}, 422, "invalid_request"),
        ({"workflow": picture_graph(), "priority": 10**6}, 422, "invalid_request"),
        ({"workflow": picture_graph(), "inputs": {"5.colour": 1}}, 422, "invalid_workflow"),
        ({"workflow": picture_graph(), "webhook_url": "file:///x"}, 422, "invalid_request"),
        ({"workflow": picture_graph(), "webhook_url": "http://x", "webhook_secret": "s"}, 422, "invalid_request"),
        ({"workflow": picture_graph() | {"5": {"class_type": "LoadImage", "inputs": {"image": {
            "__type": "core/ASSET", "info": {"id": "9f8a1c0d-2b3e-4f56-8a7b-1c2d3e4f5a6b"}}}}}}, 422, "missing_asset"),
        ({"workflow": {"5": {"class_type": "LoadImage", "inputs": {"image": {"__type": "core/ASSET"}}}}}, 422,
            "missing_asset"),
    ],
)  # fmt: skip
async def test_what_cannot_be_a_job_is_refused_with_its_code(
    serving: Serving, body: Any, status: int, wanted: str
) -> None:
    async with serving() as api:
        response = await api.post(JOBS, body)
        assert (response.status, await code(response)) == (status, wanted)
        assert (await api.json(JOBS))["jobs"] == []


async def test_a_keys_priority_orders_its_own_jobs_and_an_administrators_everybodys(serving: Serving) -> None:
    everything = frozenset({"read", "submit", "admin"})
    keys = FixedKeys({"a": account("ann"), "b": account("bob"), "c": account("chief", everything)})
    order: list[str] = []

    def listener(what: object) -> None:
        if isinstance(what, JobEvent) and isinstance(what.body, Started):
            order.append(what.owner)

    async with serving(keys=keys, slots=1) as api:
        await api.jobs.pause()
        first = await submitted(api, slow_graph(1), headers={"X-API-Key": "a"})
        later = await submitted(api, slow_graph(2), headers={"X-API-Key": "b"}, priority=1)
        sooner = await submitted(api, slow_graph(3), headers={"X-API-Key": "b"}, priority=1000)
        assert (later["queue_position"], sooner["queue_position"]) == (1, 1)
        at_once = await submitted(api, slow_graph(4), headers={"X-API-Key": "c"}, priority=1)
        api.jobs.listen(listener)
        await api.jobs.resume()
        for job in (at_once, first, sooner, later):
            await api.running(job["id"])
            await api.jobs.cancel(job["id"])
        assert order == ["chief", "ann", "bob", "bob"]


async def test_node_errors_are_told_by_node(serving: Serving) -> None:
    graph = picture_graph()
    graph["5"]["inputs"]["width"] = "wide"
    async with serving() as api:
        refused = await submitted(api, graph, 422)
        assert refused["error"]["details"]["node_errors"]["5"][0]["field"] == "width"


async def test_a_drawing_is_taken_and_given_back_and_inputs_are_set(serving: Serving) -> None:
    async with serving() as api:
        await api.post("/workflows/flat", {"workflow": picture_graph()})
        drawing = await api.json("/workflows/flat?form=editor")
        job = await submitted(api, drawing, inputs={"EmptyImage.color": 255})
        await ended(api, job["id"])
        kept = await api.json(f"{JOBS}/{job['id']}/workflow?format=api")
        assert (kept["format"], kept["workflow"]["5"]["inputs"]["color"]) == ("api", 255)
        plain = await submitted(api, drawing)
        assert (await api.json(f"{JOBS}/{plain['id']}/workflow"))["format"] == "save"


async def test_lists_go_by_page_state_and_label(serving: Serving) -> None:
    async with serving() as api:
        ids = []
        for number in range(5):
            made = await submitted(api, picture_graph(number), metadata={"odd": str(number % 2)})
            ids.append(made["id"])
            await ended(api, made["id"])
        first = await api.json(f"{JOBS}?limit=3")
        rest = await api.json(f"{JOBS}?limit=3&cursor={first['next_cursor']}")
        assert [job["id"] for job in (*first["jobs"], *rest["jobs"])] == ids[::-1]
        assert "next_cursor" not in rest
        odd = await api.json(f"{JOBS}?metadata%5Bodd%5D=1")
        assert [job["id"] for job in odd["jobs"]] == [ids[3], ids[1]]
        assert (await api.json(f"{JOBS}?status=queued,canceling"))["jobs"] == []
        for query in ("limit=0", "limit=x", "status=done", "cursor=-1"):
            assert await code(await api.get(f"{JOBS}?{query}")) == "invalid_request"


async def test_an_upload_is_kept_once_by_its_content_and_used_by_reference(serving: Serving) -> None:
    data = png(Image.new("RGB", (4, 4), "red"))
    digest = "blake3:" + blake3.blake3(data).hexdigest()
    async with serving() as api:
        assert (await api.client.head(f"{ASSETS}/by-hash/{digest}")).status == 404
        made = await api.post(ASSETS, data=upload(data, expected_hash=digest))
        asset = await made.json()
        assert (made.status, asset["hash"], asset["created_new"]) == (201, digest, True)
        assert (asset["size_bytes"], asset["content_type"], asset["file_path"]) == (len(data), "image/png", "photo.png")
        again = await api.post(ASSETS, data=upload(data, "other.png"))
        assert (again.status, (await again.json())["id"]) == (200, asset["id"])
        assert (await api.client.head(f"{ASSETS}/by-hash/{digest}")).status == 200
        minted = await api.post(f"{ASSETS}/from-hash", {"hash": digest})
        assert (await minted.json())["id"] == asset["id"]
        assert await (await api.get(f"{ASSETS}/{asset['id']}/content")).read() == data
        for info in ({"id": asset["id"]}, {"hash": digest}):
            graph = picture_graph()
            graph["5"] = {"class_type": "LoadImage", "inputs": {"image": {"__type": "core/ASSET", "info": info}}}
            assert (await ended(api, (await submitted(api, graph))["id"]))["status"] == "succeeded"
        assert (await api.client.delete(f"{ASSETS}/{asset['id']}")).status == 204
        assert await code(await api.get(f"{ASSETS}/{asset['id']}")) == "not_found"
        for output in (api.root / "output").glob("*.png"):  # the same picture, and an asset as well
            output.unlink()
        assert await code(await api.post(f"{ASSETS}/from-hash", {"hash": digest})) == "blob_not_found"
        assert not list((api.root / "input/assets").iterdir())


async def test_a_record_that_its_owner_forged_deletes_and_tells_nothing(serving: Serving, tmp_path: Path) -> None:
    """Records lie among the files that an owner may write by `/userdata`."""
    keys = FixedKeys({"k": account("ada")})
    headers = {"Authorization": "Bearer k"}
    victims = [tmp_path / "victim", tmp_path / "victim.json", tmp_path / "input/victim"]
    up = "../" * 24
    asset_id, away = "00000000-0000-4000-8000-000000000000", up + str(tmp_path).lstrip("/") + "/victim"
    sound = {"id": asset_id, "hash": "blake3:" + "0" * 64, "size_bytes": 1, "content_type": "image/png"}
    sound |= {"file_path": "x.png", "name": "assets/x.png", "created_at": 1.0}
    changes: list[dict[str, Any]] = [
        {"hash": "blake3:" + away}, {"id": away}, {"name": away}, {"name": "assets/.."}, {"name": "/etc/passwd"},
        {"size_bytes": "1"}, {"size_bytes": -(10**15)}, {"created_at": [1]}, {"created_at": 1e300}, {"name": "a\0b"},
        {"updated_at": 1e300}, {"updated_at": "x"}, {"tags": [[]]}, {"tags": "x"}, {"user_metadata": []}, {"more": 1},
    ]  # fmt: skip
    documents = [json.dumps(sound | change) for change in changes] + ["[" * 100_000, "7", "{}"]
    async with serving(keys=keys) as api:
        for victim in victims:
            victim.write_bytes(b"x")
        for document in documents:
            path = f"/userdata/assets%2F{asset_id}.json"
            assert (await api.post(path, data=document.encode(), headers=headers)).status == 200
            for method, rest in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
                response = await api.client.request(method, f"{ASSETS}/{asset_id}{rest}", headers=headers)
                assert (response.status, await code(response)) == (404, "not_found"), (document[:200], method)
            fresh = await api.post(ASSETS, data=upload(document.encode()), headers=headers)
            assert fresh.status == 201
        assert all(victim.is_file() for victim in victims)


async def test_room_for_assets_is_counted_on_the_disk(serving: Serving) -> None:
    """Not by records, which the owner may delete while the contents stay."""
    async with serving(max_assets_mb=0.001) as api:
        made = await (await api.post(ASSETS, data=upload(b"x" * 700))).json()
        assert (await api.client.delete(f"/userdata/assets%2F{made['id']}.json")).status == 204
        more = await api.post(ASSETS, data=upload(b"y" * 700))
        assert (more.status, await code(more)) == (413, "payload_too_large")


async def test_drafts_of_a_killed_server_take_no_room_for_ever(serving: Serving) -> None:
    async with serving(max_assets_mb=0.001) as api:
        folder = api.root / "input/assets"
        folder.mkdir()
        left, fresh = folder / ".draft-left", folder / ".draft-fresh"
        for draft in (left, fresh):
            draft.write_bytes(b"x" * 700)
        os.utime(left, (0, time.time() - 7200))
        refused = await api.post(ASSETS, data=upload(b"y" * 700))
        assert (refused.status, left.exists(), fresh.exists()) == (413, False, True)
        os.utime(fresh, (0, time.time() - 7200))
        assert (await api.post(ASSETS, data=upload(b"y" * 700))).status == 201
        assert not fresh.exists()


async def test_an_output_is_an_input_of_the_next_job(serving: Serving) -> None:
    async with serving() as api:
        made = await ended(api, (await submitted(api))["id"])
        graph = picture_graph()
        reference = {"__type": "core/ASSET", "info": {"id": made["outputs"][0]["id"]}}
        graph["5"] = {"class_type": "LoadImage", "inputs": {"image": reference}}
        assert (await ended(api, (await submitted(api, graph))["id"]))["status"] == "succeeded"


async def test_uploads_that_cannot_be_kept_are_refused(serving: Serving) -> None:
    async with serving(max_assets_mb=0.001) as api:
        for path in ("../x.png", "/etc/x.png", "models/x.safetensors", "checkpoints/x.safetensors"):
            refused = await api.post(ASSETS, data=upload(b"x", path))
            assert (refused.status, await code(refused)) == (422, "invalid_request"), path
        wrong = await api.post(ASSETS, data=upload(b"x", expected_hash="blake3:" + "0" * 64))
        assert (wrong.status, await code(wrong)) == (409, "hash_mismatch")
        large = await api.post(ASSETS, data=upload(b"x" * 2000))
        assert (large.status, await code(large)) == (413, "payload_too_large")
        assert await code(await api.post(ASSETS, {"file": 1})) == "invalid_request"
        assert not list((api.root / "input").rglob("*.png"))


async def test_an_output_is_found_by_its_hash_by_its_owner_alone(serving: Serving) -> None:
    keys = FixedKeys({name: account(name) for name in ("ann", "bob")})
    async with serving(keys=keys) as api:
        ann, bob = ({"Authorization": f"Bearer {name}"} for name in ("ann", "bob"))
        job = await submitted(api, headers=ann)
        await api.jobs.wait(job["id"], timeout_s=20)
        output = (await api.json(f"{JOBS}/{job['id']}", headers=ann))["outputs"][0]
        data = await (await api.get(f"{ASSETS}/{output['id']}/content", headers=ann)).read()
        digest = "blake3:" + blake3.blake3(data).hexdigest()

        async def known(who: Any, digest: str) -> int:
            return (await api.client.head(f"{ASSETS}/by-hash/{digest}", headers=who)).status

        assert [await known(ann, digest), await known(bob, digest), await known(ann, "blake3:" + "0" * 64)] == [
            200, 404, 404,
        ]  # fmt: skip
        found = await (await api.post(f"{ASSETS}/from-hash", {"hash": digest}, headers=ann)).json()
        wanted = {"id": output["id"], "hash": digest, "size_bytes": len(data), "created_new": False}
        assert {name: found[name] for name in wanted} == wanted
        assert await code(await api.post(f"{ASSETS}/from-hash", {"hash": digest}, headers=bob)) == "blob_not_found"
        reference = {"__type": "core/ASSET", "info": {"hash": digest}}
        graph = {"1": {"class_type": "LoadImage", "inputs": {"image": reference}}}
        graph["2"] = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}
        again = await submitted(api, graph, headers=ann)
        assert (await api.jobs.wait(again["id"], timeout_s=20)).state == "succeeded"
        await submitted(api, graph, 422, headers=bob)
        path = next((api.root / "output").rglob(output["name"]))
        path.write_bytes(data + b"more")  # what is there now counts
        changed = blake3.blake3(data + b"more").hexdigest()
        assert await known(ann, digest) == 200  # the second job's
        for left in (api.root / "output").rglob("*.png"):
            left.write_bytes(data + b"more")
        assert [await known(ann, digest), await known(ann, changed)] == [404, 200]
        for left in (api.root / "output").rglob("*.png"):
            left.unlink()
        assert await known(ann, changed) == 404


async def test_a_file_of_the_input_folder_is_registered_where_it_lies(serving: Serving) -> None:
    async with serving() as api:
        path = api.root / "input/here.png"
        path.write_bytes(png(Image.new("RGB", (4, 4))))
        made = await api.post(f"{ASSETS}/from-path", {"path": str(path)})
        asset = await made.json()
        assert (made.status, asset["file_path"]) == (201, "here.png")
        assert (await api.client.delete(f"{ASSETS}/{asset['id']}")).status == 204
        assert path.is_file()
        for text in ("/etc/passwd", "here.png", str(path.parent / "../x")):
            assert await code(await api.post(f"{ASSETS}/from-path", {"path": text})) == "invalid_request"
        assert await code(await api.post(f"{ASSETS}/from-path", {"path": str(path) + "x"})) == "blob_not_found"


async def test_what_is_not_there_is_told_in_the_envelope(serving: Serving) -> None:
    async with serving() as api:
        for path in (f"{JOBS}/none", f"{JOBS}/none/events", f"{JOBS}/none/workflow", f"{ASSETS}/none",
                     f"{ASSETS}/none.WyI5Il0/content", f"{ASSETS}/a.b"):  # fmt: skip
            response = await api.get(path)
            assert (response.status, await code(response)) == (404, "not_found"), path
        wrong = await api.client.put(JOBS)
        assert (wrong.status, await code(wrong)) == (405, "method_not_allowed")
        assert await api.json("/api/v2/health") == {"status": "healthy"}


def test_only_what_the_targets_need_is_counted() -> None:
    graph = picture_graph() | {"1": {"class_type": "Text", "inputs": {}}}
    assert needed(graph, ["9"]) == {"5", "9"}
    assert place_of("no-place") is None
    assert place_of("job." + hashlib.sha256(b"x").hexdigest()) is None
