"""docs/nodes.md, run as it is written."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from sigmagraph.engine.errors import InvalidWorkflow
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.execution.inline import execute
from sigmagraph.engine.execution.packs import load_packs, shim_modules, with_replacements
from sigmagraph.engine.graph.declarations import Declarations
from sigmagraph.engine.graph.plan import plan
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.validate import validate
from tests.execution.running import Stage
from tests.graph.small import NODES, prompt

TEXT = (Path(__file__).parents[2] / "docs" / "nodes.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```python( pack| file| schema)?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_the_typed_functions_of_the_guide_run_as_written() -> None:
    code = "\n".join(body for kind, body in BLOCK.findall(TEXT) if not kind)
    assert code.count("@node(") == 10
    exec(compile(code, "docs/nodes.md", "exec"), {"__name__": "docs_nodes"})


@pytest.mark.usefixtures("packs")
def test_the_pack_of_the_guide_loads_and_runs_as_written(tmp_path: Path) -> None:
    (body,) = [body for kind, body in BLOCK.findall(TEXT) if kind == " pack"]
    (tmp_path / "guide_pack.py").write_text(body, encoding="utf-8")
    (pack,) = load_packs([tmp_path], shim_modules(Folders(tmp_path, tmp_path, tmp_path, tmp_path)))
    assert pack.problems == ()
    stage = Stage({**NODES, **pack.nodes})
    assert stage.shown(prompt(a=("Shout", {"text": "hi", "times": 2}), s=("Show", {"value": ["a", 0]}))) == ["HI!!"]
    del sys.modules["custom_nodes.guide_pack"]


@pytest.mark.usefixtures("packs")
def test_the_newer_pack_of_the_guide_loads_and_runs_as_written(tmp_path: Path) -> None:
    (body,) = [body for kind, body in BLOCK.findall(TEXT) if kind == " schema"]
    (tmp_path / "guide_signs.py").write_text(body, encoding="utf-8")
    (pack,) = load_packs([tmp_path], shim_modules(Folders(tmp_path, tmp_path, tmp_path, tmp_path)))
    assert pack.problems == ()
    stage = Stage(with_replacements({**NODES, **pack.nodes}, [pack]))
    sign = {"parts.part0": "come", "parts.part1": "in", "measure": "to a width", "measure.width": 6}
    joined = ("Join", {"first": "*", "second": ""})
    names = {"n": ("Join", {"first": "Ann", "second": ""}), "j": joined}

    def shown(**more: Any) -> dict[str, Any]:
        result = stage.run(prompt(s=("Sign", {**sign, "name": ["n", 0], **more}), **names)).or_raise()
        return {"text": result.ui["s"]["text"], "name ran": "n" in result.executed}

    assert shown(signed=False) == {"text": ("s: come i",), "name ran": False}
    framed = {"signed": True, "frame": ["j", 0], "frame.times": 2}
    assert shown(**framed) == {"text": ("s: **come i** Ann",), "name ran": True}
    with pytest.raises(InvalidWorkflow, match="no sign is 13 wide"):
        shown(signed=False, **{"measure.width": 13})
    old = prompt(n=("Join", {"first": "", "second": ""}), j=joined, o=("Or", {"a": ["n", 0], "b": ["j", 0]}))
    read = parse_workflow(old | prompt(s=("Show", {"value": ["o", 0]})), Declarations(stage.nodes, None))
    assert execute(plan(validate(read, stage.nodes))).or_raise().ui["s"]["shown"] == ["*"]
    del sys.modules["custom_nodes.guide_signs"]


def test_the_guide_names_only_modules_that_are_offered(tmp_path: Path) -> None:
    offered = shim_modules(Folders(tmp_path, tmp_path, tmp_path, tmp_path))
    given_by_the_command = {"comfy.samplers", "comfy.sd"}
    line = next(part for part in TEXT.split("\n- ") if part.startswith("Packs find these names"))
    named = {name for name in re.findall(r"`([a-z_0-9.]+)`", line) if not name.startswith("comfy_entrypoint")}
    assert named - given_by_the_command <= set(offered)
