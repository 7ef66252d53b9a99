import gc
import json
import random
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigmagraph.engine.graph.keys import Unrepeatable, encode
from sigmagraph.engine.graph.node import FileIn, Hidden, Node, node
from sigmagraph.engine.graph.plan import Plan, plan
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.validate import validate
from tests.graph.small import NODES, Anything, chain, checked, prompt

pytestmark = pytest.mark.quick

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@node("Keep", category="test")
def keep(*, value: Anything) -> Anything:
    """The value."""
    return value


def planned(document: dict[str, Any], nodes: dict[str, Node] = NODES) -> Plan:
    return plan(checked(document, nodes))


def key_of(value: Any) -> str:
    document = prompt(k=("Keep", {"value": {"__value__": value}}), s=("Show", {"value": ["k", 0]}))
    return planned(document, NODES | {"Keep": keep}).key("k")


def test_sources_come_first() -> None:
    document = prompt(
        s=("Show", {"value": ["d", 0]}), d=("Add", {"a": ["b", 0], "b": ["c", 0]}),
        b=("Add", {"a": ["a", 0], "b": 1}), c=("Add", {"a": ["a", 0], "b": 2}), a=("Add", {"a": 1, "b": 1}),
    )  # fmt: skip
    assert list(planned(document).order) == ["a", "b", "c", "d", "s"]


def test_one_root_is_finished_before_the_next_begins() -> None:
    document = prompt(
        a=("Add", {"a": 1, "b": 1}), b=("Add", {"a": 2, "b": 1}),
        s=("Show", {"value": ["a", 0]}), t=("Show", {"value": ["b", 0]}),
    )  # fmt: skip
    assert list(planned(document).order) == ["a", "s", "b", "t"]


def test_targets_leave_out_what_only_other_roots_need() -> None:
    document = prompt(
        a=("Add", {"a": 1, "b": 1}), b=("Add", {"a": 2, "b": 1}),
        s=("Show", {"value": ["a", 0]}), t=("Show", {"value": ["b", 0]}),
    )  # fmt: skip
    assert list(plan(checked(document), targets=["t"]).order) == ["b", "t"]


def test_keys_do_not_know_what_nodes_are_called() -> None:
    one = planned(prompt(a=("Add", {"a": 1, "b": 2}), s=("Show", {"value": ["a", 0]})))
    other = planned(prompt(zz=("Add", {"b": 2, "a": 1}), y=("Show", {"value": ["zz", 0]})))
    assert (one.key("a"), one.key("s")) == (other.key("zz"), other.key("y"))


def test_a_changed_literal_changes_every_key_behind_it_and_no_other() -> None:
    def keys(b: int) -> dict[str, str]:
        return dict(
            planned(
                prompt(
                    a=("Add", {"a": 1, "b": 1}),
                    x=("Add", {"a": ["a", 0], "b": b}),
                    y=("Add", {"a": ["x", 0], "b": 1}),
                    s=("Show", {"value": ["y", 0]}),
                )
            ).keys.by_id
        )

    before, after = keys(2), keys(3)
    assert {i for i in before if before[i] == after[i]} == {"a"}


def test_the_output_a_link_starts_from_is_part_of_the_key() -> None:
    document = prompt(a=("Split", {"value": 33}), s=("Show", {"value": ["a", 0]}), t=("Show", {"value": ["a", 1]}))
    made = planned(document)
    assert made.key("s") != made.key("t")


def test_one_and_one_point_zero_and_true_are_three_values() -> None:
    assert len({key_of(value) for value in (1, 1.0, True, "1", [1], {"1": 1}, None)}) == 7


@given(JSON, JSON)
def test_encodings_are_equal_exactly_if_the_values_are(one: Any, other: Any) -> None:
    def exact(value: Any) -> str:
        return json.dumps(value, sort_keys=True)

    assert (encode(one) == encode(other)) == (exact(one) == exact(other))


def test_the_order_of_keys_in_an_object_does_not_matter() -> None:
    assert encode({"a": 1, "b": 2}) == encode({"b": 2, "a": 1})


def test_what_equals_nothing_has_no_encoding() -> None:
    for value in (float("nan"), [float("nan")], object()):
        with pytest.raises(Unrepeatable):
            encode(value)


def test_a_nan_gives_a_new_key_each_time_to_the_node_and_everything_behind_it() -> None:
    document = prompt(k=("Keep", {"value": float("nan")}), s=("Show", {"value": ["k", 0]}))
    one, other = (planned(document, NODES | {"Keep": keep}) for _ in range(2))
    assert one.key("k") != other.key("k")
    assert one.keys.volatile == {"k", "s"}


def test_a_literal_of_hundreds_of_levels_is_planned_and_equals_nothing() -> None:
    value: Any = 1
    for _ in range(400):
        value = {"a": value}
    document = prompt(k=("Keep", {"value": value}), s=("Show", {"value": ["k", 0]}))
    assert planned(document, NODES | {"Keep": keep}).keys.volatile == {"k", "s"}


def test_a_raised_revision_is_a_new_key() -> None:
    def key(revision: int) -> str:
        made = node("Add", category="test", revision=revision)(NODES["Add"].function)
        return planned(prompt(a=("Add", {"a": 1, "b": 1}), s=("Show", {"value": ["a", 0]})), NODES | {"Add": made}).key(
            "a"
        )

    assert key(1) != key(2)


def test_a_node_that_asks_for_its_own_id_has_it_in_its_key() -> None:
    @node("Self", category="test")
    def itself(*, value: int = 0, me: Annotated[str, Hidden("UNIQUE_ID")] = "") -> str:
        """The id."""
        return f"{me}{value}"

    document = prompt(
        a=("Self", {"value": 1}),
        b=("Self", {"value": 1}),
        s=("Show", {"value": ["a", 0]}),
        t=("Show", {"value": ["b", 0]}),
    )
    made = planned(document, NODES | {"Self": itself})
    assert made.key("a") != made.key("b")


def test_files_count_by_content_and_not_by_name(tmp_path: Path) -> None:
    @node("Load", category="test")
    def load(*, name: Annotated[str, FileIn("vae")]) -> str:
        """The name."""
        return name

    class Shelf:
        def files(self, folder: str) -> list[str]:
            return [path.name for path in sorted(tmp_path.iterdir())]

        def path(self, folder: str, name: str) -> Path:
            return tmp_path / name

        def lacking(self, vertices: object) -> list[object]:
            return []

        def content_hash(self, path: Path, like: str | None = None) -> str:
            return path.read_text(encoding="utf-8")

    def key(name: str) -> str:
        document = prompt(n=("Load", {"name": name}), s=("Show", {"value": ["n", 0]}))
        shelf: Any = Shelf()

        return plan(validate(parse_workflow(document), NODES | {"Load": load}, shelf), shelf).key("n")

    (tmp_path / "a").write_text("same", encoding="utf-8")
    (tmp_path / "b").write_text("same", encoding="utf-8")
    assert key("a") == key("b")
    (tmp_path / "b").write_text("else", encoding="utf-8")
    assert key("a") != key("b")
    shards = [f"sd3.5-0000{at}-of-00002.safetensors" for at in (1, 2)]
    for shard in (*shards, "other-00001-of-00002.safetensors", "sd3.5-00001-of-00003.safetensors"):
        (tmp_path / shard).write_text(shard, encoding="utf-8")
    before = key(shards[0])
    assert key(shards[1]) == before  # the same model, whichever is named
    (tmp_path / "other-00001-of-00002.safetensors").write_text("else", encoding="utf-8")
    assert key(shards[0]) == before
    (tmp_path / shards[1]).write_text("else", encoding="utf-8")
    assert key(shards[0]) != before


def test_no_name_of_an_input_reads_as_another_input_and_its_value() -> None:
    """Names of undeclared inputs are whatever a client writes: none may stand for an input that is absent."""

    def key(**inputs: Any) -> str:
        document = prompt(n=("Join", {"first": "x", "second": "y", **inputs}), s=("Show", {"value": ["n", 0]}))
        return plan(checked(document)).key("n")

    assert key(sep="-", z=2) != key(**{"sep='-'\x1fz": 2})
    assert key(sep="-", z=2) != key(**{"'sep'='-'\x1f'z'": 2})


def test_planning_takes_linear_work() -> None:
    def calls(length: int) -> float:
        """Calls of functions, ours and built in, per node."""
        graph, count = checked(chain(length)), 0

        def counted(frame: object, event: str, argument: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        sys.setprofile(counted)
        try:
            plan(graph)
        finally:
            sys.setprofile(None)
        return count / length

    assert calls(4000) == pytest.approx(calls(400), rel=0.02)


def test_no_garbage_is_looked_for_while_planning() -> None:
    """It was, where output nodes that others read are looked for: calls out of nowhere in the test above."""
    graph, begun, least = checked(chain(400)), list[str](), gc.get_threshold()
    gc.callbacks.append(told := lambda phase, _: begun.append(phase))
    gc.set_threshold(1)
    try:
        plan(graph)
    finally:
        gc.set_threshold(*least)
        gc.callbacks.remove(told)
    assert len(begun) < 40, "a few on the way in and out, none for each node"


def test_the_order_holds_for_any_graph_without_cycles() -> None:
    dice = random.Random(5)
    for _ in range(30):
        size = dice.randrange(2, 60)
        nodes: dict[str, Any] = {}
        for i in range(size):
            sources = [dice.randrange(i) for _ in range(2)] if i else []
            a, b = ([str(j), 0] for j in sources) if sources else (1, 2)
            nodes[str(i)] = ("Add", {"a": a, "b": b})
        order = list(planned(prompt(**nodes, s=("Show", {"value": [str(size - 1), 0]}))).order)
        position = {node_id: at for at, node_id in enumerate(order)}
        assert len(position) == len(order)
        for node_id in order:
            inputs = prompt(**nodes).get(node_id, {"inputs": {}})["inputs"].values()
            assert all(position[link[0]] < position[node_id] for link in inputs if isinstance(link, list))
