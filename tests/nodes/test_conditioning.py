from pathlib import Path

import pytest
import torch

from engine.models import Conditioning, load_checkpoint
from engine.models.text.clip import Clip
from nodes import NODES


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
    each = NODES["CLIPTextEncodeSD3"](clip=clip, clip_l=text, clip_g=text, t5xxl=text, empty_padding="empty_prompt")
    assert torch.equal(each.context, encoded(clip, text).context)
    assert torch.equal(each.pooled, encoded(clip, text).pooled)


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
