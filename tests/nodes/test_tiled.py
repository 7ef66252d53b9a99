"""VAEDecodeTiled and VAEEncodeTiled against what ComfyUI 0.3.64 gave for the same small autoencoder."""

import lzma
from pathlib import Path
from typing import Any

import pytest

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models import Vae, load_vae
from sigmagraph.nodes import NODES
from tests.nodes.golden_cases import content, difference, family, ours, theirs

CASES: dict[str, Any] = family("tiled")[0]
FIXTURE = Path(__file__).parents[1] / "data/models/checkpoint_all_in_one.safetensors.xz"


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Vae:
    path = tmp_path_factory.mktemp("tiled") / "checkpoint_all_in_one.safetensors"
    path.write_bytes(lzma.decompress(FIXTURE.read_bytes()))
    return load_vae(path)


@pytest.mark.parametrize("key", CASES)
def test_tiles_give_what_was_recorded(key: str, vae: Vae) -> None:
    case, tensors = CASES[key], family("tiled")[1]
    node = NODES[case["node"]]
    types = {one.name: one.type for one in node.inputs}
    inputs = {name: ours(content(given, tensors), types[name]) for name, given in case["inputs"].items()} | {"vae": vae}
    if "error" in case:
        with pytest.raises(BadValue, match="overlap: .* expected below 32, half of tile_size"):
            node(**inputs)
        return
    found = theirs(node(**inputs), node.outputs[0].type)
    assert difference(found, content(case["outputs"][0]["content"], tensors), 1e-4) is None
