"""Transformers whose file has no position table: ComfyUI's positions are computed in its place."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sigmagraph.engine.models import Conditioning, Model, load_diffusion_model
from sigmagraph.engine.models.arch import MMDiT, MMDiTShape
from sigmagraph.engine.models.arch.mmdit import stretched_positions
from sigmagraph.engine.models.files.detect import Parts, find_parts
from sigmagraph.engine.models.files.read import StoredTensor, WeightFile
from sigmagraph.engine.models.files.summary import _family
from sigmagraph.engine.models.spec import sd3_spec
from tests.models.conftest import Unpack
from tests.models.test_manifests import TRANSFORMERS, published
from tests.weights import drawn_weights

SHAPE = MMDiTShape(2, 128, 64, 96, 8)


@pytest.fixture(scope="module")
def dense() -> dict[str, Tensor]:
    return drawn_weights(SHAPE)


def without_table(path: Path, dense: dict[str, Tensor]) -> Model:
    save_file({name: values for name, values in dense.items() if name != "pos_embed"}, path)
    return load_diffusion_model(path)


def predicted(model: Model, rows: int, columns: int) -> Tensor:
    torch.manual_seed(1)
    text = Conditioning(torch.randn(1, 7, 96), torch.randn(1, 64))
    return model.predict(torch.randn(1, 16, rows, columns), 0.5, [text])[0]


def test_a_file_without_a_table_computes_as_with_comfyuis_positions_for_a_table(
    tmp_path: Path, dense: dict[str, Tensor], unpack: Unpack, caplog: pytest.LogCaptureFixture
) -> None:
    """Of 8 x 8 tokens the whole table is used, so a file that holds the recorded positions must give the same."""
    recorded = load_file(unpack("control_positions.safetensors"))
    with caplog.at_level(logging.WARNING):
        bare = without_table(tmp_path / "bare.safetensors", dense)
    assert "no position table (pos_embed) in the file" in caplog.text
    save_file({**dense, "pos_embed": recorded["square"][None].contiguous()}, tmp_path / "table.safetensors")
    table = load_diffusion_model(tmp_path / "table.safetensors")
    torch.testing.assert_close(predicted(bare, 16, 16), predicted(table, 16, 16), rtol=0, atol=2e-6)
    with torch.no_grad():
        torch.testing.assert_close(bare.network.positions(4, 7)[0], recorded["wide"], rtol=0, atol=1e-6)


def test_a_picture_may_be_larger_than_any_table(tmp_path: Path, dense: dict[str, Tensor]) -> None:
    """Twice the length of the longer side doubles the reach of its positions, and leaves those of the other side."""
    bare = without_table(tmp_path / "bare.safetensors", dense)
    assert bare.spec.largest_side == 16384
    assert torch.isfinite(predicted(bare, 24, 40)).all()
    short, long = (stretched_positions(4, columns, 128)[0].unflatten(0, (4, columns)) for columns in (8, 16))
    assert torch.equal(short[:, 0, 64:], long[:, 0, 64:])
    first = 128 // 4  # the cosines of the columns begin here: the slowest turns tell the place itself
    reach = [(grid[0, -1, :first] - grid[0, 0, :first])[-1] for grid in (short, long)]
    assert reach[1] / reach[0] == pytest.approx(2, rel=1e-3)


@pytest.mark.parametrize("name", TRANSFORMERS)
@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_the_family_is_told_without_the_table_too(name: str, layout: str) -> None:
    family, shape = TRANSFORMERS[name]
    whole = published(f"{name}.{layout}")
    table = {"pos_embed", "pos_embed.pos_embed"}
    parts = find_parts(WeightFile(whole.path, {key: t for key, t in whole.weights.items() if key not in table}))
    assert parts.mmdit is not None
    found = MMDiTShape.from_tensors({key: tensor.shape for key, tensor in parts.mmdit.items()})
    assert found == replace(shape, table_side=0)
    assert sd3_spec(found).family == family
    assert _family(parts).startswith(family)
    with torch.device("meta"):
        assert MMDiT(found).state_dict().keys() == parts.mmdit.keys()


def test_a_table_of_another_size_is_another_model() -> None:
    tensor = StoredTensor((1, 64, 1536), torch.float16, lambda: torch.empty(0))
    weight = StoredTensor((1536, 16, 2, 2), torch.float16, lambda: torch.empty(0))
    parts = Parts(mmdit={"pos_embed": tensor, "x_embedder.proj.weight": weight})
    assert _family(parts) == "SD3's architecture, width 1536"
