from itertools import pairwise
from pathlib import Path

import pytest
import torch

from sigmagraph.engine.errors import BadValue, UnknownName
from sigmagraph.engine.graph.node import Progress
from sigmagraph.engine.models import Checkpoint, Conditioning, load_checkpoint
from sigmagraph.engine.sampling import find_schedule, run_sigmas
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.types import LatentValue


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


def conditioning(seed: int) -> Conditioning:
    generator = torch.Generator().manual_seed(seed)
    return Conditioning(torch.randn(1, 6, 128, generator=generator), torch.randn(1, 128, generator=generator))


POSITIVE, NEGATIVE = conditioning(1), conditioning(2)


def blank(batch: int = 1, channels: int = 16) -> LatentValue:
    return LatentValue(torch.zeros(batch, channels, 6, 8))


def sampled(tiny: Checkpoint, latent: LatentValue, **inputs: object) -> torch.Tensor:
    settings = {"seed": 7, "steps": 3, "cfg": 3.0, "scheduler": "normal", "negative": NEGATIVE} | inputs
    result: LatentValue = NODES["KSampler"](model=tiny.model, positive=POSITIVE, latent_image=latent, **settings)
    return result.samples


def test_ksampler_is_guided_euler_written_out_by_hand(tiny: Checkpoint) -> None:
    model = tiny.model
    sigmas = run_sigmas(find_schedule("normal", 1), model.parameterisation.levels, 3)
    x = torch.randn(1, 16, 6, 8, generator=torch.Generator().manual_seed(7))
    for sigma, sigma_next in pairwise(sigmas):
        uncond, cond = model.predict(x, sigma, [NEGATIVE, POSITIVE])
        denoised = uncond + 3.0 * (cond - uncond)
        x = x + (x - denoised) / sigma * (sigma_next - sigma)
    torch.testing.assert_close(sampled(tiny, blank()), x / 1.5305 + 0.0609)


def test_a_blank_latent_of_four_channels_means_the_same_as_one_of_sixteen(tiny: Checkpoint) -> None:
    assert torch.equal(sampled(tiny, blank(channels=4)), sampled(tiny, blank()))


def test_a_drawn_latent_of_the_wrong_channels_is_refused(tiny: Checkpoint) -> None:
    with pytest.raises(BadValue, match="4 channels.*16 channels"):
        sampled(tiny, LatentValue(torch.ones(1, 4, 6, 8)))


def test_scale_one_leaves_the_negative_out(tiny: Checkpoint) -> None:
    assert torch.equal(sampled(tiny, blank(), cfg=1.0), sampled(tiny, blank(), cfg=1.0, negative=conditioning(3)))


def test_no_denoising_gives_the_latent_back_untouched(tiny: Checkpoint) -> None:
    latent = LatentValue(torch.randn(1, 16, 6, 8))
    assert torch.equal(sampled(tiny, latent, denoise=0.0), latent.samples)


def test_less_denoising_stays_closer_to_the_latent(tiny: Checkpoint) -> None:
    latent = LatentValue(torch.randn(1, 16, 6, 8))
    far, near = ((sampled(tiny, latent, denoise=part, steps=4) - latent.samples).square().mean() for part in (0.9, 0.2))
    assert near < far / 4


def test_where_the_mask_is_zero_the_latent_is_kept(tiny: Checkpoint) -> None:
    mask = torch.zeros(1, 48, 64)
    mask[..., 32:] = 1
    latent = LatentValue(torch.randn(1, 16, 6, 8), noise_mask=mask)
    result = sampled(tiny, latent)
    torch.testing.assert_close(result[..., :3], latent.samples[..., :3])
    assert not torch.allclose(result[..., 5:], latent.samples[..., 5:])


def test_progress_counts_the_steps(tiny: Checkpoint) -> None:
    steps = NODES["KSampler"].function(
        model=tiny.model, steps=3, cfg=1.0, positive=POSITIVE, negative=NEGATIVE, latent_image=blank()
    )
    progress = [said for said in steps if isinstance(said, Progress)]
    assert [(said.value, said.maximum) for said in progress] == [(1, 3), (2, 3), (3, 3)]


def test_a_latent_larger_than_the_position_table_is_refused_before_sampling(tiny: Checkpoint) -> None:
    with pytest.raises(BadValue, match="272 x 64 pixels.*at most 256 pixels"):
        sampled(tiny, LatentValue(torch.zeros(1, 16, 8, 34)))


def test_an_unknown_sampler_is_no_silent_euler(tiny: Checkpoint) -> None:
    with pytest.raises(UnknownName, match="'eulr' is not a known sampler; did you mean 'euler'"):
        sampled(tiny, blank(), sampler_name="eulr")


def test_another_shift_changes_the_schedule_and_leaves_the_model_alone(tiny: Checkpoint) -> None:
    shifted = NODES["ModelSamplingSD3"](model=tiny.model, shift=1.0)
    assert shifted.parameterisation.levels.percent_to_sigma(0.25) == pytest.approx(0.75)
    assert tiny.model.parameterisation.levels.percent_to_sigma(0.25) == pytest.approx(0.9)
    with pytest.raises(BadValue, match="above 0"):
        NODES["ModelSamplingSD3"](model=tiny.model, shift=0.0)


def test_blank_latents_are_zero_and_an_eighth_of_the_size() -> None:
    for name, channels in (("EmptyLatentImage", 4), ("EmptySD3LatentImage", 16)):
        latent = NODES[name](width=64, height=48, batch_size=2)
        assert torch.equal(latent.samples, torch.zeros(2, channels, 6, 8))
    assert NODES["EmptySD3LatentImage"](width=72, height=56).samples.shape == (1, 16, 7, 9)
    with pytest.raises(BadValue, match="4096 of 16384 x 16384"):
        NODES["EmptySD3LatentImage"](width=16384, height=16384, batch_size=4096)


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("CLIPTextEncode", {"text": "a", "clip": None}),
        ("VAEDecode", {"samples": blank(), "vae": None}),
        ("VAEEncode", {"pixels": torch.zeros(1, 8, 8, 3), "vae": None}),
    ],
)
def test_a_part_the_checkpoint_lacks_is_told_with_what_to_add(name: str, inputs: dict[str, object]) -> None:
    with pytest.raises(BadValue, match="this checkpoint does not hold; add a"):
        NODES[name](**inputs)
