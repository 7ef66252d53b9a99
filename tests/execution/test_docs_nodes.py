"""docs/nodes.md, run as it is written."""

import re
import sys
from pathlib import Path

import pytest

from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.execution.packs import load_packs, shim_modules
from tests.execution.running import Stage
from tests.graph.small import NODES, prompt

TEXT = (Path(__file__).parents[2] / "docs" / "nodes.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```python( pack| file)?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_the_typed_functions_of_the_guide_run_as_written() -> None:
    code = "\n".join(body for kind, body in BLOCK.findall(TEXT) if not kind)
    assert code.count("@node(") == 9
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


def test_the_guide_names_only_modules_that_are_offered(tmp_path: Path) -> None:
    offered = shim_modules(Folders(tmp_path, tmp_path, tmp_path, tmp_path))
    given_by_the_command = {"comfy.samplers", "comfy.sd"}
    line = next(part for part in TEXT.split("\n- ") if part.startswith("Packs find these names"))
    named = {name for name in re.findall(r"`([a-z_0-9.]+)`", line) if not name.startswith("comfy_entrypoint")}
    assert named - given_by_the_command <= set(offered)
