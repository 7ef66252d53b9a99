import json
from typing import Annotated, Any

import pytest

from sigmagraph.engine.errors import InvalidWorkflow, UnknownName
from sigmagraph.engine.graph.node import FileIn, Input, Node, Optional, Options, Output, node
from sigmagraph.engine.graph.problems import Problem
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.type_matching import fits
from sigmagraph.engine.graph.validate import validate
from tests.graph.small import NODES, chain, checked, prompt

pytestmark = pytest.mark.quick


def problems(document: dict[str, Any], nodes: dict[str, Node] = NODES) -> list[Problem]:
    with pytest.raises(InvalidWorkflow) as caught:
        checked(document, nodes)
    found: list[Problem] = list(caught.value.problems)
    return found


def only(document: dict[str, Any], nodes: dict[str, Node] = NODES) -> Problem:
    (problem,) = problems(document, nodes)
    return problem


def shown(kind: str, inputs: dict[str, Any]) -> dict[str, Any]:
    return prompt(n=(kind, inputs), s=("Show", {"value": ["n", 0]}))


BLEND = {"image": ["i", 0], "factor": 0.5, "mode": "normal", "flip": False}


def blended(**changes: Any) -> dict[str, Any]:
    image = ("Blank", {"width": 64, "height": 64})
    return prompt(i=image, n=("Blend", {**BLEND, **changes}), s=("Show", {"value": ["n", 0]}))


def test_a_good_workflow_becomes_a_graph_in_prompt_order() -> None:
    graph = checked(blended())
    assert list(graph.nodes) == ["i", "n", "s"]
    assert graph.roots == ["s"]
    assert not graph.problems


def test_every_problem_is_reported_at_once() -> None:
    document = prompt(
        i=("Blank", {"width": 1000, "height": "tall"}),
        n=("Blend", {"image": ["i", 0], "factor": 7, "mode": "scren"}),
        m=("Blnd", {}),
        s=("Show", {"value": ["n", 3]}),
    )
    assert {(p.node_id, p.input, p.code) for p in problems(document)} == {
        ("i", "width", "value_off_grid"),
        ("i", "height", "invalid_input_type"),
        ("n", "factor", "value_bigger_than_max"),
        ("n", "mode", "value_not_in_list"),
        ("n", "flip", "required_input_missing"),
        ("m", None, "invalid_prompt"),
        ("s", "value", "bad_linked_input"),
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "scren"}, "node n (Blend).mode: 'scren' is not in the list; expected one of "
         "['normal', 'screen', 'multiply']; did you mean 'screen'?"),
        ({"factor": 1.5}, "node n (Blend).factor: 1.5 is bigger than 1.0; expected 0.0 to 1.0"),
        ({"factor": -1}, "node n (Blend).factor: -1.0 is smaller than 0.0; expected 0.0 to 1.0"),
        ({"factor": "much"}, "node n (Blend).factor: 'much' is not a FLOAT "
         "(could not convert string to float: 'much')"),
        ({"factor": float("nan")}, "node n (Blend).factor: nan is not a FLOAT (NaN is not a number)"),
        ({"flip": None}, "node n (Blend).flip: None is not a BOOLEAN (expected true or false, not null)"),
        ({"image": 5}, "node n (Blend).image: 5 is not a link; "
         "IMAGE comes from another node, as [node id, output index]"),
        ({"image": [1, 2, 3]}, "node n (Blend).image: a list is a link, [node id, output index]; "
         "wrap a list of values as {'__value__': [...]}"),
        ({"image": ["j", 0]}, "node n (Blend).image: linked to node 'j', which is not in the workflow"),
        ({"image": ["i", 1]}, "node n (Blend).image: node i (Blank) has no output 1; it has: 0 IMAGE"),
        ({"factor": ["i", 0]}, "node n (Blend).factor: takes FLOAT, but output 0 of node i (Blank) is IMAGE"),
    ],
)  # fmt: skip
def test_a_message_names_place_value_and_what_is_allowed(changes: dict[str, Any], message: str) -> None:
    assert str(only(blended(**changes))) == message


def test_a_size_off_the_grid_offers_its_neighbours() -> None:
    problem = only(shown("Blank", {"width": 1000, "height": 64}))
    assert str(problem) == "node n (Blank).width: 1000 is off the grid of 16; nearest are 992 and 1008"
    assert problem.allowed == [992, 1008]


def test_an_unknown_class_refuses_the_workflow_even_if_nobody_needs_it() -> None:
    problem = only(shown("Add", {"a": 1, "b": 1}) | prompt(x=("Blennd", {})))
    assert (problem.code, problem.node_id, problem.nearest) == ("invalid_prompt", "x", "Blend")


def test_a_node_without_class_is_named() -> None:
    document = shown("Add", {"a": 1, "b": 1}) | {"x": {"inputs": {}}}
    assert str(only(document)) == "node x (): the node has no class_type"


def test_a_workflow_without_outputs_is_refused() -> None:
    assert only(prompt(a=("Add", {"a": 1, "b": 1}))).code == "prompt_no_outputs"


def test_targets_choose_among_the_outputs() -> None:
    document = prompt(a=("Add", {"a": 1, "b": 1}), s=("Show", {"value": ["a", 0]}), t=("Show", {"value": ["a", 0]}))
    workflow = parse_workflow(document)
    assert validate(workflow, NODES, targets=["t", "a"]).roots == ["t"]
    with pytest.raises(InvalidWorkflow, match=r"no output node among the targets \['a'\]"):
        validate(workflow, NODES, targets=["a"])


def test_a_bad_root_does_not_spoil_a_good_one() -> None:
    document = prompt(
        a=("Add", {"a": 1, "b": 1}), b=("Add", {"a": 1, "b": 10_000}),
        good=("Show", {"value": ["a", 0]}), bad=("Show", {"value": ["b", 0]}),
    )  # fmt: skip
    graph = checked(document)
    assert graph.roots == ["good"]
    assert set(graph.nodes) == {"a", "good"}
    assert [problem.code for problem in graph.problems] == ["value_bigger_than_max"]


def test_nodes_nobody_needs_are_not_checked() -> None:
    assert set(checked(shown("Add", {"a": 1, "b": 1}) | prompt(x=("Add", {"a": "?"}))).nodes) == {"n", "s"}


def test_a_cycle_is_named_node_by_node() -> None:
    document = prompt(
        a=("Add", {"a": ["c", 0], "b": 1}), b=("Add", {"a": ["a", 0], "b": 1}), c=("Add", {"a": ["b", 0], "b": 1}),
        s=("Show", {"value": ["c", 0]}),
    )  # fmt: skip
    problem = only(document)
    assert problem.code == "dependency_cycle"
    ring = [part.split(" ")[0] for part in str(problem).split("cycle: ")[1].split(" -> ")]
    assert ring[0] == ring[-1]
    assert set(ring) == {"a", "b", "c"}
    assert "".join(ring) in "abcabca"


def test_separate_cycles_are_all_named_and_a_node_that_feeds_itself_is_one() -> None:
    document = prompt(
        a=("Add", {"a": ["a", 0], "b": 1}), b=("Add", {"a": ["c", 0], "b": 1}), c=("Add", {"a": ["b", 0], "b": 1}),
        s=("Show", {"value": ["a", 0]}), t=("Show", {"value": ["b", 0]}),
    )  # fmt: skip
    assert sorted(sorted(set(p.received)) for p in problems(document)) == [["a"], ["b", "c"]]


def test_literals_are_converted_by_the_rules_of_python() -> None:
    graph = checked(blended(factor="0.25", flip=1))
    assert graph.nodes["n"].inputs["factor"] == 0.25
    assert graph.nodes["n"].inputs["flip"] is True
    numbers = checked(shown("Add", {"a": "7", "b": 3.9})).nodes["n"].inputs
    assert (numbers["a"], numbers["b"]) == (7, 3)
    assert checked(shown("Join", {"first": 5, "second": True})).nodes["n"].inputs["first"] == "5"


def test_the_word_false_is_false() -> None:
    assert checked(blended(flip="false")).nodes["n"].inputs["flip"] is False


def test_an_absent_optional_input_of_ours_gets_its_default_in_the_graph() -> None:
    @node("Lift", category="test")
    def lift(*, value: int = 0, by: Annotated[int, Optional()] = 3) -> int:
        """The sum."""
        return value + by

    graph = checked(shown("Lift", {"value": 1}), NODES | {"Lift": lift})
    assert graph.nodes["n"].inputs == {"value": 1, "by": 3}


def test_a_negative_output_index_counts_from_the_end() -> None:
    graph = checked(prompt(a=("Split", {"value": 12}), s=("Show", {"value": ["a", -1]})))
    assert graph.nodes["s"].inputs["value"].slot == 1


def test_the_normalised_prompt_can_be_posted_again() -> None:
    graph = checked(blended(factor="0.25"))
    assert graph.prompt()["n"]["inputs"]["factor"] == 0.25
    assert checked(json.loads(json.dumps(graph.prompt()))).prompt() == graph.prompt()


def test_a_file_that_exists_counts_although_no_list_shows_it() -> None:
    class Shelf:
        def files(self, folder: str) -> list[str]:
            return ["a.png"]

        def path(self, folder: str, name: str) -> str:
            if name != "made.png [output]":
                raise UnknownName("file", name, self.files(folder))
            return name

        def lacking(self, vertices: object) -> tuple[()]:
            return ()

    @node("Load", category="test")
    def load(*, image: Annotated[str, FileIn("input")]) -> str:
        """The name."""
        return image

    nodes = NODES | {"Load": load}
    for name, is_fine in (("a.png", True), ("made.png [output]", True), ("b.png", False)):
        workflow = parse_workflow(shown("Load", {"image": name}))
        if is_fine:
            assert validate(workflow, nodes, Shelf()).roots == ["s"]  # type: ignore[arg-type]  # the part it asks
        else:
            with pytest.raises(InvalidWorkflow, match=r"'b\.png' is not in the list.*did you mean 'a\.png'"):
                validate(workflow, nodes, Shelf())  # type: ignore[arg-type]  # the part it asks


def test_option_lists_are_asked_once_per_class_however_many_nodes_use_them() -> None:
    asked: list[int] = []

    def choices() -> list[str]:
        asked.append(1)
        return ["x"]

    @node("Pick", category="test")
    def pick(*, one: Annotated[str, Options(choices)] = "x") -> str:
        """It."""
        return one

    many = {f"p{i}": ("Pick", {"one": "x"}) for i in range(20)} | {
        f"s{i}": ("Show", {"value": [f"p{i}", 0]}) for i in range(20)
    }
    checked(prompt(**many), NODES | {"Pick": pick})
    assert len(asked) == 1


def test_ten_thousand_nodes_behind_each_other_are_valid() -> None:
    assert len(checked(chain(10_000)).nodes) == 10_001


class Wild(str):
    """The wildcard of node packs: differs from nothing."""

    __slots__ = ()

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = str.__hash__


@pytest.mark.parametrize(
    ("output", "target", "expected"),
    [
        (Output("IMAGE"), Input("i", "IMAGE"), True),
        (Output("IMAGE"), Input("i", "MASK"), False),
        (Output("IMAGE"), Input("i", "*"), True),
        (Output("*"), Input("i", "MASK"), True),
        (Output("INT"), Input("i", "INT,FLOAT"), True),
        (Output("FLOAT, INT"), Input("i", "STRING,INT"), True),
        (Output("BOOLEAN"), Input("i", "INT,FLOAT"), False),
        (Output(Wild("THING")), Input("i", "MASK"), True),
        (Output("IMAGE"), Input("i", Wild("THING")), True),
        (Output("STRING"), Input("i", "COMBO", choices=Options(["a"])), True),
        (Output("COMBO", choices=("a", "b")), Input("i", "COMBO", choices=Options(["a", "b"])), True),
        (Output("COMBO", choices=("a", "b")), Input("i", "COMBO", choices=Options(["b", "a"])), False),
        (Output("COMBO", choices=("a",)), Input("i", "STRING"), False),
        (Output("COMBO", choices=("a",)), Input("i", "*"), True),
    ],
)
def test_types_fit(output: Output, target: Input, expected: bool) -> None:
    assert fits(output, target) is expected
