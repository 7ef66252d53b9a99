"""Documents nobody meant: each is read or refused with a `BadDocument`, quickly, and nothing else comes out."""

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigmagraph.engine.errors import BadDocument, InvalidWorkflow
from sigmagraph.engine.graph.editor import convert, drawn
from sigmagraph.engine.graph.reading.document import parse_json, parse_workflow
from sigmagraph.engine.graph.validate import validate
from tests.graph.small import NODES as SMALL
from tests.graph.test_editor import NODES

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("1") | st.just(-10)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
PAGES = ["GetNode", "SetNode", "Anything Everywhere", "Anything Everywhere?", "Seed Everywhere", "Prompts Everywhere"]
classes = st.sampled_from([*NODES, *PAGES, "Reroute", "PrimitiveNode", "Note", "Unknown", "workflow>Group", ""])
conditions = st.dictionaries(
    st.sampled_from(["version", "title_regex", "input_regex", "group_regex", "priority", "repeated_type_rule"])
    | st.sampled_from(["group_restricted", "color_restricted", "widget_ue_connectable", "output_not_broadcasting"]),
    st.integers(0, 4) | st.sampled_from(["a", "(", ".*"]) | values,
    max_size=4,
)
slots = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "name": st.text(max_size=5) | scalars,
            "type": values,
            "link": scalars,
            "links": values,
            "widget": values,
        },
    )
    | values,
    max_size=3,
)
editor_nodes = st.fixed_dictionaries(
    {"id": st.integers(0, 4) | scalars, "type": classes | values},
    optional={
        "mode": st.sampled_from([0, 2, 4]) | values,
        "inputs": slots,
        "outputs": slots,
        "widgets_values": values,
        "properties": values | st.fixed_dictionaries({"ue_properties": conditions, "ue_convert": st.booleans()}),
        "title": values,
        "pos": values,
        "size": values,
    },
)
links = st.lists(st.integers(-20, 6) | scalars, min_size=4, max_size=6) | values
documents = st.fixed_dictionaries(
    {"nodes": st.lists(editor_nodes | values, max_size=5), "links": st.lists(links, max_size=6)},
    optional={"version": scalars, "definitions": values, "extra": values, "groups": values},
)
prompts = st.dictionaries(
    st.sampled_from(["1", "2", "3"]) | st.text(max_size=3),
    st.fixed_dictionaries(
        {"class_type": st.sampled_from(list(SMALL)) | values},
        optional={
            "inputs": st.dictionaries(
                st.sampled_from(["a", "b", "value", "image", "first"]),
                st.just(["1", 0]) | st.just(["2", 0]) | values,
                max_size=3,
            )
            | values,
            "_meta": values,
        },
    )
    | values,
    max_size=4,
)


@settings(max_examples=400, deadline=1000)
@given(documents)
def test_editor_documents_convert_or_are_refused(document: dict[str, Any]) -> None:
    with contextlib.suppress(BadDocument):
        convert(document, NODES)


@settings(max_examples=400, deadline=1000)
@given(prompts | values)
def test_prompts_validate_or_are_refused(prompt: Any) -> None:
    with contextlib.suppress(BadDocument, InvalidWorkflow):
        validate(parse_workflow(prompt), SMALL)


@settings(max_examples=200, deadline=1000)
@given(prompts)
def test_prompts_are_drawn_or_refused(prompt: Any) -> None:
    declarations = {name: node.object_info() for name, node in SMALL.items()}
    try:
        parse_workflow(prompt)
        drawn(prompt, declarations)
    except BadDocument:
        pass


LONG = 2000
CHAIN = json.dumps(
    {
        "nodes": [
            {"id": at, "type": "Reroute", "inputs": [{"name": "", "type": "*", "link": at}]} for at in range(LONG)
        ]
        + [
            {"id": LONG + at, "type": "Add", "inputs": [{"name": "a", "type": "*", "link": LONG}]} for at in range(LONG)
        ],
        "links": [[at, at - 1, 0, at, 0, "*"] for at in range(1, LONG)] + [[LONG, LONG - 1, 0, LONG, 0, "*"]],
    }
)
"""Many inputs at the end of one long way."""


@pytest.mark.parametrize(
    "text",
    [
        CHAIN,
        "[" * 200_000,
        '{"a":' * 200_000,
        '{"1": {"class_type": "Add", "inputs": {"a": 1' + "0" * 100_000 + "}}}",
        '{"1": {"class_type": "' + "x" * 10_000_000 + '", "inputs": {}}}',
        '{"nodes": [' + ",".join(f'{{"id": {at}, "type": "Note"}}' for at in range(20_000)) + '], "links": []}',
    ],
    ids=["chain", "lists", "objects", "digits", "letters", "notes"],
)
def test_hostile_documents_take_less_than_a_second(text: str) -> None:
    began = time.process_time()
    with contextlib.suppress(BadDocument, InvalidWorkflow):
        validate(parse_workflow(parse_json(text)), SMALL)
    assert time.process_time() - began < 1.0
