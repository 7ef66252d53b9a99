from pathlib import Path

import pytest
import torch

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models import load_checkpoint
from sigmagraph.engine.sampling import ComfyNoise
from sigmagraph.engine.sampling.resize import resized
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.types import LatentValue


def latent(batch: int = 3, height: int = 8, width: int = 12, seed: int = 0) -> LatentValue:
    return LatentValue(torch.randn(batch, 16, height, width, generator=torch.Generator().manual_seed(seed)))


def test_a_latent_taken_out_of_a_batch_gets_the_noise_it_had_there() -> None:
    whole = latent(batch=4)
    chosen = NODES["LatentFromBatch"](samples=whole, batch_index=2, length=1)
    noise = ComfyNoise(5).initial(whole.samples)
    assert torch.equal(ComfyNoise(5).initial(chosen.samples, chosen.batch_index), noise[2:3])


def test_a_part_of_a_batch_stops_at_its_end_and_keeps_its_masks() -> None:
    masks = torch.rand(4, 8, 12)
    whole = LatentValue(latent(batch=4).samples, noise_mask=masks)
    chosen = NODES["LatentFromBatch"](samples=whole, batch_index=2, length=9)
    assert torch.equal(chosen.samples, whole.samples[2:])
    assert torch.equal(chosen.noise_mask, masks[2:])
    assert chosen.batch_index == (2, 3)
    again = NODES["LatentFromBatch"](samples=chosen, batch_index=1)
    assert again.batch_index == (3,)


def test_a_repeated_batch_goes_on_counting_where_places_are_known() -> None:
    unknown = NODES["RepeatLatentBatch"](samples=latent(batch=2), amount=2)
    assert unknown.batch_index is None
    assert torch.equal(unknown.samples[2:], unknown.samples[:2])
    known = NODES["RepeatLatentBatch"](samples=LatentValue(latent(batch=2).samples, None, (4, 6)), amount=2)
    assert known.batch_index == (4, 6, 7, 9)


def test_one_batch_of_two_takes_the_first_ones_size() -> None:
    both = NODES["LatentBatch"](samples1=latent(1, 8, 8), samples2=latent(2, 4, 8))
    assert both.samples.shape == (3, 16, 8, 8)
    assert both.batch_index == (0, 0, 1)


def test_seeds_of_a_batch_can_be_all_the_same_or_all_different() -> None:
    node = NODES["LatentBatchSeedBehavior"]
    fixed = node(samples=latent(), seed_behavior="fixed")
    assert fixed.batch_index == (0, 0, 0)
    assert node(samples=fixed, seed_behavior="random").batch_index is None


def test_sums_differences_and_multiples_are_what_they_say() -> None:
    one, two = latent(seed=1), latent(seed=2)
    assert torch.equal(NODES["LatentAdd"](samples1=one, samples2=two).samples, one.samples + two.samples)
    assert torch.equal(NODES["LatentSubtract"](samples1=one, samples2=two).samples, one.samples - two.samples)
    assert torch.equal(NODES["LatentMultiply"](samples=one, multiplier=-2.0).samples, one.samples * -2)
    blend = NODES["LatentBlend"](samples1=one, samples2=two, blend_factor=0.25).samples
    torch.testing.assert_close(blend, one.samples * 0.25 + two.samples * 0.75)


def test_the_second_of_two_is_brought_to_the_first_ones_size_and_batch() -> None:
    total = NODES["LatentAdd"](samples1=latent(3, 8, 12), samples2=latent(2, 4, 4)).samples
    assert total.shape == (3, 16, 8, 12)
    with pytest.raises(BadValue, match="4 channels.*16 channels"):
        NODES["LatentAdd"](samples1=latent(), samples2=LatentValue(torch.zeros(1, 4, 8, 12)))


def test_interpolation_ends_at_its_two_latents_and_mixes_lengths_evenly() -> None:
    one, two = latent(seed=1), latent(seed=2)
    node = NODES["LatentInterpolate"]
    torch.testing.assert_close(node(samples1=one, samples2=two, ratio=1.0).samples, one.samples)
    torch.testing.assert_close(node(samples1=one, samples2=two, ratio=0.0).samples, two.samples)
    half = node(samples1=one, samples2=two, ratio=0.5).samples
    torch.testing.assert_close(half.norm(dim=1), (one.samples.norm(dim=1) + two.samples.norm(dim=1)) / 2)


def test_turning_four_times_or_mirroring_twice_changes_nothing() -> None:
    start = turned = latent(height=8, width=12)
    for _ in range(4):
        turned = NODES["LatentRotate"](samples=turned, rotation="90 degrees")
    assert torch.equal(turned.samples, start.samples)
    for method in ("x-axis: vertically", "y-axis: horizontally"):
        once = NODES["LatentFlip"](samples=start, flip_method=method)
        assert not torch.equal(once.samples, start.samples)
        assert torch.equal(NODES["LatentFlip"](samples=once, flip_method=method).samples, start.samples)


def test_a_quarter_turn_is_clockwise() -> None:
    corner = LatentValue(torch.zeros(1, 16, 8, 8))
    corner.samples[..., 0, 0] = 1  # top left
    assert NODES["LatentRotate"](samples=corner, rotation="90 degrees").samples[0, 0, 0, -1] == 1  # top right


def test_a_crop_is_measured_in_pixels() -> None:
    whole = latent(1, 16, 16)
    part = NODES["LatentCrop"](samples=whole, width=64, height=72, x=16, y=24).samples
    assert torch.equal(part, whole.samples[..., 3:12, 2:10])
    corner = NODES["LatentCrop"](samples=whole, width=64, height=64, x=9999, y=9999).samples
    assert torch.equal(corner, whole.samples[..., 8:, 8:])


@pytest.mark.parametrize("method", ["nearest-exact", "bilinear", "area", "bicubic", "bislerp"])
def test_a_constant_stays_constant_at_any_size(method: str) -> None:
    constant = torch.randn(1, 16, 1, 1).expand(1, 16, 6, 4)
    larger = resized(constant, 9, 13, method)
    torch.testing.assert_close(larger, constant[..., :1, :1].expand_as(larger))


def test_spherical_resizing_keeps_the_length_of_turning_vectors() -> None:
    angles = torch.linspace(0, 1.5, 5)
    ring = torch.stack([angles.cos(), angles.sin()])[None, :, None]
    longer = resized(ring, 20, 1, "bislerp")
    torch.testing.assert_close(longer.norm(dim=1), torch.ones(1, 1, 20))
    assert resized(ring, 20, 1, "bilinear").norm(dim=1).min() < 0.99


def test_upscaling_takes_pixels_or_a_factor_and_keeps_proportions_where_asked() -> None:
    node = NODES["LatentUpscale"]
    assert node(samples=latent(1, 8, 12), width=160, height=80).samples.shape[-2:] == (10, 20)
    assert node(samples=latent(1, 8, 16), width=256, height=0).samples.shape[-2:] == (16, 32)
    small = node(samples=latent(1, 64, 128), width=0, height=32).samples  # 64 pixels at least, and then the proportions
    assert small.shape[-2:] == (8, 16)
    assert node(samples=latent(1, 8, 12), width=0, height=0).samples.shape[-2:] == (8, 12)
    assert NODES["LatentUpscaleBy"](samples=latent(1, 8, 12), scale_by=1.5).samples.shape[-2:] == (12, 18)


def test_a_cropping_resize_takes_the_middle() -> None:
    wide = torch.zeros(1, 1, 4, 8)
    wide[..., 2:6] = 1
    assert torch.equal(resized(wide, 4, 4, "nearest-exact", crop=True), torch.ones(1, 1, 4, 4))


def test_a_noise_mask_is_set_beside_the_samples() -> None:
    masked = NODES["SetLatentNoiseMask"](samples=latent(), mask=torch.ones(8, 12))
    assert masked.noise_mask.shape == (1, 8, 12)
    assert torch.equal(masked.samples, latent().samples)


def test_inpainting_greys_the_masked_region_and_grows_the_mask(tiny_checkpoint: Path) -> None:
    vae = load_checkpoint(tiny_checkpoint).vae
    assert vae is not None
    image, mask = torch.rand(1, 32, 32, 3), torch.zeros(1, 32, 32)
    mask[:, 8:16, 8:16] = 1
    grey = image.clone()
    grey[:, 8:16, 8:16] = 0.5
    inpainted = NODES["VAEEncodeForInpaint"](pixels=image, vae=vae, mask=mask, grow_mask_by=5)
    torch.testing.assert_close(inpainted.samples, vae.encode(grey))
    grown = torch.zeros(1, 32, 32)
    grown[:, 6:18, 6:18] = 1
    assert torch.equal(inpainted.noise_mask, grown)
