"""Stored workflows over HTTP: versions, parameters by name, refusals."""

from typing import Any

import pytest

from tests.server.conftest import Api, Serving
from tests.server.stubs import picture_graph


def titled() -> dict[str, Any]:
    graph = picture_graph()
    graph["5"]["_meta"] = {"title": "Canvas"}
    graph["9"]["_meta"] = {"title": "Result"}
    return graph


async def saved(api: Api, name: str = "flat", **more: Any) -> Any:
    async with await api.post(f"/workflows/{name}", {"workflow": titled(), **more}) as response:
        body = await response.json()
        assert response.status == 201, body
        return body


async def test_a_workflow_is_kept_in_versions_and_can_be_fetched_in_both_forms(serving: Serving) -> None:
    async with serving() as api:
        assert (await saved(api))["version"] == 1
        assert (await saved(api, description="again"))["version"] == 2
        listed = (await api.json("/workflows"))["workflows"]
        assert [(workflow["name"], workflow["version"], workflow["description"]) for workflow in listed] == [
            ("flat", 2, "again")
        ]
        assert await api.json("/workflows/flat/versions") == {"versions": [1, 2]}
        assert await api.json("/api/workflows/flat?form=api") == titled()
        assert (await api.get(f"/workflows/flat?version={'9' * 4500}")).status == 400
        drawing = await api.json("/workflows/flat?form=editor&version=1")
        assert [node["type"] for node in drawing["nodes"]] == ["EmptyImage", "SaveImage"]


async def test_a_drawing_is_kept_as_it_was_sent(serving: Serving) -> None:
    async with serving() as api:
        await saved(api)
        drawing = await api.json("/workflows/flat?form=editor")
        await api.post("/workflows/drawn", {"workflow": drawing})
        assert await api.json("/workflows/drawn?form=editor") == drawing
        prompt = await api.json("/workflows/drawn?form=api")
        assert {node_id: node["inputs"] for node_id, node in prompt.items()} == {
            node_id: node["inputs"] for node_id, node in titled().items()
        }


async def test_it_runs_by_name_with_parameters_also_after_a_restart(serving: Serving) -> None:
    async with serving() as api:
        await saved(api, parameters={"colour": "Canvas.color", "width": "5.width"}, outputs={"image": "Result"})
    async with serving() as api:
        response = await api.post("/workflows/flat/run", {"parameters": {"colour": 255, "width": 24}})
        assert response.status == 202
        job_id = (await response.json())["job_id"]
        entry = await api.ended(job_id)
        assert entry["status"]["status_str"] == "success"
        assert entry["prompt"][2]["5"]["inputs"] == {"width": 24, "height": 8, "color": 255}


async def test_settings_by_title_go_beside_parameters(serving: Serving) -> None:
    async with serving() as api:
        await saved(api)
        response = await api.post(
            "/workflows/flat/run", {"set": {"Canvas.color": 7}, "parameters": {"Canvas.width": 9}}
        )
        entry = await api.ended((await response.json())["job_id"])
        assert entry["prompt"][2]["5"]["inputs"] == {"width": 9, "height": 8, "color": 7}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"parameters": {"color": 1}}, "'color' is not a known parameter of flat; did you mean 'colour'?"),
        ({"set": {"Canvas.colour": 1}}, "'colour' is not a known input of node 5 (EmptyImage); did you mean 'color'?"),
        ({"set": ["Canvas"]}, "--set: 'Canvas' is not allowed; expected NODE.INPUT=VALUE"),
        ({"webhook": {"url": "file:///etc"}}, "webhook.url: 'file:///etc' is not allowed; expected an http or https"),
        ({"version": 9}, "flat version 9: is not stored; there are 1"),
        ({"parameters": {"colour": "red"}}, "color"),
        ({"set": ["Canvas.color=" + "1" * 5000]}, "node 5 (EmptyImage).color"),
        ({"set": ["Canvas.color=" + "[" * 20_000]}, "node 5 (EmptyImage).color"),
    ],
)
async def test_what_cannot_be_meant_is_refused_by_name(serving: Serving, body: Any, message: str) -> None:
    async with serving() as api:
        await saved(api, parameters={"colour": "Canvas.color"})
        response = await api.post("/workflows/flat/run", body)
        assert response.status in (400, 404)
        assert message in (await response.json())["error"]["message"]


async def test_names_never_leave_their_folder(serving: Serving) -> None:
    async with serving() as api:
        for name in ("..", "%2e%2e%2fescape", "a%2fb", ".hidden", "x" * 101):
            response = await api.post(f"/workflows/{name}", {"workflow": titled()})
            assert response.status in (400, 404, 405), name
        assert sorted(path.name for path in (api.root / "user").rglob("*") if path.is_file()) == []


async def test_deleting_takes_a_version_or_all(serving: Serving) -> None:
    async with serving() as api:
        await saved(api)
        await saved(api)
        assert (await api.client.delete("/workflows/flat?version=1")).status == 204
        assert await api.json("/workflows/flat/versions") == {"versions": [2]}
        assert (await saved(api))["version"] == 3
        assert (await api.client.delete("/workflows/flat")).status == 204
        assert (await api.get("/workflows/flat")).status == 404
        assert (await api.client.delete("/workflows/flat")).status == 404


async def test_a_name_whose_only_version_is_deleted_is_gone_and_the_others_are_listed(serving: Serving) -> None:
    async with serving() as api:
        await saved(api)
        await saved(api, "other")
        assert (await api.client.delete("/workflows/flat?version=1")).status == 204
        assert [workflow["name"] for workflow in (await api.json("/workflows"))["workflows"]] == ["other"]
        assert (await api.get("/workflows/flat")).status == 404


async def test_the_same_key_runs_once(serving: Serving) -> None:
    async with serving() as api:
        await saved(api)
        headers = {"Idempotency-Key": "k"}
        answers = [await (await api.post("/workflows/flat/run", {}, headers=headers)).json() for _ in range(2)]
        assert answers[0]["job_id"] == answers[1]["job_id"]
        other = await api.post("/workflows/flat/run", {"set": {"5.color": 1}}, headers=headers)
        assert other.status == 409


async def test_a_document_is_converted_without_being_run(serving: Serving) -> None:
    async with serving() as api:
        await api.post("/workflows/flat", {"workflow": picture_graph()})
        document = await api.json("/workflows/flat?form=editor")
        for form in (document, picture_graph()):
            response = await api.post("/workflow/convert", form)
            assert response.status == 200
            found = await response.json()
            assert {key: node["inputs"] for key, node in found.items()} == {
                key: node["inputs"] for key, node in picture_graph().items()
            }
        assert (await api.json("/jobs"))["jobs"] == []
        refused = await api.post("/workflow/convert", {"nodes": 3, "links": []})
        assert refused.status == 400
        assert "nodes" in await refused.text()
        assert (await api.post("/workflow/convert", [])).status == 400


async def test_what_a_drawing_offers_in_app_mode_are_its_parameters_and_outputs(serving: Serving) -> None:
    async with serving() as api:
        await saved(api)
        drawing = await api.json("/workflows/flat?form=editor")
        drawing["extra"] = {"linearData": {"inputs": [["5", "color"]], "outputs": ["9"]}}
        async with await api.post("/workflows/app", {"workflow": drawing}) as response:
            body = await response.json()
        assert (body["parameters"], body["outputs"]) == ({"color": "5.color"}, {"Result": "9"})
        async with await api.post("/inspect", {"workflow": drawing}) as response:
            app = (await response.json())["app"]
        assert app == {"inputs": [{"name": "color", "targets": ["5.color"]}], "outputs": ["9"]}


async def test_a_parameter_may_set_several_inputs(serving: Serving) -> None:
    async with serving() as api:
        kept = await saved(api, parameters={"size": ["Canvas.width", "5.height"]})
        assert kept["parameters"] == {"size": ["Canvas.width", "5.height"]}
        response = await api.post("/workflows/flat/run", {"parameters": {"size": 24}})
        job = await api.jobs.get((await response.json())["job_id"])
        assert job.request is not None
        inputs = job.request.prompt["5"]["inputs"]
        assert (inputs["width"], inputs["height"]) == (24, 24)
        response = await api.post("/workflows/flat", {"workflow": titled(), "parameters": {"size": []}})
        assert response.status == 400
        assert "parameters.size" in await response.text()


@pytest.mark.parametrize(
    "document",
    [
        "[" * 100_000, "7", '{"prompt": 5, "name": "x", "saved_at": 1}', '{"prompt": {}, "name": [], "saved_at": 1}',
        '{"prompt": {}, "name": "x", "saved_at": 1, "parameters": 5}',
        '{"prompt": {}, "name": "x", "saved_at": 1, "parameters": {"a": [5]}}',
        '{"prompt": {}, "name": "x", "saved_at": 1, "outputs": {"a": {}}}',
    ],
)  # fmt: skip
async def test_a_stored_workflow_that_its_owner_bent_is_refused(serving: Serving, document: str) -> None:
    """Versions lie among the files that an owner may write by `/userdata`."""
    async with serving() as api:
        assert (await api.post("/userdata/stored%2Fx%2F1.json", data=document.encode())).status == 200
        for method, path, body in (("GET", "/workflows", None), ("GET", "/workflows/x", None),
                                   ("POST", "/workflows/x/run", {}), ("POST", "/inspect", {"name": "x"})):  # fmt: skip
            async with api.client.request(method, path, json=body) as response:
                assert (response.status, (await response.json())["error"]["type"]) == (400, "corrupt_file"), path
