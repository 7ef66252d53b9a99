"""Results of packs' nodes are kept apart where the process computes otherwise; what a node says itself counts too."""

from pathlib import Path
from typing import Any

import pytest

from sigmagraph.engine.compose.packs import load_custom_nodes
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.graph.plan import plan
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.validate import validate
from sigmagraph.engine.models.memory.choices import MemoryChoices
from sigmagraph.engine.models.memory.residency import RESIDENCY

PACK = """
import comfy.sd


class Plain:
    INPUT_TYPES = classmethod(lambda cls: {"required": {"name": ("STRING", {}), "at": ("INT", {"default": 1})}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = ("MODEL",), "load", "mine", True

    def load(self, name, at):
        return (comfy.sd.load_diffusion_model(name),)


class Says(Plain):
    said = 1

    @classmethod
    def IS_CHANGED(cls, at):
        return cls.said * at


class SaysLater(Plain):
    @classmethod
    async def IS_CHANGED(cls, **inputs):
        return inputs["at"]


class Always(Plain):
    @classmethod
    def IS_CHANGED(cls, **inputs):
        return float("nan")


NODE_CLASS_MAPPINGS = {"Plain": Plain, "Says": Says, "SaysLater": SaysLater, "Always": Always}
"""


@pytest.fixture
def nodes(tmp_path: Path) -> Any:
    for name in ("models", "input", "output", "temp", "packs"):
        (tmp_path / name).mkdir()
    (tmp_path / "packs/mine.py").write_text(PACK, "utf-8")
    folders = Folders(*(tmp_path / name for name in ("models", "input", "output", "temp")))
    return load_custom_nodes([tmp_path / "packs"], folders, lambda pack: None)


def key_of(nodes: Any, kind: str, at: int = 1) -> str:
    graph = validate(parse_workflow({"1": {"class_type": kind, "inputs": {"name": "x", "at": at}}}), nodes, None)
    return plan(graph, None).keys.by_id["1"]


@pytest.mark.parametrize("kind", ["Plain", "Says", "SaysLater"])
def test_another_precision_is_another_key(nodes: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {}
    for precision in ("fp32", "bf16"):
        monkeypatch.setattr(RESIDENCY, "choices", MemoryChoices(model=precision))
        assert key_of(nodes, kind) == key_of(nodes, kind)
        keys[precision] = key_of(nodes, kind)
    assert len(set(keys.values())) == 2
    monkeypatch.setattr(RESIDENCY, "choices", MemoryChoices(model="fp32"))
    assert key_of(nodes, kind) == keys["fp32"]


def test_what_a_node_says_itself_still_counts(nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of(nodes, "Says")
    monkeypatch.setattr(nodes["Says"].instance, "said", 2)
    assert key_of(nodes, "Says") != before
    assert key_of(nodes, "Always") != key_of(nodes, "Always")
