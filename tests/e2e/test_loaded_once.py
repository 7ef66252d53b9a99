"""However small the cache: a model is loaded once per process, and the second run is the first in time and memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.execution.inline import execute
from sigmagraph.engine.graph.plan import plan
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.validate import validate
from sigmagraph.engine.models.memory.residency import RESIDENCY
from sigmagraph.nodes import NODES

Graph = dict[str, dict[str, Any]]
CPU = torch.device("cpu")


@pytest.mark.parametrize("share", [0.25, 0.0])
def test_three_prompts_load_each_network_once(
    home: Path, txt2img: Callable[..., Graph], monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """A quarter of the model, or no cache at all; with none, handles are made anew and find what is there."""
    monkeypatch.setattr(RESIDENCY, "keeps_unknown", True)
    RESIDENCY.free()
    size = (home / "models/checkpoints/tiny.safetensors").stat().st_size
    folders = Folders(home / "models", home / "input", home / "out", home / "temp")
    cache, loads, held, loaders = MemoryCache(int(share * size)), RESIDENCY.load_count, [], 0
    for seed, text in enumerate(("a red circle", "a green square", "a small blue circle")):
        graph = txt2img(seed=seed)
        graph["2"]["inputs"]["text"] = text
        ready = validate(parse_workflow(graph), NODES, folders)
        result = execute(plan(ready, folders), folders, cache, around=torch.inference_mode).or_raise()
        loaders += result.nodes["1"].outcome == "executed"
        held.append(RESIDENCY.bytes_on(CPU))
    assert RESIDENCY.load_count - loads == 5, "the model, three encoders and the VAE"
    assert held == held[:1] * 3, "nothing stays of a run but what the first one left"
    assert loaders == (1 if share else 3)
    RESIDENCY.free()
