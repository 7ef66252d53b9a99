"""A long encoding is asked in every layer whether it is still wanted; being asked changes no number."""

import re
from threading import Thread

import pytest
import torch

from sigmagraph.engine.errors import Cancelled
from sigmagraph.engine.models import load_checkpoint
from sigmagraph.engine.models.text.clip import Clip
from sigmagraph.engine.models.text.encode import TextEncoder
from tests.tiny import write_checkpoint

TEXT = "a large red circle on the left " * 20


def depth(encoder: TextEncoder) -> int:
    """Its layers, by the names of its weights."""
    found = {
        match[1] for name in encoder.parameters() if (match := re.match(r"encoder\.(?:layers|block)\.(\d+)", name))
    }
    return len(found)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """Three encoders of the real layout, of two layers, two and one."""
    found = load_checkpoint(write_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny.safetensors")).clip
    assert found is not None
    return found


def test_every_layer_of_every_encoder_is_told(clip: Clip) -> None:
    told: list[tuple[float, float]] = []
    encoded = clip.encode(TEXT, lambda done, whole: told.append((done, whole)))
    depths = [depth(encoder) for encoder in clip.encoders.values()]
    assert len(depths) == 3
    assert set(told) == {(layer, whole) for whole in depths for layer in range(whole)}
    assert len(told) >= 6 * sum(depths)  # attention and what follows it are several parts
    assert torch.equal(encoded.context, clip.encode(TEXT).context)


@pytest.mark.parametrize("part", [0, 1, 7, 20])
def test_what_it_raises_ends_the_encoding_before_the_next_part(clip: Clip, part: int) -> None:
    asked = 0

    def cancelled(done: float, whole: float) -> None:
        nonlocal asked
        asked += 1
        if asked > part:
            raise Cancelled("not wanted any more")

    before = clip.encode("a red circle")
    with pytest.raises(Cancelled):
        clip.encode(TEXT, cancelled)
    assert asked == part + 1
    assert torch.equal(clip.encode("a red circle").context, before.context)
    assert asked == part + 1, "a cancelled encoding left its question behind"


def test_another_thread_with_the_same_network_is_not_asked(clip: Clip) -> None:
    others: list[int] = []

    def going(done: float, whole: float) -> None:
        if not others:
            others.append(0)
            thread = Thread(target=lambda: others.append(clip.encode("a small square").context.shape[1]))
            thread.start()
            thread.join(20)
        told.append(done)

    told: list[float] = []
    clip.encode(TEXT, going)
    alone: list[float] = []
    clip.encode(TEXT, lambda done, whole: alone.append(done))
    assert told == alone
    assert len(others) == 2
