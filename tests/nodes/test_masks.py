from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.nodes import NODES

SIZES = st.integers(1, 12)
FADES = st.integers(0, 15)


@settings(deadline=None)
@given(SIZES, SIZES, FADES, FADES, FADES, FADES)
def test_a_mask_fades_alike_from_every_edge(
    height: int, width: int, left: int, top: int, right: int, bottom: int
) -> None:
    mask = torch.ones(1, height, width)
    faded = NODES["FeatherMask"](mask=mask, left=left, top=top, right=right, bottom=bottom)

    def share(place: int, size: int, before: int, after: int) -> float:
        ways = [(place + 1, min(before, size)), (size - place, min(after, size))]
        first, last = (distance / width if distance < width else 1.0 for distance, width in ways)
        return first * last

    expected = [
        [share(x, width, left, right) * share(y, height, top, bottom) for x in range(width)] for y in range(height)
    ]
    torch.testing.assert_close(faded[0], torch.tensor(expected))


@settings(deadline=None)
@given(SIZES, SIZES, st.integers(0, 5), st.booleans())
def test_a_point_grows_to_a_diamond_or_a_square_and_shrinks_back(
    height: int, width: int, steps: int, tapers: bool
) -> None:
    mask = torch.zeros(1, height + 12, width + 12)
    mask[0, height // 2 + 6, width // 2 + 6] = 1.0
    grown = NODES["GrowMask"](mask=mask, expand=steps, tapered_corners=tapers)
    assert grown.sum() == (2 * steps * (steps + 1) + 1 if tapers else (2 * steps + 1) ** 2)
    assert torch.equal(NODES["GrowMask"](mask=grown, expand=-steps, tapered_corners=tapers), mask)


def test_growing_beyond_every_edge_ends() -> None:
    mask = torch.zeros(1, 3, 4)
    mask[0, 1, 1] = 0.5
    assert (NODES["GrowMask"](mask=mask, expand=16384) == 0.5).all()


def test_grey_of_16_bits_keeps_its_shades(tmp_path: Path) -> None:
    levels = torch.arange(0, 65536, 257, dtype=torch.int32).reshape(16, 16)
    (tmp_path / "input").mkdir()
    Picture.fromarray(levels.to(torch.uint16).numpy()).save(tmp_path / "input/deep.png")
    folders = Folders(tmp_path / "models", tmp_path / "input", tmp_path, tmp_path)
    for channel in ("red", "green", "blue"):
        mask = NODES["LoadImageMask"](image="deep.png", channel=channel, services=folders)
        torch.testing.assert_close(mask[0], levels / 65535)
    assert not NODES["LoadImageMask"](image="deep.png", channel="alpha", services=folders).any()


def test_pictures_with_and_without_transparency_meet_as_opaque_ones() -> None:
    clear, solid = torch.rand(1, 4, 5, 4), torch.rand(2, 4, 5, 3)
    both = NODES["ImageBatch"](image1=clear, image2=solid)
    assert torch.equal(both[:1], clear)
    assert torch.equal(both[1:], torch.cat([solid, torch.ones(2, 4, 5, 1)], dim=-1))
    over = NODES["ImageCompositeMasked"](destination=clear, source=solid[:1], x=1, y=0, resize_source=False)
    assert torch.equal(over[:, :, 1:, :3], solid[:1, :, :4])
    assert (over[:, :, 1:, 3] == 1).all()
    blend = NODES["ImageBlend"](image1=clear, image2=solid[:1], blend_factor=1.0, blend_mode="normal")
    assert torch.equal(blend[..., :3], solid[:1])


def test_a_channel_that_is_not_there_is_named() -> None:
    with pytest.raises(BadValue, match=r"channel: 'alpha' .* 3 channels"):
        NODES["ImageToMask"](image=torch.zeros(1, 2, 2, 3), channel="alpha")
