"""Bare sampler names of a saved file mean what they meant in the ComfyUI that saved it."""

from typing import Any

import pytest

from sigmagraph.engine.compose.saved_version import as_saved, saved_version
from sigmagraph.engine.graph.workflow import Workflow, WorkflowNode


def drawn(*versions: str, pack: str = "comfy-core") -> dict[str, Any]:
    return {"nodes": [{"id": i, "properties": {"cnr_id": pack, "ver": one}} for i, one in enumerate(versions)]}


def graph(editor: dict[str, Any], **samplers: str) -> Workflow:
    nodes = {place: WorkflowNode("KSampler", {"sampler_name": name}) for place, name in samplers.items()}
    return Workflow(nodes, editor)


def names(workflow: Workflow) -> dict[str, Any]:
    return {place: node.inputs["sampler_name"] for place, node in workflow.nodes.items()}


@pytest.fixture(autouse=True)
def _no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIGMAGRAPH_COMFYUI", raising=False)


def test_the_newest_core_node_tells_the_version_of_the_file() -> None:
    assert saved_version(drawn("0.3.9", "0.3.64", "0.3.10")) == "0.3.64"
    inner = {"nodes": [], "definitions": {"subgraphs": [drawn("0.9.1"), 3]}}
    assert saved_version(inner) == "0.9.1"
    assert saved_version(drawn("1.2.0", pack="somebody/pack")) is None
    assert (
        saved_version({"nodes": [{"properties": None}, 5, {"properties": {"cnr_id": "comfy-core", "ver": "a83f"}}]})
        is None
    )


def test_names_that_changed_since_are_settled_and_said_and_others_stay_bare() -> None:
    said: list[str] = []
    workflow = graph(drawn("0.3.64"), a="euler_ancestral", b="euler", c="lcm@2", d="not_there")
    assert names(as_saved(workflow, said.append)) == {
        "a": "euler_ancestral@1", "b": "euler", "c": "lcm@2", "d": "not_there"
    }  # fmt: skip
    assert said == ["saved by ComfyUI 0.3.64: euler_ancestral@1"]
    assert names(workflow)["a"] == "euler_ancestral"


def test_a_file_of_today_s_comfyui_or_without_a_version_stays_as_it_is() -> None:
    for editor in (drawn("0.8.2"), drawn("0.46.0"), {}):
        workflow = graph(editor, a="euler_ancestral")
        assert as_saved(workflow, pytest.fail) is workflow


def test_a_chosen_comfyui_counts_more_than_the_file_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGMAGRAPH_COMFYUI", "0.8")
    workflow = graph(drawn("0.3.64"), a="euler_ancestral")
    assert as_saved(workflow, pytest.fail) is workflow


def test_a_sampler_node_without_a_name_is_told_what_to_set() -> None:
    said: list[str] = []
    as_saved(Workflow({"7": WorkflowNode("SamplerEulerAncestral", {})}, drawn("0.3.64")), said.append)
    assert said == [
        "node 7 (SamplerEulerAncestral): computes as today's ComfyUI; SIGMAGRAPH_COMFYUI=0.3.64 as the file's"
    ]
