from pathlib import Path

import pytest
import torch

from sigmagraph.engine.models import Conditioning, load_checkpoint
from sigmagraph.engine.models.text.clip import Clip
from sigmagraph.engine.models.value import Model
from sigmagraph.engine.sampling import ComfyNoise
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.types import LatentValue


@pytest.fixture(scope="module")
def clip(tiny_checkpoint: Path) -> Clip:
    found = load_checkpoint(tiny_checkpoint).clip
    assert found is not None
    return found


def encoded(clip: Clip, text: str) -> Conditioning:
    result: Conditioning = NODES["CLIPTextEncode"](text=text, clip=clip)
    return result


def test_the_same_text_in_every_encoder_is_the_plain_node(clip: Clip) -> None:
    text = "a red circle"
    conditioning = NODES["CLIPTextEncodeSD3"](
        clip=clip, clip_l=text, clip_g=text, t5xxl=text, empty_padding="empty_prompt"
    )
    assert torch.equal(conditioning.context, encoded(clip, text).context)
    assert torch.equal(conditioning.pooled, encoded(clip, text).pooled)


def test_without_padding_an_empty_text_for_t5_is_one_token(clip: Clip) -> None:
    texts = {"clip_l": "a", "clip_g": "a", "t5xxl": ""}
    padded, bare = (
        NODES["CLIPTextEncodeSD3"](clip=clip, **texts, empty_padding=padding).context.shape[1]
        for padding in ("empty_prompt", "none")
    )
    assert (padded, bare) == (16 + 16, 16 + 1)


def test_zeroing_is_not_the_empty_prompt(clip: Clip) -> None:
    empty = encoded(clip, "")
    zero = NODES["ConditioningZeroOut"](conditioning=empty)
    assert zero.context.shape == empty.context.shape
    assert not zero.context.any()
    assert not zero.pooled.any()
    assert empty.context.any()


def test_concat_appends_tokens_and_keeps_the_first_pooled_vector(clip: Clip) -> None:
    one, two = encoded(clip, "a red circle"), encoded(clip, "a blue square")
    both = NODES["ConditioningConcat"](conditioning_to=one, conditioning_from=two)
    assert torch.equal(both.context, torch.cat([one.context, two.context], dim=1))
    assert torch.equal(both.pooled, one.pooled)


def test_an_average_ends_at_its_two_texts(clip: Clip) -> None:
    one, two = encoded(clip, "a red circle"), encoded(clip, "a blue square")
    node = NODES["ConditioningAverage"]
    for strength, expected in ((1.0, one), (0.0, two)):
        mixed = node(conditioning_to=one, conditioning_from=two, conditioning_to_strength=strength)
        torch.testing.assert_close(mixed.context, expected.context)
        torch.testing.assert_close(mixed.pooled, expected.pooled)


def test_another_layer_gives_another_text_and_leaves_the_encoders_alone(clip: Clip) -> None:
    before = encoded(clip, "a red circle")
    earlier = NODES["CLIPSetLastLayer"](clip=clip, stop_at_clip_layer=-1)
    assert not torch.allclose(encoded(earlier, "a red circle").context, before.context)
    assert torch.equal(encoded(clip, "a red circle").context, before.context)


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> Model:
    return load_checkpoint(tiny_checkpoint).model


def made_up(seed: int, length: int = 6) -> Conditioning:
    generator = torch.Generator().manual_seed(seed)
    return Conditioning(torch.randn(1, length, 128, generator=generator), torch.randn(1, 128, generator=generator))


X = ComfyNoise(3).initial(torch.zeros(2, 16, 6, 8))


def combined(*parts: Conditioning) -> Conditioning:
    result, *rest = parts
    for part in rest:
        result = NODES["ConditioningCombine"](conditioning_1=result, conditioning_2=part)
    return result


def ranged(conditioning: Conditioning, start: float, end: float) -> Conditioning:
    result: Conditioning = NODES["ConditioningSetTimestepRange"](conditioning=conditioning, start=start, end=end)
    return result


@pytest.mark.parametrize("lengths", [(6, 6, 6), (6, 9, 6)])
def test_the_prediction_of_combined_entries_is_the_mean_of_theirs(model: Model, lengths: tuple[int, ...]) -> None:
    parts = [made_up(seed, length) for seed, length in enumerate(lengths)]
    alone = [model.predict(X, 0.7, [part])[0] for part in parts]
    negative = made_up(9)
    both = model.predict(X, 0.7, [negative, combined(*parts)])
    torch.testing.assert_close(both[0], model.predict(X, 0.7, [negative])[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(both[1], torch.stack(alone).mean(0), atol=1e-5, rtol=1e-5)


def test_an_entry_has_a_say_between_the_levels_of_its_time_both_ends_included(model: Model) -> None:
    one, other = made_up(1), made_up(2)
    switched = combined(ranged(one, 0.0, 0.4), ranged(other, 0.4, 1.0))
    level = model.parameterisation.levels.percent_to_sigma(0.4)
    for sigma, expected in ((level * 1.01, [one]), (level, [one, other]), (level * 0.99, [other])):
        alone = torch.stack([model.predict(X, sigma, [part])[0] for part in expected]).mean(0)
        torch.testing.assert_close(model.predict(X, sigma, [switched])[0], alone, atol=1e-5, rtol=1e-5)


def test_where_no_entry_acts_the_estimate_is_zero(model: Model) -> None:
    estimate, other = model.predict(X, 0.99, [ranged(made_up(1), 0.5, 1.0), made_up(2)])
    assert not estimate.any()
    assert other.any()


def test_a_range_of_everything_changes_no_bit_of_an_image(model: Model) -> None:
    sides = {"negative": made_up(2), "latent_image": LatentValue(torch.zeros(1, 16, 6, 8))}
    settings = {"model": model, "steps": 3, "cfg": 3.0, "seed": 5} | sides
    plain = NODES["KSampler"](**settings, positive=made_up(1)).samples
    assert torch.equal(NODES["KSampler"](**settings, positive=ranged(made_up(1), 0.0, 1.0)).samples, plain)
    switched = combined(ranged(made_up(1), 0.0, 0.5), ranged(made_up(3), 0.5, 1.0))
    assert not torch.allclose(NODES["KSampler"](**settings, positive=switched).samples, plain, atol=1e-3)


def test_every_entry_is_averaged_joined_and_zeroed_with_the_first_of_the_other() -> None:
    pair, other = combined(made_up(1), ranged(made_up(2), 0.2, 0.9)), made_up(3)
    mixed = NODES["ConditioningAverage"](
        conditioning_to=pair, conditioning_from=combined(other, made_up(4)), conditioning_to_strength=0.25
    )
    joined = NODES["ConditioningConcat"](conditioning_to=pair, conditioning_from=other)
    zero = NODES["ConditioningZeroOut"](conditioning=pair)
    for one, part in enumerate(pair.entries):
        torch.testing.assert_close(mixed.entries[one].context, part.context * 0.25 + other.context * 0.75)
        assert torch.equal(joined.entries[one].context, torch.cat([part.context, other.context], dim=1))
        assert not zero.entries[one].context.any()
        assert [e.start for e in (mixed.entries[one], joined.entries[one], zero.entries[one])] == [part.start] * 3


@pytest.mark.parametrize(("padding", "length"), [(0, 0), (3, 0), (0, 30), (9, 8)])
def test_a_text_for_t5_has_the_fillers_and_the_length_that_are_asked_for(clip: Clip, padding: int, length: int) -> None:
    options = NODES["T5TokenizerOptions"](clip=clip, min_padding=padding, min_length=length)
    bare = NODES["T5TokenizerOptions"](clip=clip, min_padding=0, min_length=0)
    (chunk,) = options.tokenize("a red circle")["t5xxl"]
    (shortest,) = bare.tokenize("a red circle")["t5xxl"]
    assert chunk[: len(shortest)] == shortest
    assert len(chunk) == max(length, len(shortest) + padding)
    assert {name: chunks for name, chunks in options.tokenize("a").items() if name != "t5xxl"} == {
        name: chunks for name, chunks in clip.tokenize("a").items() if name != "t5xxl"
    }
