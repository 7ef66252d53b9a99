"""Dynamic inputs: declared once, laid out for what a workflow gives, and folded into one dict for the function."""

from typing import Annotated, Any

import pytest

from sigmagraph.engine.errors import InvalidWorkflow
from sigmagraph.engine.execution.inline import execute
from sigmagraph.engine.graph.dynamic import Fold
from sigmagraph.engine.graph.editor import convert, drawn
from sigmagraph.engine.graph.node import (
    Autogrow,
    DynamicCombo,
    DynamicSlot,
    MatchType,
    Node,
    Options,
    Range,
    Socket,
    UiResult,
    input_of,
    node,
)
from sigmagraph.engine.graph.plan import plan
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.validate import validate
from sigmagraph.engine.jobs.workers.declare import declarations, declared

Pixels = Annotated[int, Range(1, 100)]
WIDE = DynamicCombo({"exact": [input_of("width", Pixels, 10), input_of("height", Pixels, 20)], "none": []})
SIZE = DynamicCombo(
    {
        "by": [input_of("factor", Annotated[float, Range(0.1, 8)], 2.0)],
        "to": [input_of("size", Annotated[dict[str, Any], WIDE])],
    }
)
LIST = Autogrow.numbered(input_of("number", Annotated[int, Socket("INT")]), "n", least=2, most=5)
GATE = DynamicSlot(input_of("gate", Annotated[int, Socket("INT")], None), [input_of("strength", float, 0.5)])


@node("Size", category="t", output_node=True)
def size(*, resize: Annotated[dict[str, Any], SIZE], method: Annotated[str, Options(("a", "b"))] = "a") -> UiResult:
    """What the function receives."""
    return UiResult(None, {"got": [resize, method]})


@node("Total", category="t")
def total(*, numbers: Annotated[dict[str, int], LIST]) -> int:
    """The sum."""
    return sum(int(name[1:]) * 100 + value for name, value in numbers.items())


@node("Gated", category="t", output_node=True)
def gated(*, gate: Annotated[dict[str, Any] | None, GATE] = None) -> UiResult:
    """What the function receives."""
    return UiResult(None, {"got": [gate]})


@node("Either", category="t")
def either(
    *,
    which: bool = True,
    one: Annotated[Any, MatchType("T")] = None,
    other: Annotated[Any, MatchType("T")] = None,
) -> Annotated[Any, MatchType("T")]:
    """One of two values of any one type."""
    return one if which else other


@node("Number", category="t")
def number(*, value: int = 0) -> int:
    """A number."""
    return value


@node("Word", category="t")
def word(*, value: str = "") -> str:
    """A string."""
    return value


@node("Whatever", category="t")
def whatever(*, value: int = 4) -> Annotated[Any, Socket("*")]:
    """A number that is not declared as one."""
    return value


@node("Wide", category="t")
def wide() -> Annotated[Any, Socket("FLOAT,INT")]:
    """One of two types."""
    return 3


@node("Show", category="t", output_node=True)
def show(*, number: Annotated[int, Socket("INT")]) -> UiResult:
    """Shows it."""
    return UiResult(None, {"got": [number]})


NODES = {made.class_type: made for made in (size, total, gated, either, number, word, whatever, wide, show)}


def run(prompt: dict[str, Any], nodes: dict[str, Node] = NODES) -> Any:
    graph = validate(parse_workflow(prompt), nodes)
    return next(iter(execute(plan(graph)).or_raise().ui.values()))["got"]


def one(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": {name.replace("__", "."): value for name, value in inputs.items()}}


def problems(prompt: dict[str, Any]) -> list[str]:
    with pytest.raises(InvalidWorkflow) as caught:
        validate(parse_workflow(prompt), NODES)
    return [f"{problem.code} {problem.input}" for problem in caught.value.problems]


def test_a_choice_brings_its_inputs_and_they_arrive_as_one_dict() -> None:
    assert run({"1": one("Size", resize="by", resize__factor=3, method="a")}) == [{"resize": "by", "factor": 3.0}, "a"]
    nested = one("Size", resize="to", resize__size="exact", resize__size__width=7, method="b")
    expected = {"resize": "to", "size": {"size": "exact", "width": 7, "height": 20}}
    assert run({"1": {**nested, "inputs": {**nested["inputs"], "resize.size.height": 20}}}) == [expected, "b"]


def test_nodes_that_are_given_alike_are_laid_out_once() -> None:
    by = {"resize": "by", "method": "a"}
    prompt = {
        "1": one("Size", resize__factor=3, **by),
        "2": one("Size", resize__factor=4, **by),
        "3": one("Size", resize="to", resize__size="exact", resize__size__width=7, resize__size__height=8, method="a"),
    }
    laid_out = {i: vertex.node for i, vertex in validate(parse_workflow(prompt), NODES).nodes.items()}
    assert laid_out["1"] is laid_out["2"]
    assert laid_out["3"].declared.keys() >= {"resize.size.width", "resize.size.height"}


def test_inputs_of_the_option_chosen_are_checked_under_their_dotted_names() -> None:
    assert problems({"1": one("Size", resize="by", resize__factor=9, method="a")}) == [
        "value_bigger_than_max resize.factor"
    ]
    assert problems({"1": one("Size", resize="by", method="a")}) == ["required_input_missing resize.factor"]
    assert problems({"1": one("Size", resize="over", method="a")}) == ["value_not_in_list resize"]
    assert problems({"1": one("Size", resize="to", resize__size="exact", resize__size__width=0, method="a")}) == [
        "value_smaller_than_min resize.size.width",
        "required_input_missing resize.size.height",
    ]


def test_a_list_grows_with_its_links_may_have_gaps_and_needs_its_first_ones() -> None:
    links = {"numbers.n0": ["1", 0], "numbers.n1": ["1", 0], "numbers.n4": ["1", 0]}
    prompt = {
        "1": one("Number", value=5),
        "2": {"class_type": "Total", "inputs": links},
        "3": one("Show", number=["2", 0]),
    }
    assert run(prompt) == [0 + 100 + 400 + 15]
    few = {"1": one("Number", value=0), "2": one("Total", numbers__n0=["1", 0]), "3": one("Show", number=["2", 0])}
    assert problems(few) == ["required_input_missing numbers.n1"]


@pytest.mark.parametrize("name", ["numbers.n99", "numbers.bogus", "numbers.n00"])
def test_a_list_refuses_links_to_places_it_does_not_have(name: str) -> None:
    """Nothing would check their types, and more than the most would arrive."""
    links = {"numbers.n0": ["1", 0], "numbers.n1": ["1", 0], name: ["4", 0]}
    prompt = {
        "1": one("Number", value=5),
        "4": one("Word", value="five"),
        "2": {"class_type": "Total", "inputs": links},
        "3": one("Show", number=["2", 0]),
    }
    assert problems(prompt) == [f"bad_linked_input {name}"]


def test_a_slot_brings_inputs_once_it_is_linked() -> None:
    assert run({"1": one("Gated")}) == [{}]
    linked = {"1": one("Number", value=4), "2": one("Gated", gate=["1", 0], gate__strength=0.25)}
    assert run(linked) == [{"gate": 4, "strength": 0.25}]
    assert problems({"1": one("Number", value=0), "2": one("Gated", gate=["1", 0])}) == [
        "required_input_missing gate.strength"
    ]


def test_an_output_that_repeats_a_type_is_checked_as_what_is_linked_behind_it() -> None:
    def through(source: str) -> dict[str, Any]:
        chain = {str(at): one("Either", which=True, one=[str(at - 1), 0]) for at in (2, 3)}
        return {"1": one(source, value=0 if source == "Number" else "x"), **chain, "4": one("Show", number=["3", 0])}

    assert run(through("Number")) == [0]
    assert problems(through("Word")) == ["return_type_mismatch number"]


SOURCES: dict[str, dict[str, Any]] = {
    "Number": {"value": 0},
    "Word": {"value": "x"},
    "Whatever": {"value": 4},
    "Wide": {},
}


def both(one_source: str, other_source: str) -> dict[str, Any]:
    """Either of two sources, read by a node that wants a number; the second comes by way of another Either."""
    return {
        "1": one(one_source, **SOURCES[one_source]),
        "2": one(other_source, **SOURCES[other_source]),
        "3": one("Either", which=True, one=["2", 0]),
        "4": one("Either", which=True, one=["1", 0], other=["3", 0]),
        "5": one("Show", number=["4", 0]),
    }


def test_links_of_different_types_at_inputs_of_one_type_are_refused_with_both() -> None:
    with pytest.raises(InvalidWorkflow) as caught:
        validate(parse_workflow(both("Number", "Word")), NODES)
    assert [str(problem) for problem in caught.value.problems] == [
        "node 4 (Either).other: takes what one takes, which is INT from node 1; output 0 of node 3 is STRING"
    ]
    assert caught.value.problems[0].code == "return_type_mismatch"


@pytest.mark.parametrize(
    ("one_source", "other_source", "shown"),
    [
        ("Number", "Number", 0),
        ("Number", "Whatever", 0),
        ("Whatever", "Number", 4),
        ("Number", "Wide", 0),
        ("Wide", "Number", 3),
    ],
)
def test_unions_and_any_type_match_whatever_they_may_be(one_source: str, other_source: str, shown: int) -> None:
    assert run(both(one_source, other_source)) == [shown]


@pytest.mark.parametrize("pair", [("Whatever", "Word"), ("Word", "Whatever")])
def test_a_repeated_type_is_the_definite_one_whichever_input_it_comes_to(pair: tuple[str, str]) -> None:
    assert problems(both(*pair)) == ["return_type_mismatch number"]


def test_a_long_chain_of_matched_types_is_followed_once() -> None:
    chain = {str(at): one("Either", which=True, one=[str(at - 1), 0], other=[str(at - 1), 0]) for at in range(2, 5000)}
    assert problems({"1": one("Word", value="x"), **chain, "s": one("Show", number=["4999", 0])}) == [
        "return_type_mismatch number"
    ]


def test_the_wire_form_is_the_one_the_editor_reads_and_a_front_gets_the_same() -> None:
    info = size.object_info()["input"]["required"]["resize"]
    assert info[0] == "COMFY_DYNAMICCOMBO_V3"
    assert [option["key"] for option in info[1]["options"]] == ["by", "to"]
    assert info[1]["options"][0]["inputs"]["required"]["factor"] == ["FLOAT", {"default": 2.0, "min": 0.1, "max": 8}]
    assert info[1]["options"][1]["inputs"]["required"]["size"][0] == "COMFY_DYNAMICCOMBO_V3"
    kind, options = total.object_info()["input"]["required"]["numbers"]
    assert (kind, options["template"]) == (
        "COMFY_AUTOGROW_V3",
        {"input": {"required": {"number": ["INT"]}}, "prefix": "n", "min": 2, "max": 5},
    )
    assert either.object_info()["output"] == ["COMFY_MATCHTYPE_V3"]
    assert either.object_info()["output_matchtypes"] == ["T"]
    assert gated.object_info()["input"]["optional"]["gate"][0] == "COMFY_DYNAMICSLOT_V3"
    front = declared(declarations(NODES.values(), None))
    assert {name: made.object_info() for name, made in front.items()} == {
        name: made.object_info() for name, made in NODES.items()
    }


def test_a_drawing_converts_with_the_widgets_of_the_option_its_values_choose() -> None:
    info = {name: kind.object_info() for name, kind in NODES.items()}
    drawing = {"nodes": [{"id": 1, "type": "Size", "widgets_values": ["to", "exact", 3, 4, "b"]}], "links": []}
    prompt, warnings = convert(drawing, info)
    values = {"resize": "to", "resize.size": "exact", "resize.size.width": 3, "resize.size.height": 4, "method": "b"}
    assert (prompt["1"]["inputs"], warnings) == (values, [])
    assert convert(drawn(prompt, info), info)[0]["1"]["inputs"] == values
    short, _ = convert({**drawing, "nodes": [{"id": 1, "type": "Size", "widgets_values": ["by", 1.5, "a"]}]}, info)
    assert short["1"]["inputs"] == {"resize": "by", "resize.factor": 1.5, "method": "a"}


def test_growing_links_are_drawn_and_come_back() -> None:
    info = {name: kind.object_info() for name, kind in NODES.items()}
    links = {"numbers.n0": ["1", 0], "numbers.n1": ["1", 0]}
    prompt = {
        "1": one("Number", value=5),
        "2": {"class_type": "Total", "inputs": links},
        "3": one("Show", number=["2", 0]),
    }
    back, _ = convert(drawn(prompt, info), info)
    assert {node_id: written["inputs"] for node_id, written in back.items()} == {
        i: p["inputs"] for i, p in prompt.items()
    }


def test_a_value_that_is_itself_a_dict_is_not_taken_for_a_part() -> None:
    fold = Fold(("a",), ())
    assert fold.folded({"a.x": {"y": 1}, "b": 2}) == {"b": 2, "a": {"x": {"y": 1}}}
    assert fold.folded({"a": "k", "a.x.y": 1, "a.x": "m"}) == {"a": {"a": "k", "x": {"x": "m", "y": 1}}}
