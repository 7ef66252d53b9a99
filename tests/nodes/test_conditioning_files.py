import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sigmagraph.engine.errors import BadValue, CorruptFile
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.models.conditioning import Conditioning
from sigmagraph.nodes import NODES

GENERATOR = torch.Generator().manual_seed(0)
CONTEXT = torch.randn(1, 5, 8, generator=GENERATOR)
POOLED = torch.randn(1, 6, generator=GENERATOR)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    made = Folders(tmp_path / "models", tmp_path / "input", tmp_path / "output", tmp_path / "temp")
    (tmp_path / "models/embeddings").mkdir(parents=True)
    return made


def test_a_saved_conditioning_loads_again_with_all_it_carries(folders: Folders) -> None:
    latents = [torch.randn(1, 4, 2, 2, generator=GENERATOR) for _ in range(11)]
    extra = {"guidance": 3.5, "reference_latents": latents, "is_bright": True, "nothing": None}
    extra["cross_attn_controlnet"] = CONTEXT  # the same text for ControlNets: one tensor under two names
    given = Conditioning(CONTEXT, POOLED, 0.25, 0.75, extra=extra)
    found = NODES["SaveConditioning"](conditioning=given, services=folders)
    assert found.value is given
    written = next((folders.output_dir / "conditioning").iterdir())
    written.rename(folders.models / "embeddings" / "mine.safetensors")
    read = NODES["ConditioningLoader"](conditioning_name="mine.safetensors", services=folders)
    assert torch.equal(read.context, CONTEXT)
    assert torch.equal(read.pooled, POOLED)
    assert torch.equal(read.extra["cross_attn_controlnet"], CONTEXT)
    assert (read.start, read.end, read.region, read.further) == (0.25, 0.75, None, ())
    assert read.extra.keys() == {"guidance", "reference_latents", "is_bright", "cross_attn_controlnet"}
    assert (read.extra["guidance"], read.extra["is_bright"]) == (3.5, True)
    pairs = zip(read.extra["reference_latents"], latents, strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_what_a_file_cannot_hold_is_refused_by_name(folders: Folders) -> None:
    given = Conditioning(CONTEXT, POOLED)
    with pytest.raises(BadValue, match="2 entries"):
        NODES["SaveConditioning"](conditioning=given.beside(given), services=folders)
    with pytest.raises(BadValue, match="odd"):
        NODES["SaveConditioning"](conditioning=given.with_extra(odd={"a": 1}), services=folders)


@pytest.mark.parametrize(
    ("tensors", "options", "said"),
    [
        ({"latent": CONTEXT}, "{}", "no tensor 'conditioning'"),
        ({"conditioning": CONTEXT[0]}, "{}", "shape"),
        ({"conditioning": CONTEXT}, "{", "options"),
        ({"conditioning": CONTEXT}, "[1]", "options"),
        ({"conditioning": CONTEXT}, json.dumps({"start_percent": "early"}), "options"),
        ({"conditioning": CONTEXT}, json.dumps({"hooks": "mine"}), "options"),
        ({"conditioning": CONTEXT}, json.dumps({"control": {"a": 1}}), "options"),
        ({"conditioning": CONTEXT}, json.dumps({"area": 5}), "options"),
    ],
)
def test_a_file_that_is_no_conditioning_is_refused(
    folders: Folders, tensors: dict[str, torch.Tensor], options: str, said: str
) -> None:
    path = folders.models / "embeddings" / "odd.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"conditioning_options": options})
    with pytest.raises(CorruptFile, match=said):
        NODES["ConditioningLoader"](conditioning_name="odd.safetensors", services=folders)
