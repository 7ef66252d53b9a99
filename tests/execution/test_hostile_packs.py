"""A pack costs itself alone, however it ends while it is loaded or asked what its nodes take."""

import json
import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sigmagraph.engine.errors import InvalidWorkflow
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.execution.packs import Pack, load_packs, loader, shim_modules
from sigmagraph.engine.execution.packs.loader import code_digest
from sigmagraph.engine.jobs.event_json import plain
from sigmagraph.engine.jobs.workers.declare import declarations, declared
from tests.execution.running import Stage, with_nodes
from tests.graph.small import prompt

CLASS = """
class {name}:
    RETURN_TYPES, FUNCTION = ("INT",), "run"
    @classmethod
    def INPUT_TYPES(cls):
        {body}
    def run(self, a):
        return (a,)
"""
WORKS = CLASS.format(name="Works", body='return {"required": {"a": ("INT", {"default": 1})}}')


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    places = [tmp_path / name for name in ("models", "input", "output", "temp")]
    for place in places:
        place.mkdir()
    (tmp_path / "packs").mkdir()
    return Folders(*places)


def loaded(folders: Folders, **files: str) -> dict[str, Pack]:
    """The packs of these sources, loaded in the order of their names."""
    place = folders.models.parent / "packs"
    for name, source in files.items():
        (place / f"{name}.py").write_text(source, encoding="utf-8")
    return {pack.name: pack for pack in load_packs([place], shim_modules(folders))}


def test_what_a_pack_raises_to_end_programs_ends_itself_alone(folders: Folders) -> None:
    packs = loaded(
        folders,
        a="raise KeyboardInterrupt",
        b="class Odd(BaseException): pass\nraise Odd('x')",
        c="def f(): f()\nf()",
        d=WORKS + "NODE_CLASS_MAPPINGS = {'D': Works}",
    )
    assert packs["a"].problems == ("KeyboardInterrupt:  (a.py:1)",)
    assert packs["b"].problems == ("Odd: x (b.py:2)",)
    assert "RecursionError" in packs["c"].problems[0]
    assert set(packs["d"].nodes) == {"D"}


def test_names_that_are_no_python_files_do_not_stop_a_pack(folders: Folders) -> None:
    pack = folders.models.parent / "packs/p"
    (pack / "templates.py").mkdir(parents=True)
    (pack / "__init__.py").write_text(WORKS + "NODE_CLASS_MAPPINGS = {'P': Works}", encoding="utf-8")
    before = code_digest(pack)
    (pack / ".#nodes.py").symlink_to("someone@host.1234")  # as editors lock files
    os.mkfifo(pack / "pipe.py")
    assert code_digest(pack) == before
    assert set(loaded(folders)["p"].nodes) == {"P"}


def test_a_class_that_exits_hangs_or_has_an_impossible_name_is_left_out_and_named(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    exits = CLASS.format(name="Exits", body="import sys; sys.exit(3)")
    number = CLASS.format(name="Number", body='return {"required": {1: ("INT",)}}')
    mapping = "NODE_CLASS_MAPPINGS = {'E': Exits, 'N': Number, 5: Works, 'bad\\udcff': Works, 'W': Works}\n"
    titles = "NODE_DISPLAY_NAME_MAPPINGS = ['not', 'a', 'mapping']\n"
    hangs = CLASS.format(name="Hangs", body="import time; time.sleep(5)")
    monkeypatch.setattr(loader, "IMPORT_S", 0.3)
    packs = loaded(
        folders, odd=WORKS + exits + number + mapping + titles, slow=hangs + "NODE_CLASS_MAPPINGS = {'H': Hangs}"
    )
    assert set(packs["odd"].nodes) == {"W"}
    said = "\n".join(packs["odd"].problems)
    assert "E: SystemExit: 3" in said
    assert "N: TypeError: an input's name is 1" in said
    assert "5: TypeError: a node's name is '5'" in said
    assert "bad\\udcff: UnicodeEncodeError" in said
    assert packs["slow"].problems[0].startswith("TimeoutError: asking the classes of slow took longer than 0.3 s")


def test_a_module_that_a_pack_replaces_is_back_for_the_next(folders: Folders) -> None:
    packs = loaded(
        folders,
        a="import sys\nsys.modules['folder_paths'] = None\nNODE_CLASS_MAPPINGS = {}",
        b="import folder_paths\nfolder_paths.get_input_directory()\n" + WORKS + "NODE_CLASS_MAPPINGS = {'B': Works}",
    )
    assert packs["a"].problems == ("it replaced folder_paths for others; put back",)
    assert set(packs["b"].nodes) == {"B"}
    assert sys.modules["folder_paths"] is not None


def test_a_class_that_fails_to_declare_itself_again_keeps_its_last_declaration(
    folders: Folders, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that lists a folder which is deleted later: the list of all nodes, and the start of a worker, need it."""
    body = 'cls.n = getattr(cls, "n", 0) + 1\n        assert cls.n == 1, "the folder is gone"\n        '
    again = CLASS.format(name="Again", body=body + 'return {"required": {"a": ("INT",)}}')
    pack = loaded(folders, p=again + "NODE_CLASS_MAPPINGS = {'P.Again': Again}")["p"]
    with caplog.at_level(logging.WARNING):
        records = declarations(pack.nodes.values(), None)
    assert [record["inputs"][0]["name"] for record in records] == ["a"]
    assert "P.Again does not declare its inputs any more (AssertionError: the folder is gone" in caplog.text
    stage = Stage(with_nodes(*pack.nodes.values()))
    assert stage.shown(prompt(a=("P.Again", {"a": 3}), s=("Show", {"value": ["a", 0]}))) == [3]


def test_what_a_declaration_holds_goes_over_the_wire_and_is_json_for_a_page(folders: Folders) -> None:
    options = '{"default": float("nan"), "max": float("inf"), "step": 2, "odd": object()}'
    body = f'return {{"required": {{"a": ("FLOAT", {options}), "b": ([object(), float("nan"), "x\\udcff", "y"],)}}}}'
    source = CLASS.format(name="Odd", body=body) + "NODE_CLASS_MAPPINGS = {'Odd': Odd}"
    records = declarations(loaded(folders, p=source)["p"].nodes.values(), None)
    (node,) = declared(json.loads(json.dumps(records))).values()
    shown = json.dumps(node.object_info(), allow_nan=False, ensure_ascii=False).encode()
    wanted = {"a": ["FLOAT", {"step": 2, "odd": "<object>"}], "b": [["<object>", None, "x?", "y"]]}
    assert json.loads(shown)["input"]["required"] == wanted


def test_what_a_node_shows_is_json_for_a_page() -> None:
    assert plain({"value": [float("nan"), float("inf"), 1.5], "n": 1}) == {"value": [None, None, 1.5], "n": 1}


HOOKS = """
    @classmethod
    def VALIDATE_INPUTS(cls, a):
        import sys
        if a == 1: sys.exit(3)
        if a == 2: raise KeyboardInterrupt
        return True
    @classmethod
    def IS_CHANGED(cls, a):
        import sys
        if a == 3: sys.exit(3)
        if a == 4: raise KeyboardInterrupt
        return a
NODE_CLASS_MAPPINGS = {"Works": Works}
"""


@pytest.mark.parametrize("value", [1, 2, 3, 4])
def test_a_hook_that_exits_is_an_answer_and_not_the_end_of_its_thread(folders: Folders, value: int) -> None:
    """Of a thread that ends so nobody hears: the job would run for ever, and all behind it wait."""
    stage = Stage(with_nodes(*loaded(folders, p=WORKS + HOOKS)["p"].nodes.values()))
    document = prompt(a=("Works", {"a": value}), s=("Show", {"value": ["a", 0]}))
    with ThreadPoolExecutor(1) as pool:
        if value > 2:
            assert pool.submit(stage.shown, document).result(10) == [value]
            return
        kind = ("SystemExit", "KeyboardInterrupt")[value - 1]
        with pytest.raises(InvalidWorkflow, match=f"validation raised RuntimeError: it ended with {kind}"):
            pool.submit(stage.shown, document).result(10)
