"""The pages for people: where they are, what they may load, what they ask the server, and who is sent to the login."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.server.conftest import Serving
from tests.server.test_security import KEYS

WEB = Path(__file__).resolve().parents[2] / "web" / "pages"
PAGES = ("/home", "/run", "/gallery", "/lab", "/system")
KEY = {"Authorization": "Bearer key-a"}
SEED = 2**64 - 3


def graph(text: str = "out", seed: int = 0xFF) -> dict[str, Any]:
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "color": seed}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": text}},
    }


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_is_a_short_file_under_a_policy_that_lets_nothing_else_in(serving: Serving, path: str) -> None:
    async with serving() as api:
        page = await api.get(path)
        assert (page.status, page.content_type) == (200, "text/html")
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "*" not in policy
        for name in re.findall(r'(?:src|href)="(/[^"]+)"', await page.text()):
            file = await api.get(name)
            assert (file.status, file.headers["X-Content-Type-Options"]) == (200, "nosniff"), name


async def test_the_home_page_is_the_root_only_where_there_is_no_editor(serving: Serving, tmp_path: Path) -> None:
    async with serving() as api:
        assert await (await api.get("/")).text() == await (await api.get("/home")).text()
        assert (await api.json("/system_stats"))["system"]["has_editor"] is False
    editor = tmp_path / "editor"
    editor.mkdir()
    (editor / "index.html").write_text("the editor")
    async with serving(frontend_root=editor) as api:
        assert await (await api.get("/")).text() == "the editor"
        assert 'src="/pages/home.js"' in await (await api.get("/home")).text()
        assert (await api.json("/system_stats"))["system"]["has_editor"] is True


async def test_nothing_but_the_files_of_the_pages_is_sent(serving: Serving) -> None:
    async with serving() as api:
        for name in ("..%2flogin.html", "home.html", "%2e%2e%2f..%2fpyproject.toml", "none.js"):
            assert (await api.client.get(f"/pages/{name}")).status in (403, 404), name


def test_no_script_reads_text_as_markup_and_every_word_is_there_twice() -> None:
    scripts = {path.name: path.read_text("utf-8") for path in WEB.glob("*.js")}
    for name, text in scripts.items():
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|https?://(?!www\.w3\.org/2000/svg\")",
            text,
        ), name
    words = set(re.findall(r'^  "([^"]+)": \[".+?", ".+?"\],$', scripts["strings.js"], re.MULTILINE))
    listed = re.findall(r'^  "([^"]+)":', scripts["strings.js"], re.MULTILINE)
    assert words == set(listed)
    assert len(words) == len(listed)
    said = {name for text in scripts.values() for name in re.findall(r'\bt\("([\w. ]+)"', text)}
    assert said <= words


def loaded(name: str, known: set[str]) -> set[str]:
    """A page's files: its script and style, and what they import, whether at once or later."""
    if name not in known:
        known.add(name)
        text = (WEB / name).read_text("utf-8")
        for other in re.findall(r'(?:/pages/|from "\./|import\("\./)([\w.-]+\.(?:js|css))', text):
            loaded(other, known)
    return known


@pytest.mark.parametrize("path", PAGES)
def test_all_that_a_page_ever_loads_is_smaller_than_a_picture(path: str) -> None:
    files = loaded(f"{path[1:]}.html", set())
    assert {"style.css", "strings.js", f"{path[1:]}.js"} <= files
    assert sum((WEB / name).stat().st_size for name in files) < 150_000


async def test_inspecting_a_document_tells_its_values_its_declarations_and_what_is_missing(serving: Serving) -> None:
    async with serving() as api:
        asked = graph() | {"3": {"class_type": "EmptyImag", "inputs": {"width": SEED}}}
        async with await api.post("/inspect", {"workflow": asked}) as response:
            found = json.loads(await response.text())
        assert response.status == 200
        assert found["prompt"]["3"]["inputs"]["width"] == SEED
        assert set(found["nodes"]) == {"EmptyImage", "SaveImage"}
        assert found["nodes"]["EmptyImage"] == (await api.json("/object_info/EmptyImage"))["EmptyImage"]
        assert found["unknown"] == {"EmptyImag": "EmptyImage"}
        assert (await api.json("/jobs"))["jobs"] == []


async def test_inspecting_thousands_of_unknown_classes_keeps_nobody_waiting(serving: Serving) -> None:
    async with serving() as api:
        asked = {str(i): {"class_type": f"EmptyImag{i}", "inputs": {}} for i in range(10_000)}
        async with await api.post("/inspect", {"workflow": asked}) as response:
            unknown = json.loads(await response.text())["unknown"]
        assert (response.status, len(unknown)) == (200, len(asked))
        compared = [name for name, hint in unknown.items() if hint is not None]
        assert unknown["EmptyImag0"] == "EmptyImage"
        assert len(compared) * len(await api.json("/object_info")) <= 20_000  # every one was: 5 ms each, on the loop


async def test_inspecting_a_template_a_stored_workflow_a_job_and_a_picture(serving: Serving) -> None:
    async with serving() as api:
        (api.root / "workflows" / "flat.json").write_text(json.dumps(graph("from-template")))
        await api.post(
            "/workflows/kept", {"workflow": graph("from-shelf"), "parameters": {"name": "2.filename_prefix"}}
        )
        job_id = await api.queue(graph("from-job"))
        await api.ended(job_id)
        texts = PngInfo()
        texts.add_text("prompt", json.dumps(graph("from-picture")))
        path = api.root / "output" / "carries.png"
        Image.new("RGB", (8, 8)).save(path, pnginfo=texts)
        picture = {"filename": path.name}
        asked = {"template": "flat"}, {"name": "kept"}, {"job_id": job_id}, {"image": picture}, path.read_bytes()
        found = []
        for body in asked:
            more = {"data": body} if isinstance(body, bytes) else {}
            async with await api.post("/inspect", None if more else body, **more) as response:
                assert response.status == 200, await response.text()
                found.append(await response.json())
        names = [job["prompt"]["2"]["inputs"]["filename_prefix"] for job in found]
        assert names == ["from-template", "from-shelf", "from-job", "from-picture", "from-picture"]
        assert [job["parameters"] for job in found][1] == {"name": "2.filename_prefix"}


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"template": "nothing"}, 404, "no such template"),
        ({"template": "../user/x"}, 403, ""),
        ({"name": "nothing"}, 404, "nothing"),
        ({"workflow": {"1": 3}}, 400, "1"),
        ({}, 400, "nothing to run"),
    ],
)
async def test_what_cannot_be_inspected_says_why(serving: Serving, body: Any, status: int, said: str) -> None:
    async with serving() as api, await api.post("/inspect", body) as response:
        assert response.status == status, await response.text()
        assert said in await response.text()


async def test_jobs_are_found_by_what_their_request_says(serving: Serving) -> None:
    async with serving() as api:
        names = ["Red heart", "blue 100%_square", 'wörter "quoted" \\ <script>']
        made = [await api.queue(graph(f"x{i}") | {"9": text_node(name)}) for i, name in enumerate(names)]
        for job_id in made:
            await api.ended(job_id)

        async def ids(text: str) -> list[str]:
            found = await api.json("/api/jobs", params={"text": text, "status": "completed"})
            assert found["pagination"]["total"] == len(found["jobs"])
            return [job["id"] for job in found["jobs"]]

        assert await ids("red HEART") == [made[0]]
        assert await ids("100%_") == [made[1]]
        assert await ids("%") == [made[1]]
        assert await ids('wörter "quoted" \\ <script>') == [made[2]]
        assert await ids("nobody wrote this") == []
        assert await ids("emptyimage") == made[::-1]


def text_node(text: str) -> dict[str, Any]:
    return {"class_type": "EmptyImage", "inputs": {}, "_meta": {"title": text}}


async def test_a_page_asks_for_the_key_and_the_login_leads_back_to_it(serving: Serving) -> None:
    async with serving(keys=KEYS) as api:
        people = {"Accept": "text/html"}
        for path in PAGES:
            page = await api.get(path, headers=people, allow_redirects=False)
            assert (page.status, page.headers["Location"]) == (302, f"/login?next={path}")
            assert (await api.get(path)).status == 401
            assert (await api.get(path, headers=KEY)).status == 200
        for wanted, place in (
            ("/run", "/run"),
            ("//evil.example/", "/"),
            ("https://evil.example", "/"),
            ("/queue", "/"),
        ):
            done = await api.client.post(
                "/login", params={"next": wanted}, data={"key": "key-a"}, allow_redirects=False
            )
            assert (done.status, done.headers["Location"]) == (303, place)


async def test_jobs_are_listed_by_the_inputs_of_their_nodes_and_by_when(serving: Serving) -> None:
    async with serving() as api:
        ids = [await api.queue(graph(f"picture{number}", number)) for number in range(3)]
        for job_id in ids:
            await api.ended(job_id)
        jobs = {job["id"]: job["create_time"] for job in (await api.json("/jobs"))["jobs"]}
        found = await api.json(f"/jobs?created_after={jobs[ids[0]]}&created_before={jobs[ids[2]] + 1}&text=picture1")
        assert [job["id"] for job in found["jobs"]] == [ids[1]]
        assert (await api.json(f"/jobs?created_before={jobs[ids[0]] - 1}"))["pagination"]["total"] == 0
        assert (await api.json("/jobs?sampler=euler"))["jobs"] == []
        for query in ("created_after=yesterday", "created_before=-1", f"seed={'1' * 300}"):
            async with await api.get(f"/jobs?{query}") as refused:
                assert refused.status == 400
                assert query.partition("=")[0] in (await refused.json())["error"]


async def test_a_replay_says_of_which_job_it_is_one(serving: Serving) -> None:
    async with serving() as api:
        made = await api.queue(graph())
        await api.ended(made)
        async with await api.post("/replay", {"job_id": made}) as response:
            again = (await response.json())["job_id"]
        assert again != made
        job = await api.json(f"/jobs/{again}")
        assert job["workflow"]["extra_data"]["made_from"] == {"how": "replay", "job_id": made}
        assert [job["id"] for job in (await api.json(f"/jobs?text={made}"))["jobs"]] == [again]


async def test_an_estimate_of_what_does_not_sample_is_by_its_last_runs(serving: Serving) -> None:
    async with serving() as api:
        before = await (await api.post("/estimate", {"workflow": graph()})).json()
        assert before == {"evaluations": None, "samplers": {}, "seconds": None, "runs": 0}
        await api.ended(await api.queue(graph()))
        after = await (await api.post("/estimate", {"workflow": graph(seed=3)})).json()
        assert after["runs"] == 1
        assert 0 < after["seconds"] < 5
        assert await api.json("/samplers") == {"samplers": {}, "schedules": {}}  # the stubs have none


async def test_an_estimate_needs_a_key_that_may_run_any_graph(serving: Serving) -> None:
    async with serving(keys=KEYS) as api:
        assert (await api.post("/estimate", {"workflow": graph()})).status == 401
        assert (await api.get("/samplers")).status == 401
        assert (await api.post("/estimate", {"workflow": graph()}, headers=KEY)).status == 200


async def test_what_templates_need_is_told_with_the_command_that_brings_it(serving: Serving, tmp_path: Path) -> None:
    async with serving() as api:
        (tmp_path / "models/checkpoints/sd3.5_large.safetensors").write_bytes(b"")
        for name, files in {
            "flat": [],
            "large": ["sd3.5_large.safetensors", "clip_l.safetensors", "t5xxl_fp8_e4m3fn.safetensors"],
            "own": ["sd3.5_large.safetensors", "mine.safetensors"],
            "whole": ["sd3.5_large.safetensors"],
        }.items():
            nodes = {str(place): {"class_type": "Loader", "inputs": {"name": file}} for place, file in enumerate(files)}
            (tmp_path / f"workflows/{name}.json").write_text(json.dumps(nodes or graph()))
        (tmp_path / "workflows/broken.json").write_text("[")
        found = {need["name"]: need for need in (await api.json("/needs"))["workflows"]}
        assert set(found) == {"large", "own", "whole"}
        assert found["large"]["fetch"] == "sigmagraph fetch text-encoders-fp8"
        assert {file["name"]: file["is_here"] for file in found["large"]["files"]} == {
            "sd3.5_large.safetensors": True,
            "clip_l.safetensors": False,
            "t5xxl_fp8_e4m3fn.safetensors": False,
        }
        assert found["own"]["fetch"] is None  # nobody but its owner has it
        assert found["whole"]["fetch"] is None
