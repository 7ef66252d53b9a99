"""The shipped demo checkpoint: what its model card promises, on a few pictures."""

from pathlib import Path

import pytest

from models.demo.export import CHECKPOINT
from models.demo.measure import Pipeline, held_out, judged, reconstruction


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline(CHECKPOINT)


def test_it_is_small_enough_for_a_repository() -> None:
    assert Path(CHECKPOINT).stat().st_size <= 48 * 2**20


def test_it_has_the_architecture_of_sd35_large(pipeline: Pipeline) -> None:
    shape = pipeline.model.spec.shape
    assert shape.has_qk_norm
    assert (shape.in_channels, shape.out_channels, shape.patch) == (16, 16, 2)
    assert shape.depth == shape.heads == 4
    assert not shape.dual_attention_blocks


def test_it_draws_what_held_out_prompts_say(pipeline: Pipeline) -> None:
    wrong = [scene.caption for scene, _, verdict in judged(pipeline, held_out(12)) if not verdict.is_right]
    assert len(wrong) <= 1, wrong


def test_unseen_pictures_survive_the_autoencoder(pipeline: Pipeline) -> None:
    assert reconstruction(pipeline) > 38
