import json
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigmagraph.engine.errors import BadDocument, MissingFile
from sigmagraph.engine.graph.reading.document import load_workflow, parse_workflow, read_workflow
from sigmagraph.engine.graph.reading.png import SIGNATURE, text_chunks
from sigmagraph.engine.graph.workflow import Link
from tests.graph.small import prompt

PROMPT = prompt(a=("Add", {"a": 1, "b": 2}), s=("Show", {"value": ["a", 0]}))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def picture(*chunks: bytes) -> bytes:
    return SIGNATURE + chunk(b"IHDR", b"\0" * 13) + b"".join(chunks) + chunk(b"IEND", b"")


def text(keyword: str, value: Any) -> bytes:
    return chunk(b"tEXt", keyword.encode() + b"\0" + json.dumps(value).encode())


def test_links_are_read_and_everything_else_is_kept() -> None:
    document = prompt(a=("Add", {"a": ["b", 1], "x": [1, 2], "y": ["only"], "z": {"__value__": ["b", 1]}, "w": None}))
    inputs = parse_workflow(document).nodes["a"].inputs
    assert inputs == {"a": Link("b", 1), "x": [1, 2], "y": ["only"], "z": {"__value__": ["b", 1]}, "w": None}
    assert type(inputs["a"]) is Link


def test_the_document_handed_in_is_never_changed() -> None:
    before = json.dumps(PROMPT)
    workflow = parse_workflow(PROMPT)
    workflow.with_inputs({"a": {"a": 5}})
    assert json.dumps(PROMPT) == before


def test_overrides_make_a_copy() -> None:
    workflow = parse_workflow(PROMPT)
    changed = workflow.with_inputs({"a": {"a": 5}})
    assert changed.nodes["a"].inputs == {"a": 5, "b": 2}
    assert workflow.nodes["a"].inputs == {"a": 1, "b": 2}


def test_a_request_body_is_unpacked_with_the_editor_document_beside_it() -> None:
    editor = {"nodes": [], "links": []}
    body = {"prompt": PROMPT, "extra_data": {"extra_pnginfo": {"workflow": editor}}, "client_id": "x"}
    workflow = parse_workflow(body)
    assert workflow.prompt() == PROMPT
    assert workflow.editor == editor


def test_a_node_called_prompt_does_not_make_a_request_body() -> None:
    document = prompt(prompt=("Add", {"a": 1}))
    assert parse_workflow(document).prompt() == document


def test_is_changed_left_by_an_engine_is_dropped() -> None:
    document = {"a": {"class_type": "Add", "inputs": {}, "is_changed": [float("nan")]}}
    assert parse_workflow(json.loads(json.dumps(document))).prompt() == {"a": {"class_type": "Add", "inputs": {}}}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("[1, 2]", "the document is a list; expected an object"),
        ("{", "not JSON: Expecting property name enclosed in double quotes at line 1, column 2"),
        ('{"3": 7}', "node 3: is a number; expected an object with class_type and inputs"),
        ('{"3": {"class_type": 5}}', "node 3: class_type is a number; expected a string"),
        ('{"3": {"class_type": "K", "inputs": []}}', r"node 3 \(K\): inputs is a list; expected an object"),
        ('{"prompt": []}', "the prompt is a list; expected an object of nodes"),
        ("[" * 100_000, "nested too deeply"),
        (b"\xff\xfe\xfd", "not JSON and not a picture"),
    ],
)
def test_what_is_no_workflow_is_refused_with_its_place(document: str | bytes, message: str) -> None:
    with pytest.raises(BadDocument, match=message):
        read_workflow(document)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_json_at_all_is_read_or_refused_and_never_crashes(document: Any) -> None:
    with suppress(BadDocument):
        parse_workflow({"1": document} if isinstance(document, dict) else document)


def test_a_picture_gives_its_prompt_and_keeps_the_editor_document() -> None:
    editor = {"nodes": [], "links": []}
    workflow = read_workflow(picture(text("prompt", PROMPT), text("workflow", editor)))
    assert workflow.prompt() == PROMPT
    assert workflow.editor == editor


def test_remarks_written_by_hand_beside_the_nodes_are_no_nodes() -> None:
    assert parse_workflow({"_comment": "my first graph", "_list": [1], **PROMPT}).prompt() == PROMPT


def test_all_three_kinds_of_text_chunk_are_read() -> None:
    compressed = chunk(b"zTXt", b"b\0\0" + zlib.compress(b"two"))
    international = chunk(b"iTXt", b"c\0\1\0de\0Titel\0" + zlib.compress("drei ü".encode()))
    texts = text_chunks(picture(chunk(b"tEXt", b"a\0one"), compressed, international), pytest.fail)
    assert texts == {"a": "one", "b": "two", "c": "drei ü"}


def test_a_picture_without_workflow_says_so() -> None:
    with pytest.raises(BadDocument, match="the picture carries no workflow"):
        read_workflow(picture(chunk(b"tEXt", b"Software\0pencil")))


def test_a_text_with_a_stale_checksum_is_read_and_said() -> None:
    whole = picture(text("prompt", PROMPT), text("note", "as it was"))
    workflow = read_workflow(whole.replace(b"as it was", b"as it is!", 1))
    assert workflow.prompt() == PROMPT
    assert ["wrong checksum" in warning for warning in workflow.warnings] == [True]


def test_a_damaged_or_truncated_picture_is_refused() -> None:
    whole = picture(text("prompt", PROMPT))
    with pytest.raises(BadDocument, match="not JSON"):
        read_workflow(whole.replace(b'"class_type"', b'"class_type!', 1))
    with pytest.raises(BadDocument, match="in the middle of a chunk"):
        read_workflow(whole[:60])


def test_a_text_that_inflates_without_end_is_refused() -> None:
    bomb = chunk(b"zTXt", b"prompt\0\0" + zlib.compress(b"x" * (64 * 1024 * 1024)))
    with pytest.raises(BadDocument, match="inflates beyond"):
        read_workflow(picture(bomb))


def test_a_file_names_itself_in_every_refusal(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="No such file"):
        load_workflow(tmp_path / "none.json")
    path = tmp_path / "bad.json"
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(BadDocument, match=r"bad\.json: the document is a list"):
        load_workflow(path)
