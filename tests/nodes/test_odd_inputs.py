"""Batches, sizes and channels that do not go together are refused by name, or mean what they say."""

from typing import Any

import pytest
import torch

from sigmagraph.engine.errors import BadValue
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.types import LatentValue


def latent(*shape: int) -> LatentValue:
    return LatentValue(torch.rand(*shape, generator=torch.Generator().manual_seed(0)))


ONE = latent(1, 16, 8, 8)
PAIRS = [
    ("LatentBatch", (latent(1, 3, 8, 8), ONE), {}, "channels"),
    ("LatentBatch", (ONE, latent(1, 16, 2, 8, 8)), {}, "4 axes"),
    ("LatentBlend", (latent(1, 3, 8, 8), ONE), {"blend_factor": 0.5}, "channels"),
    ("LatentBlend", (latent(2, 16, 8, 8), latent(3, 16, 8, 8)), {"blend_factor": 0.5}, "3 latents"),
    ("LatentAdd", (ONE, latent(1, 16, 2, 8, 8)), {}, "4 axes"),
    ("LatentInterpolate", (latent(1, 16, 2, 8, 8), ONE), {"ratio": 0.5}, "5 axes"),
    ("LatentSubtract", (ONE, latent(0, 16, 8, 8)), {}, "at least one"),
]


@pytest.mark.parametrize(("name", "pair", "more", "said"), PAIRS)
def test_latents_that_do_not_go_together_are_refused(name: str, pair: Any, more: dict[str, Any], said: str) -> None:
    with pytest.raises(BadValue, match=said):
        NODES[name](samples1=pair[0], samples2=pair[1], **more)


def test_planes_of_other_sizes_are_no_picture_and_a_single_one_is_for_all() -> None:
    y, grey = torch.rand(2, 4, 6, 3), torch.full((1, 4, 6, 3), 0.5)
    made = NODES["ImageYUVToRGB"](Y=y, U=grey, V=grey)
    torch.testing.assert_close(made, y.mean(-1, keepdim=True).expand(-1, -1, -1, 3))
    assert NODES["ImageYUVToRGB"](Y=grey, U=grey, V=y).shape == (2, 4, 6, 3)
    with pytest.raises(BadValue, match=r"\[1, 4, 5\]"):
        NODES["ImageYUVToRGB"](Y=y, U=torch.rand(1, 4, 5, 3), V=grey)


def test_a_mask_without_a_batch_is_one_mask_for_porter_and_duff() -> None:
    picture, mask = torch.rand(1, 8, 8, 3), torch.rand(8, 8)
    bare, given = (
        NODES["PorterDuffImageComposite"](
            source=picture, source_alpha=one, destination=picture.flip(1), destination_alpha=one, mode="SRC_OVER"
        )
        for one in (mask, mask[None])
    )
    assert all(torch.equal(one, other) for one, other in zip(bare, given, strict=True))
