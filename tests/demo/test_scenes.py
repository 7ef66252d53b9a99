"""The pictures of the demo and the checker that judges them."""

import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models.demo import scenes
from models.demo.checker import background_of, check, regions, things_in
from models.demo.scenes import Scene


def drawn(scene: Scene, seed: int = 0) -> Tensor:
    return scenes.draw(scene, 128, random.Random(seed))


def test_the_checker_agrees_with_every_drawn_scene() -> None:
    for seed, scene in enumerate(scenes.scenes(80, 5, held_out=True)):
        verdict = check(drawn(scene, seed), scene)
        assert verdict.is_right, (scene.caption, verdict.found)
        assert verdict.has_background, scene.caption


def test_the_checker_still_agrees_through_blur_and_noise() -> None:
    noise = torch.Generator().manual_seed(1)
    for seed, scene in enumerate(scenes.scenes(30, 6, held_out=True)):
        image = torch.nn.functional.avg_pool2d(drawn(scene, seed)[None], 3, 1, 1)[0]
        image = (image + 0.02 * torch.randn(image.shape, generator=noise)).clamp(0, 1)
        assert check(image, scene).is_right, scene.caption


@pytest.mark.parametrize("shape", [s for s in scenes.SHAPES if s != "heart"])
def test_the_checker_refuses_another_shape(shape: str) -> None:
    asked = scenes.single("heart", "red", "small", "on the left", "white")
    shown = scenes.single(shape, "red", "small", "on the left", "white")
    verdict = check(drawn(shown), asked)
    assert not verdict.is_right
    assert verdict.has_colours
    assert verdict.has_positions


@pytest.mark.parametrize("colour", [c for c in scenes.COLOURS if c != "blue"])
def test_the_checker_refuses_another_colour(colour: str) -> None:
    asked = scenes.single("star", "blue", "large", "at the top", "grey")
    verdict = check(drawn(scenes.single("star", colour, "large", "at the top", "grey")), asked)
    assert not verdict.is_right
    assert verdict.has_shapes
    assert verdict.has_positions


@pytest.mark.parametrize("position", [p for p in scenes.POSITIONS if p != "in the centre"])
def test_the_checker_refuses_another_position(position: str) -> None:
    asked = scenes.single("ring", "green", "small", "in the centre", "beige")
    verdict = check(drawn(scenes.single("ring", "green", "small", position, "beige")), asked)
    assert not verdict.is_right
    assert verdict.has_shapes
    assert verdict.has_colours


def test_the_checker_refuses_another_count_and_an_empty_picture() -> None:
    asked = scenes.row(3, "square", "pink", "at the top", "black")
    assert not check(drawn(scenes.row(2, "square", "pink", "at the top", "black")), asked).is_right
    assert things_in(drawn(replace(asked, things=()))) == ()


def test_a_swapped_pair_is_refused() -> None:
    red, blue = ("circle", "red"), ("heart", "blue")
    asked = scenes.pair(red, blue, is_upright=False, background="mint")
    assert check(drawn(asked), asked).is_right
    assert not check(drawn(scenes.pair(blue, red, is_upright=False, background="mint")), asked).is_right


@pytest.mark.parametrize("background", list(scenes.BACKGROUNDS))
def test_backgrounds_are_told_apart(background: str) -> None:
    assert background_of(drawn(scenes.single("heart", "red", "large", "in the centre", background))) == background


def test_regions_are_the_connected_parts() -> None:
    mask = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 1], [1, 0, 0, 1]], dtype=torch.bool)
    assert sorted(int(region.sum()) for region in regions(mask)) == [1, 3, 3]


def test_no_training_caption_is_a_held_out_caption() -> None:
    trained = {scene.caption for scene in scenes.scenes(3000, 1, held_out=False)}
    kept = {scene.caption for scene in scenes.scenes(300, 2, held_out=True)}
    assert not trained & kept


def test_a_picture_follows_from_its_scene_and_seed() -> None:
    scene = scenes.pair(("ring", "yellow"), ("star", "purple"), is_upright=True, background="grey")
    assert torch.equal(drawn(scene, 3), drawn(scene, 3))
    assert not torch.equal(drawn(scene, 3), drawn(scene, 4))
