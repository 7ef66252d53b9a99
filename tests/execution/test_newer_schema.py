"""Packs of ComfyUI's newer schema: declared, validated and run like all others."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sigmagraph.engine.errors import InvalidWorkflow
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.execution.packs import Pack, load_packs, loader, shim_modules, with_replacements
from sigmagraph.engine.graph.declarations import Declarations
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.replacements import Replacement, replacements_of
from sigmagraph.engine.graph.schema import io
from sigmagraph.engine.graph.workflow import Link
from sigmagraph.engine.jobs.workers.declare import declarations, declared
from tests.execution.running import Stage
from tests.graph.small import NODES, prompt


@pytest.fixture
def stage(packs: dict[str, Pack]) -> Stage:
    assert packs["newer"].problems == ()
    return Stage({**NODES, **packs["newer"].nodes})


def repeats(text: str = "ab", times: Any = 2, **more: Any) -> tuple[str, dict[str, Any]]:
    return "N.Repeats", {"text": text, "times": times, "case": "as it is", **more}


def test_a_schema_is_declared_as_its_author_wrote_it(stage: Stage) -> None:
    info = stage.nodes["N.Repeats"].object_info()
    assert info["input"] == {
        "required": {
            "text": ["STRING", {"multiline": True, "default": "x", "tooltip": "what"}],
            "times": ["INT", {"default": 2, "min": 1, "max": 9, "display": "slider"}],
            "case": ["COMBO", {"multiselect": False, "options": ["as it is", "upper"], "default": "as it is"}],
        },
        "optional": {"anything": ["*", {"lazy": True}]},
    }
    assert (info["output"], info["output_name"]) == (["STRING", "INT"], ["TEXT", "count"])
    assert (info["display_name"], info["category"], info["python_module"]) == ("Repeats", "newer", "custom_nodes.newer")


def test_an_async_execute_runs_and_equal_fingerprints_are_not_enough_to_be_equal(stage: Stage) -> None:
    seen = sys.modules["custom_nodes.newer"].SEEN
    seen.clear()
    for text in ("ab", "cd", "ab"):
        shown = stage.shown(prompt(a=repeats(text), s=("Show", {"value": ["a", 0]})))
        assert shown == [text * 2]
    assert seen == ["ab", "cd"]


def test_its_own_check_and_ranges_refuse(stage: Stage) -> None:
    for bad, message in (
        (repeats("a?"), "no question marks"),
        (repeats(times=10), "times"),
        (repeats(times="x"), "times"),
    ):
        with pytest.raises(InvalidWorkflow, match=message):
            stage.run(prompt(a=bad, s=("Show", {"value": ["a", 0]})))


def test_lazy_inputs_are_asked_for_when_the_class_wants_them(stage: Stage) -> None:
    chain = {"other": ("N.Repeats", repeats("lazy")[1]), "s": ("Show", {"value": ["a", 0]})}
    for times, runs in ((2, False), (3, True)):
        result = stage.run(prompt(a=repeats("q", times, anything=["other", 0]), **chain)).or_raise()
        assert ("other" in result.nodes and result.nodes["other"].outcome == "executed") == runs


def test_hidden_values_stand_in_the_class_beside_an_input_of_the_same_name(stage: Stage) -> None:
    assert stage.shown(prompt(s=("N.Tells", {"value": 3, "prompt": "mine"}))) == [3, "s", "N.Tells", "mine"]


def test_dynamic_inputs_arrive_folded(stage: Stage) -> None:
    given = {"size": "one", "size.width": 5, "numbers.n0": 1, "numbers.n3": 4, "named.b": 0.5, "scale": 2}
    shown = stage.shown(prompt(a=("N.Chooses", given), s=("Show", {"value": ["a", 0]})))
    assert shown == [[{"size": "one", "width": 5}, {"n0": 1, "n3": 4}, {"b": 0.5}, 2]]
    with pytest.raises(InvalidWorkflow, match=r"numbers\.n0"):
        stage.run(prompt(a=("N.Chooses", {"size": "none", "scale": 1}), s=("Show", {"value": ["a", 0]})))


def test_values_pass_blocks_stop_and_expansions_run(stage: Stage) -> None:
    passes = {"p": ("N.Passes", {"value": ["a", 0]}), "s": ("Show", {"value": ["p", 0]})}
    assert stage.shown(prompt(a=repeats(), **passes)) == ["abab"]
    blocked = stage.run(prompt(a=repeats(""), **passes))
    assert "nothing to pass" in str([line for line in stage.log if "nothing" in str(line)])
    assert "s" not in blocked.ui
    assert stage.shown(prompt(a=("N.Grows", {}), s=("Show", {"value": ["a", 0]}))) == ["abab"]
    shown = stage.run(prompt(t=("N.Shows", {"text": "hello"}))).or_raise().ui["t"]
    assert shown == {"text": ("hello",)}


def test_a_pack_that_hangs_on_import_or_exits_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "IMPORT_S", 0.3)
    (tmp_path / "a_hangs.py").write_text("import time\ntime.sleep(5)\n")
    (tmp_path / "b_exits.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "c_works.py").write_text("NODE_CLASS_MAPPINGS = {}\n")
    began = time.monotonic()
    hangs, exits, works = load_packs([tmp_path], shim_modules(Folders(tmp_path, tmp_path, tmp_path, tmp_path)))
    assert time.monotonic() - began < 4
    assert "TimeoutError: importing a_hangs took longer than 0.3 s" in hangs.problems[0]
    assert "SystemExit: 3 (b_exits.py:2)" in exits.problems[0]
    assert works.problems == ()


# -- classes that are gone --------------------------------------------------------------------------------------------


@pytest.fixture
def renewed(packs: dict[str, Pack]) -> Stage:
    return Stage(with_replacements({**NODES, **packs["newer"].nodes}, [packs["newer"]]))


ECHOES: dict[str, Any] = {
    "a": {"class_type": "N.Echoes", "inputs": {"words": "ab", "count": 2}},
    "s": {"class_type": "Show", "inputs": {"value": ["a", 1]}},
}


def test_a_class_that_is_gone_is_replaced_when_the_file_is_read_and_it_is_said(renewed: Stage) -> None:
    workflow = parse_workflow(ECHOES, Declarations(renewed.nodes, None))
    assert workflow.nodes["a"].class_type == "N.Repeats"
    assert workflow.nodes["a"].inputs == {"text": "ab", "times": 2, "case": "upper"}
    assert workflow.nodes["s"].inputs == {"value": Link("a", 0)}
    assert workflow.warnings == ("class 'N.Echoes' is gone; 'N.Repeats' stands in for it (a)",)
    assert renewed.shown(workflow.prompt()) == ["ABAB"]


def test_a_drawing_of_a_class_that_is_gone_keeps_its_values(renewed: Stage) -> None:
    slots = [{"name": "words", "type": "STRING", "widget": {"name": "words"}, "link": None}]
    nodes = [
        {"id": 1, "type": "N.Echoes", "widgets_values": ["ab", 2], "inputs": slots, "outputs": [{"name": "n"}] * 2},
        {"id": 2, "type": "Show", "inputs": [{"name": "value", "type": "*", "link": 7}]},
    ]
    drawing = {"nodes": nodes, "links": [[7, 1, 1, 2, 0, "STRING"]]}
    workflow = parse_workflow(drawing, Declarations(renewed.nodes, None))
    assert workflow.nodes["1"].inputs == {"text": "ab", "times": 2, "case": "upper"}
    assert workflow.nodes["2"].inputs == {"value": Link("1", 0)}
    assert len(workflow.warnings) == 1


def test_a_class_that_is_there_is_not_replaced_nor_one_by_a_class_that_is_not(packs: dict[str, Pack]) -> None:
    there = with_replacements({**packs["newer"].nodes, "N.Echoes": NODES["Show"]}, [packs["newer"]])
    absent = with_replacements(NODES, [packs["newer"]])
    for nodes in (there, absent):
        assert parse_workflow(ECHOES, Declarations(nodes, None)).nodes["a"].class_type == "N.Echoes"


def test_a_worker_tells_its_replacements_and_a_typed_node_declares_some(renewed: Stage) -> None:
    typed = replace(NODES["Show"], replaces=(Replacement("Shows", "Show"),))
    told = declared(json.loads(json.dumps(declarations([*renewed.nodes.values(), typed], None))))
    found = replacements_of(told)
    assert found["Shows"].wire() == {
        "old_node_id": "Shows",
        "new_node_id": "Show",
        "old_widget_ids": None,
        "input_mapping": None,
        "output_mapping": None,
    }
    assert found["N.Echoes"].wire()["output_mapping"] == [{"new_idx": 1, "old_idx": 0}, {"new_idx": 0, "old_idx": 1}]


def test_what_a_class_returned_is_read_by_place() -> None:
    """Classes of packs call each other's `execute` and take a value out."""
    given = io.NodeOutput("a", 2)
    assert (given[0], given[1], given[:]) == ("a", 2, ("a", 2))
