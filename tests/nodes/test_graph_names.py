"""What a bare name means in a graph: what today's ComfyUI computes, or the one that was chosen."""

import pytest

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling import SOLVERS
from sigmagraph.nodes.support.graph_names import (
    VARIABLE,
    content,
    sampler_names,
    schedule_in_graph,
    schedule_names,
    solver_in_graph,
)
from sigmagraph.nodes.support.provenance import revisions


def test_a_bare_name_is_what_the_newest_recorded_comfyui_computes() -> None:
    assert str(solver_in_graph("euler_ancestral")) == "euler_ancestral@comfyui-0.8"
    assert str(solver_in_graph("euler")) == "euler@1"
    assert str(solver_in_graph("res_2m")) == "res_2m@1"
    assert str(schedule_in_graph("normal")) == "normal@1"
    assert str(solver_in_graph("euler_ancestral@2")) == "euler_ancestral@2"


def test_the_setting_chooses_another_comfyui(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0.3")
    assert str(solver_in_graph("euler_ancestral")) == "euler_ancestral@1"
    assert revisions([("sampler_name", "euler_ancestral")]) == {"euler_ancestral": 1}
    monkeypatch.setenv(VARIABLE, "latest")
    with pytest.raises(BadValue, match="comfyui-VERSION"):
        solver_in_graph("euler_ancestral")


def test_the_revision_that_a_bare_name_means_enters_keys_and_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    today = content("sampler", "euler_ancestral")
    monkeypatch.setenv(VARIABLE, "0.3")
    assert content("sampler", "euler_ancestral") != today
    assert content("sampler", "euler") == content("sampler", "euler@2") == ""


def test_every_revision_can_be_chosen_and_is_the_one_it_says() -> None:
    names = sampler_names()
    assert len(names) == len(set(names))
    assert names[: len(SOLVERS)] == list(SOLVERS)
    for name in names[len(SOLVERS) :]:
        assert str(solver_in_graph(name)) == name
    assert {"euler_ancestral@1", "euler_ancestral@2", "euler_ancestral@comfyui-0.8", "euler@2"} <= {*names}
    assert "euler@1" not in names
    assert [str(schedule_in_graph(name)) for name in schedule_names() if "@" in name] == [
        name for name in schedule_names() if "@" in name
    ]
