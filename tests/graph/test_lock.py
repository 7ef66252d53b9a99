import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pytest

from sigmagraph.engine.errors import BadDocument
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.graph.graph import Graph
from sigmagraph.engine.graph.lock import Difference, Lock, differences, input_differences, lock_of, read_lock
from sigmagraph.engine.graph.node import FileIn, node
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.validate import validate
from tests.graph.small import NODES, prompt


@node("Load", category="test")
def load(*, name: Annotated[str, FileIn("input")]) -> str:
    """The name."""
    return name


LIBRARY = NODES | {"Load": load}


def graph(document: dict[str, Any], folders: Folders | None = None) -> Graph:
    return validate(parse_workflow(document), LIBRARY, folders)


def sum_of(a: int = 1, **more: Any) -> dict[str, Any]:
    return prompt(n=("Add", {"a": a, "b": 2}), s=("Show", {"value": ["n", 0]}), **more)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    (tmp_path / "input").mkdir()
    (tmp_path / "input/a.png").write_bytes(b"one")
    return Folders(tmp_path / "models", tmp_path / "input", tmp_path / "output", tmp_path / "temp")


def test_a_lock_holds_what_is_behind_the_output_and_nothing_else() -> None:
    document = sum_of(other=("Add", {"a": 5}), o=("Show", {"value": ["other", 0]}))
    assert sorted(lock_of(graph(document), "s").nodes) == ["n", "s"]


def test_titles_and_the_order_of_keys_do_not_count_and_inputs_do() -> None:
    titled = sum_of()
    titled["n"] = {"_meta": {"title": "x"}, "inputs": {"b": 2, "a": 1}, "class_type": "Add"}
    assert lock_of(graph(titled), "s") == lock_of(graph(sum_of()), "s")
    assert lock_of(graph(sum_of(3)), "s").graph != lock_of(graph(sum_of()), "s").graph


def test_a_lock_comes_back_from_its_text() -> None:
    lock = lock_of(graph(sum_of()), "s").completed({"euler": 1}, {"torch": "2"}).of_image(3)
    assert read_lock(json.dumps(lock.written())) == lock


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"form": 2}', '{"form": 1, "output": 7}', "[" * 100_000])
def test_what_is_no_lock_is_refused(text: str) -> None:
    with pytest.raises(BadDocument, match="lock"):
        read_lock(text)


def test_a_file_with_other_content_is_named(folders: Folders) -> None:
    document = prompt(l=("Load", {"name": "a.png"}), s=("Show", {"value": ["l", 0]}))
    before = lock_of(graph(document, folders), "s", folders)
    (folders.input_dir / "a.png").write_bytes(b"other")
    ready = graph(document, folders)
    [found] = differences(before, lock_of(ready, "s", folders))
    assert found.field == "files.input/a.png"
    (folders.input_dir / "a.png").unlink()
    assert lock_of(ready, "s", folders).files == {"input/a.png": "unreadable"}


def test_a_lock_of_earlier_digests_still_says_whether_its_files_are_the_same(folders: Folders) -> None:
    document = prompt(l=("Load", {"name": "a.png"}), s=("Show", {"value": ["l", 0]}))
    ready, place = graph(document, folders), folders.input_dir / "a.png"
    now = lock_of(ready, "s", folders)
    earlier = replace(now, files={"input/a.png": hashlib.blake2b(place.read_bytes(), digest_size=16).hexdigest()})
    assert earlier != now
    assert lock_of(ready, "s", folders, earlier) == earlier
    place.write_bytes(b"other")
    [found] = differences(earlier, lock_of(ready, "s", folders, earlier))
    assert found.field == "files.input/a.png"


def test_every_kind_of_difference_has_its_name() -> None:
    one = Lock("s", "g", {"1": "A x.1"}, {"f/a": "h"}, {"euler": 1}, {"torch": "2", "gone": "1"})
    two = Lock("s", "g", {"1": "A x.2"}, {"f/a": "i"}, {"euler": 2}, {"torch": "3", "new": "1"})
    fields = [difference.field for difference in differences(one, two)]
    assert fields == [
        "nodes.1",
        "files.f/a",
        "samplers.euler",
        "environment.gone",
        "environment.new",
        "environment.torch",
    ]
    assert differences(one, one) == []
    assert str(Difference("environment.new", None, "1")) == "environment.new: was absent, now '1'"


def test_inputs_are_compared_by_node_and_name() -> None:
    before, after = sum_of(), sum_of(3, extra=("Add", {}))
    del after["s"]
    found = input_differences(before, after)
    assert [(difference.field, difference.recorded, difference.now) for difference in found] == [
        ("graph.extra", None, "Add"),
        ("graph.n (Add).a", 1, 3),
        ("graph.s", "Show", None),
    ]
