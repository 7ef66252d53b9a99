"""The sampler lab over HTTP: its plan, its cells as ordinary jobs, and the same figures as `sigmagraph compare`."""

import json
import uuid
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import sigmagraph as sg
from sigmagraph.engine.graph.sweep import CACHES
from sigmagraph.engine.sampling import SCHEDULES, SOLVERS
from sigmagraph.nodes.sampling.step_caches import written_cache
from tests.serving import CHECKOUT, Server

DEMO = CHECKOUT / "models" / "checkpoints" / "sigmagraph-demo.safetensors"
WORKFLOW = json.loads((CHECKOUT / "workflows" / "txt2img.json").read_text())
ASKED = {"template": "txt2img", "samplers": ["euler", "heun"], "schedules": ["sgm_uniform"], "steps": [1, 2]}
REFERENCE = "heun/sgm_uniform/3"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("lab") / "home"
    folder = home / "models" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / DEMO.name).symlink_to(DEMO)
    running = Server(home).start()
    yield running
    running.stop()


def shifted(time: float) -> float:
    """The level of SD3 at a time, with its shift of 3 (Esser 2024, arXiv:2403.03206, eq. 23)."""
    return 3 * time / (1 + 2 * time)


def planned(server: Server, **more: Any) -> Any:
    return server.json("/lab/plan", ASKED | {"reference": REFERENCE} | more)


def with_values(plan: Any, graph: str, **values: Any) -> Any:
    """A cell's graph, as the page makes it: the sampler's values, and seed and guidance for the reference too."""
    prompt = deepcopy(plan[graph])
    prompt[plan["sampler"]]["inputs"] |= values
    return prompt


def made(server: Server, prompt: Any) -> Any:
    job_id = server.json("/prompt", {"prompt": prompt, "prompt_id": str(uuid.uuid4())})["prompt_id"]
    server.ended(job_id)
    job = server.json(f"/jobs/{job_id}")
    assert job["status"] == "completed", job
    return job


def test_a_plan_tells_levels_cost_and_choices_before_anything_runs(server: Server) -> None:
    plan = planned(server)
    rows = {(row["sampler"], row["steps"]): row for row in plan["levels"]}
    assert {key: row["evaluations"] for key, row in rows.items()} == {
        ("euler", 1): 1,
        ("euler", 2): 2,
        ("heun", 1): 1,
        ("heun", 2): 3,
    }
    middle = (1 + shifted(0.001)) / 2  # between the first and the last level, both read as times, as ComfyUI has it
    assert rows["euler", 2]["sigmas"] == pytest.approx([1.0, shifted(middle), 0.0], abs=1e-6)
    assert plan["reference"]["evaluations"] == 5
    assert plan["values"] == {
        "seed": 1,
        "steps": 20,
        "cfg": 4.0,
        "sampler_name": "euler",
        "scheduler": "simple",
        "denoise": 1.0,
    }
    assert {"euler", "dpmpp_2m@2"} <= set(plan["choices"]["samplers"])
    assert server.json("/jobs")["jobs"] == []


def test_without_lists_the_plan_is_of_the_workflows_own_run(server: Server) -> None:
    plan = server.json("/lab/plan", {"template": "txt2img", "set": {"5.steps": 3}})
    assert [(row["sampler"], row["schedule"], row["steps"]) for row in plan["levels"]] == [("euler", "simple", 3)]
    assert plan["cell"]["lab_reference"]["inputs"]["steps"] == 24


def test_cells_are_jobs_whose_distances_are_those_of_compare_and_the_text_is_encoded_once(server: Server) -> None:
    plan = planned(server)
    found, outcomes = {}, []
    for row in plan["levels"]:
        values = {"sampler_name": row["sampler"], "scheduler": row["schedule"], "steps": row["steps"]}
        job = made(server, with_values(plan, "cell", **values))
        found[row["sampler"], row["steps"]] = job["outputs"]["lab_distance"]["distance"][0]
        outcomes.append(job)
    expected = sg.compare(WORKFLOW, ["euler", "heun"], steps=[1, 2], reference=REFERENCE, home=CHECKOUT)
    for cell, distance in expected.distances.items():
        assert found[cell.sampler, cell.steps] == pytest.approx(distance, rel=1e-5)
    for job in outcomes[1:]:
        ran = job["nodes"]
        assert ran["2"]["outcome"] != "executed"
        assert ran["lab_reference"]["outcome"] != "executed"
        assert ran[plan["sampler"]]["outcome"] == "executed"
    [latent] = outcomes[0]["outputs"]["lab_latent"]["latents"]
    kept = load_file(server.home / "output" / latent["subfolder"] / latent["filename"])["latent_tensor"]
    assert kept.shape == (1, 16, 16, 16)
    assert torch.isfinite(kept).all()


def test_a_film_is_a_job_with_a_picture_of_state_and_estimate_for_each_of_its_steps(server: Server) -> None:
    plan = planned(server)
    job = made(server, with_values(plan, "film", sampler_name="heun", steps=3, scheduler="simple"))
    ways = {name: job["outputs"][f"lab_{name}"]["images"] for name in ("state", "denoised")}
    assert {name: len(images) for name, images in ways.items()} == {"state": 3, "denoised": 3}
    assert job["outputs"][plan["sampler"]]["step"] == [1, 2, 3]
    first, last = ((server.home / "output/lab" / ways["state"][place]["filename"]).read_bytes() for place in (0, -1))
    assert first != last


def test_what_cannot_be_planned_says_why(server: Server) -> None:
    def refused(**more: Any) -> str:
        given = ASKED | more
        if "workflow" in more:
            del given["template"]
        return str(server.refusal("/lab/plan", given)["error"]["message"])

    assert refused(steps=list(range(1, 1001))).startswith(
        "steps: '1000 of them' is not allowed; expected a list of at most 64"
    )
    assert "at most 400" in refused(steps=list(range(1, 65)), samplers=[f"s{i}" for i in range(7)])
    assert "from 1 to 1000" in refused(steps=[0])
    assert "samplers" in refused(samplers="euler")
    assert "SAMPLER/SCHEDULE" in refused(reference="heun")
    assert "one node with sampler_name" in refused(workflow={"1": {"class_type": "EmptyImage", "inputs": {}}})
    hidden = deepcopy(WORKFLOW) | {
        "20": {"class_type": "ModelPasser", "inputs": {"model": ["1", 0], "latent": ["21", 0]}}
    }
    hidden["5"]["inputs"]["model"] = ["20", 0]
    for kind in (
        "EmptyLatentImage",
        "EmptyImage",
        "CLIPTextEncode",
        "SaveImage",
        "KSampler",
    ):  # none only opens a model
        hidden["21"] = {"class_type": kind, "inputs": {}}
        assert f"node 21 ({kind})' is not allowed; expected nodes that load or" in refused(workflow=hidden)
        told = server.json("/estimate", {"workflow": hidden})
        assert f"node 21 ({kind})" in told["samplers"]["5"]["problem"]
    assert "lost.safetensors" in refused(set={"1.ckpt_name": "lost.safetensors"})


def test_an_estimate_has_the_plans_evaluations_and_the_time_of_runs_like_it(server: Server) -> None:
    values = {"5.sampler_name": "heun", "5.scheduler": "sgm_uniform", "5.steps": 6}
    plan = planned(server, samplers=["heun"], steps=[6])
    before = server.json("/estimate", {"template": "txt2img", "set": values | {"4.width": 64, "4.height": 64}})
    assert (before["evaluations"], before["seconds"], before["runs"]) == (plan["levels"][0]["evaluations"], None, 0)
    prompt = deepcopy(WORKFLOW)
    prompt["5"]["inputs"] |= {"steps": 4}
    for seed in (71, 72):
        prompt["5"]["inputs"]["seed"] = seed
        job = made(server, prompt)
    took = sum(node["milliseconds"] for node in job["nodes"].values()) / 1000
    after = server.json("/estimate", {"workflow": prompt})
    assert after["runs"] == 2
    assert took / 10 < after["seconds"] < 10 * took + 1
    lost = server.json("/estimate", {"template": "txt2img", "set": {"5.sampler_name": "eulr"}})
    assert lost["evaluations"] is None
    assert "euler" in lost["samplers"]["5"]["problem"]


def test_samplers_and_schedules_are_told_with_all_that_is_declared(server: Server) -> None:
    told = server.json("/samplers")
    assert set(told["samplers"]) == set(SOLVERS)
    assert set(told["schedules"]) == set(SCHEDULES)
    heun = told["samplers"]["heun"]
    assert (heun["order"], heun["evaluations"], heun["is_stochastic"]) == (2, 2, False)
    assert told["samplers"]["euler_ancestral"]["is_stochastic"]
    assert all(facts["summary"] for kind in told.values() for facts in kind.values())


def test_a_plan_has_step_caches_as_nodes_with_their_usual_inputs(server: Server) -> None:
    plan = planned(server, caches=["first_block:0.1", "taylorseer:3"])
    told = {cache["name"]: (cache["class_type"], cache["inputs"]) for cache in plan["caches"]}
    assert told == {text: written_cache(text) for text in ("first_block:0.1", "taylorseer:3")}
    assert {written_cache(text)[0] for text in plan["choices"]["caches"]} == {node for node, _ in CACHES.values()}
    assert planned(server)["caches"] == []
    for wrong in (["first_blok:0.1"], ["taylorseer:half"], "first_block:0.1", [""]):
        refused = server.refusal("/lab/plan", ASKED | {"caches": wrong})
        assert "cache" in refused["error"]["message"]


def test_what_a_sampler_said_is_told_again_where_its_result_was_there(server: Server) -> None:
    plan = planned(server, caches=["taylorseer:2"])
    cache = plan["caches"][0]
    values = {"sampler_name": "euler", "scheduler": "sgm_uniform", "steps": 8, "seed": 4242}
    prompt = with_values(plan, "cell", **values)
    sampler = prompt[plan["sampler"]]["inputs"]
    prompt["cached"] = {"class_type": cache["class_type"], "inputs": cache["inputs"] | {"model": sampler["model"]}}
    sampler["model"] = ["cached", 0]
    first, second = (made(server, prompt) for _ in range(2))
    assert second["nodes"][plan["sampler"]]["outcome"] == "memory"
    told = first["outputs"][plan["sampler"]]["step_cache"]
    assert told[0]["skipped"] > 0
    assert second["outputs"][plan["sampler"]]["step_cache"] == told
