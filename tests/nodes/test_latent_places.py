import pytest
import torch

from sigmagraph.engine.errors import BadValue
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.types import LatentValue


def filled(value: float, count: int = 1, height: int = 4, width: int = 6) -> LatentValue:
    return LatentValue(torch.full((count, 16, height, width), value))


def over(**inputs: object) -> torch.Tensor:
    settings = {"samples_to": filled(0.0, 2), "samples_from": filled(1.0, 1, 2, 3)} | inputs
    samples: torch.Tensor = NODES["LatentComposite"](**settings).samples
    return samples


def test_a_latent_is_laid_over_every_image_at_its_place_in_pixels() -> None:
    result = over(x=8, y=16)
    expected = torch.zeros(2, 16, 4, 6)
    expected[:, :, 2:4, 1:4] = 1.0
    assert torch.equal(result, expected)


def test_what_hangs_over_the_edge_is_cut_off() -> None:
    result = over(x=40, y=24)
    assert float(result.sum()) == 2 * 16
    assert result[0, 0, 3, 5] == 1
    assert not over(x=8000).any()


def test_edges_that_lie_inside_fade_and_the_others_do_not() -> None:
    source = filled(1.0, 1, 4, 4)
    result = over(samples_from=source, x=8, y=0, feather=16)[0, 0]
    # the right edge lies inside at column 4, the left at 1; above and below the source reaches the rim
    assert torch.allclose(result, torch.tensor([0.0, 0.5, 1.0, 1.0, 0.5, 0.0]).repeat(4, 1))
    assert torch.equal(over(samples_from=filled(1.0), feather=16), torch.ones(2, 16, 4, 6))


@pytest.mark.parametrize("shape", [(2, 3), (1, 2, 3), (1, 1, 2, 3), (2, 2, 3), (2, 1, 2, 3)])
def test_a_mask_of_any_rank_weighs_pictures_and_latents_alike(shape: tuple[int, ...]) -> None:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    latent = masked(x=8, y=16, mask=mask)
    picture = NODES["ImageCompositeMasked"](
        destination=torch.zeros(2, 4, 6, 3), source=torch.ones(1, 2, 3, 3), x=1, y=2, mask=mask, resize_source=False
    )
    expected = torch.zeros(2, 4, 6)
    expected[:, 2:, 1:4] = mask.reshape(-1, 2, 3)
    assert torch.allclose(latent, expected[:, None].expand_as(latent))
    assert torch.allclose(picture, expected[..., None].expand_as(picture))


def masked(**inputs: object) -> torch.Tensor:
    settings = {"destination": filled(0.0, 2), "source": filled(1.0, 1, 2, 3)} | inputs
    samples: torch.Tensor = NODES["LatentCompositeMasked"](**settings).samples
    return samples


def test_a_mask_weighs_the_source_in_its_own_proportions() -> None:
    assert torch.equal(masked(x=8, y=16), over(x=8, y=16))
    mask = torch.tensor([[1.0, 0.25, 0.0]]).repeat(2, 1)[None]
    expected = torch.zeros(2, 16, 4, 6)
    expected[:, :, 2:4, 1:3] = torch.tensor([1.0, 0.25])
    assert torch.allclose(masked(x=8, y=16, mask=mask), expected)


def test_a_resized_source_covers_the_whole_destination() -> None:
    assert torch.equal(masked(resize_source=True), torch.ones(2, 16, 4, 6))


def test_neither_input_is_changed_in_place() -> None:
    below, above = filled(0.0), filled(1.0)
    over(samples_to=below, samples_from=above)
    masked(destination=below, source=above)
    assert not below.samples.any()


def test_other_channels_are_refused() -> None:
    with pytest.raises(BadValue, match="4 channels"):
        over(samples_from=LatentValue(torch.zeros(1, 4, 2, 2)))


def rebatched(latents: list[LatentValue], size: int) -> list[LatentValue]:
    result: list[LatentValue] = NODES["RebatchLatents"](latents=latents, batch_size=[size])
    return result


def test_latents_of_one_size_are_dealt_out_in_order_and_remember_their_places() -> None:
    parts = rebatched([filled(0.0, 2), filled(1.0, 3)], 2)
    assert [len(part.samples) for part in parts] == [2, 2, 1]
    assert [part.batch_index for part in parts] == [(0, 1), (2, 3), (4,)]
    assert [float(part.samples.mean()) for part in parts] == [0.0, 1.0, 1.0]


def test_latents_of_another_size_begin_a_batch_of_their_own() -> None:
    parts = rebatched([filled(0.0, 3), filled(1.0, 1, 2, 2), filled(2.0, 1)], 4)
    assert [tuple(part.samples.shape) for part in parts] == [(3, 16, 4, 6), (1, 16, 2, 2), (1, 16, 4, 6)]


def test_masks_stay_with_their_images_and_masks_of_everything_are_dropped() -> None:
    mask = torch.zeros(1, 32, 48)
    first = LatentValue(torch.zeros(1, 16, 4, 6), mask, (7,))
    parts = rebatched([first, filled(1.0, 2)], 1)
    assert [part.noise_mask is None for part in parts] == [False, True, True]
    assert parts[0].noise_mask is not None
    assert torch.equal(parts[0].noise_mask, mask)
    assert parts[0].batch_index == (7,)
