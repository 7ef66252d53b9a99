"""Regions of a conditioning on a network with random weights: laws that need no recording."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models import Conditioning, load_checkpoint
from sigmagraph.engine.models.regions import Area, Region
from sigmagraph.engine.models.value import Model

X = torch.randn(2, 16, 12, 10, generator=torch.Generator().manual_seed(0))
SIGMA = 0.6


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> Model:
    return load_checkpoint(tiny_checkpoint).model


def made(seed: int) -> Conditioning:
    generator = torch.Generator().manual_seed(seed)
    return Conditioning(torch.randn(1, 6, 128, generator=generator), torch.randn(1, 128, generator=generator))


def estimate(model: Model, *sides: Conditioning) -> torch.Tensor:
    return model.predict(X, SIGMA, sides)[-1]


def test_an_area_is_asked_about_alone_and_leaves_the_rest_at_zero(model: Model) -> None:
    area = Area(6, 4, 2, 6)
    found = estimate(model, made(1).in_region(area=area))
    (alone,) = model.predict(X[..., 2:8, 6:10].contiguous(), SIGMA, [made(1)])
    torch.testing.assert_close(found[..., 2:8, 6:10], alone, atol=1e-5, rtol=1e-5)
    outside = torch.ones(12, 10, dtype=torch.bool)
    outside[2:8, 6:10] = False
    assert not found[..., outside].any()


@pytest.mark.parametrize(
    "area", [Area(7, 5, 1, 3), Area(1, 1, 11, 9), Area(99, 99, 5, 5), Area(0.3, 0.33, 0.5, 0.9, True)]
)
def test_rectangles_of_any_size_and_place_are_cut_to_the_picture(model: Model, area: Area) -> None:
    found = estimate(model, made(1), made(2).beside(made(3).in_region(area=area)))
    window = area.window(12, 10)
    whole = estimate(model, made(1), made(2))
    inside = torch.zeros(12, 10, dtype=torch.bool)
    inside[window.top : window.top + window.height, window.left : window.left + window.width] = True
    torch.testing.assert_close(found[..., ~inside], whole[..., ~inside], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found[..., inside], whole[..., inside], atol=1e-3)


def test_a_mask_weighs_two_texts_place_by_place(model: Model) -> None:
    mask = torch.rand(1, 12, 10, generator=torch.Generator().manual_seed(1))
    found = estimate(model, made(1).beside(made(2).in_region(mask=mask, mask_strength=0.5, strength=2.0)))
    one, other = estimate(model, made(1)), estimate(model, made(2))
    torch.testing.assert_close(found, (one + other * mask) / (1 + mask), atol=1e-5, rtol=1e-5)


def test_strength_alone_changes_nothing(model: Model) -> None:
    for strength in (0.1, 3.0):
        torch.testing.assert_close(estimate(model, made(1).in_region(strength=strength)), estimate(model, made(1)))


def test_what_fills_acts_where_the_others_leave_room(model: Model) -> None:
    mask = torch.zeros(1, 12, 10)
    mask[:, :6] = 1.0
    both = made(1).in_region(mask=mask).beside(made(2).in_region(fills=True))
    found, one, other = estimate(model, both), estimate(model, made(1)), estimate(model, made(2))
    torch.testing.assert_close(found[..., :6, :], one[..., :6, :], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[..., 6:, :], other[..., 6:, :], atol=1e-5, rtol=1e-5)


def test_guidance_compares_both_sides_on_the_same_part(model: Model) -> None:
    area = Area(12, 5, 0, 0)
    negative, _ = model.predict(X, SIGMA, [made(1), made(2).in_region(area=area)])
    explicit = made(1).beside(made(1).in_region(area=area))
    torch.testing.assert_close(negative, model.predict(X, SIGMA, [explicit])[0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(negative, model.predict(X, SIGMA, [made(1)])[0], atol=1e-3)


def test_an_empty_mask_asks_about_a_corner_that_weighs_nothing(model: Model) -> None:
    empty = made(2).in_region(mask=torch.zeros(1, 12, 10), fits_mask=True)
    assert torch.equal(estimate(model, made(1).beside(empty)), estimate(model, made(1)))


def test_a_conditioning_without_a_pooled_vector_is_refused_by_the_model(model: Model) -> None:
    with pytest.raises(BadValue, match="no pooled vector"):
        estimate(model, replace(made(1), pooled=None, region=Region()))
