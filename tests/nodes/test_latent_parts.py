import pytest
import torch

from sigmagraph.engine.errors import BadValue
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.types import LatentValue

SAMPLES = torch.randn(2, 4, 6, 7, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("dim", "axis"), [("x", 3), ("y", 2)])
def test_slices_of_a_latent_are_a_batch_in_order_and_the_rest_is_dropped(dim: str, axis: int) -> None:
    cut = NODES["LatentCutToBatch"](samples=LatentValue(SAMPLES), dim=dim, slice_size=2).samples
    expected = [part for one in SAMPLES.split(1) for part in one.split(2, dim=axis) if part.shape[axis] == 2]
    assert torch.equal(cut, torch.cat(expected))


def test_a_latent_without_frames_is_not_cut_along_them() -> None:
    latent = LatentValue(SAMPLES)
    assert NODES["LatentCutToBatch"](samples=latent, dim="t", slice_size=1) is latent
    frames = LatentValue(torch.arange(8.0).reshape(1, 2, 4, 1, 1))
    cut = NODES["LatentCutToBatch"](samples=frames, dim="t", slice_size=3).samples
    assert cut.flatten().tolist() == [0, 1, 2, 4, 5, 6]


def test_reinhards_curve_bounds_lengths_and_keeps_directions() -> None:
    latent = LatentValue(SAMPLES * 50)
    for multiplier in (0.1, 1.0, 4.0):
        curve = NODES["LatentOperationTonemapReinhard"](multiplier=multiplier)
        toned = NODES["LatentApplyOperation"](samples=latent, operation=curve).samples
        lengths = torch.linalg.vector_norm(latent.samples, dim=1)
        top = (lengths.std((1, 2)) * 5 + lengths.mean((1, 2))) * multiplier
        expected = lengths * top[:, None, None] / (lengths + top[:, None, None])
        torch.testing.assert_close(torch.linalg.vector_norm(toned, dim=1), expected)
        torch.testing.assert_close(toned / expected[:, None], latent.samples / lengths[:, None])


def test_a_latent_that_does_not_fit_beside_another_is_named() -> None:
    with pytest.raises(BadValue, match=r"samples2: \[2, 4, 5, 7\]"):
        NODES["LatentConcat"](samples1=LatentValue(SAMPLES), samples2=LatentValue(SAMPLES[:, :, :5]), dim="x")
