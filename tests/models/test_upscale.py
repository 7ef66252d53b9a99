"""Upscale models: files read, architectures found, tiles that do not show. Networks with random weights."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from sigmagraph.engine.errors import BadValue, RefusedFile, UnknownModel
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.models import upscale
from sigmagraph.engine.models.memory.choices import MemoryChoices
from sigmagraph.engine.models.upscale import Upscaler, load_upscaler, tiles
from sigmagraph.nodes import NODES

CPU = torch.device("cpu")


def compact(scale: int = 2, features: int = 8, channels: int = 3) -> dict[str, Tensor]:
    """Real-ESRGAN's compact network: convolutions with slopes between, and a shuffle of pixels at the end."""
    generator = torch.Generator().manual_seed(0)
    sides = [(channels, features), (features, features), (features, channels * scale**2)]
    weights = {}
    for index, (taken, given) in enumerate(sides):
        weights[f"body.{2 * index}.weight"] = torch.randn(given, taken, 3, 3, generator=generator) * 0.1
        weights[f"body.{2 * index}.bias"] = torch.randn(given, generator=generator) * 0.1
        if index < 2:
            weights[f"body.{2 * index + 1}.weight"] = torch.rand(given, generator=generator)
    return weights


def by_hand(weights: dict[str, Tensor], image: Tensor, scale: int) -> Tensor:
    planes = image.movedim(-1, 1)
    x = planes
    for index in range(3):
        x = F.conv2d(x, weights[f"body.{2 * index}.weight"], weights[f"body.{2 * index}.bias"], padding=1)
        x = F.prelu(x, weights[f"body.{2 * index + 1}.weight"]) if index < 2 else x
    enlarged = F.pixel_shuffle(x, scale) + F.interpolate(planes, scale_factor=scale, mode="nearest")
    return enlarged.clamp(0, 1).movedim(1, -1)


def drained(steps: Generator[tuple[int, int], None, Tensor]) -> tuple[list[tuple[int, int]], Tensor]:
    said = []
    try:
        while True:
            said.append(next(steps))
    except StopIteration as end:
        return said, end.value


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_file_becomes_a_network_and_a_picture_a_larger_one(tmp_path: Path, prefix: str) -> None:
    weights = compact()
    (tmp_path / "models/upscale_models").mkdir(parents=True)
    save_file(
        {prefix + name: weight for name, weight in weights.items()}, tmp_path / "models/upscale_models/x2.safetensors"
    )
    folders = Folders(tmp_path / "models", tmp_path, tmp_path, tmp_path)
    model = NODES["UpscaleModelLoader"](model_name="x2.safetensors", services=folders)
    image = torch.rand(2, 9, 7, 3, generator=torch.Generator().manual_seed(1))
    found = NODES["ImageUpscaleWithModel"](upscale_model=model, image=image)
    assert model.architecture == "RealESRGAN Compact"
    torch.testing.assert_close(found, by_hand(weights, image, 2), atol=1e-5, rtol=1e-5)


def test_it_computes_where_the_choice_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(compact(), tmp_path / "x2.safetensors")
    asked = torch.device("meta")
    monkeypatch.setattr(MemoryChoices, "on", property(lambda choices: asked))
    assert load_upscaler(tmp_path / "x2.safetensors").device == asked


def nearest(planes: Tensor) -> Tensor:
    return F.interpolate(planes, scale_factor=2, mode="nearest")


@pytest.mark.parametrize("size", [(100, 130), (64, 64), (65, 64), (63, 200)])
def test_tiles_of_a_network_that_looks_at_pixels_alone_do_not_show(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upscale, "TILE", 64)
    image = torch.rand(1, *size, 3, generator=torch.Generator().manual_seed(2))
    said, found = drained(Upscaler(nearest, 2, CPU).enlarged(image))
    expected = nearest(image.movedim(-1, 1)).movedim(1, -1)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert said == [(done + 1, len(said)) for done in range(len(list(tiles(*size, 64, 32))))]


def test_tiles_cover_every_pixel_and_share_their_edges() -> None:
    for height, width in ((512, 512), (513, 2000), (1, 1024)):
        seen = torch.zeros(height, width)
        for rows, columns in tiles(height, width, 512, 32):
            seen[rows, columns] += 1
        assert (seen > 0).all()
        assert seen.max() <= 4


def test_a_tile_that_memory_does_not_hold_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upscale, "SMALLEST_TILE", 16)
    monkeypatch.setattr(upscale, "TILE", 64)
    monkeypatch.setattr(upscale, "OVERLAP", 8)

    def small_memory(planes: Tensor) -> Tensor:
        if max(planes.shape[-2:]) > 16:
            raise torch.OutOfMemoryError
        return nearest(planes)

    def none(planes: Tensor) -> Tensor:
        raise torch.OutOfMemoryError

    image = torch.rand(1, 40, 50, 3)
    _, found = drained(Upscaler(small_memory, 2, CPU).enlarged(image))
    torch.testing.assert_close(found, nearest(image.movedim(-1, 1)).movedim(1, -1), atol=1e-6, rtol=0)
    with pytest.raises(torch.OutOfMemoryError):
        drained(Upscaler(none, 2, CPU).enlarged(image))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"something.weight": torch.zeros(3)}, "no architecture of spandrel's"),
        (compact(channels=1), "more or less than an RGB picture"),
    ],
)
def test_a_file_that_is_no_upscale_model_says_what_is_wrong(
    tmp_path: Path, weights: dict[str, Any], message: str
) -> None:
    save_file(weights, tmp_path / "x.safetensors")
    with pytest.raises(UnknownModel, match=message):
        load_upscaler(tmp_path / "x.safetensors")


def test_a_pickle_is_refused_whatever_its_name(tmp_path: Path) -> None:
    for name in ("x.pth", "x.safetensors"):
        torch.save(compact(), tmp_path / name)
        with pytest.raises(RefusedFile):
            load_upscaler(tmp_path / name)


def test_a_result_beyond_all_memory_and_odd_channels_are_refused() -> None:
    model = Upscaler(nearest, 4, CPU)
    with pytest.raises(BadValue, match="once enlarged"):
        drained(model.enlarged(torch.zeros(1, 1).expand(1, 16384, 8192, 3)))
    with pytest.raises(BadValue, match="3 channels"):
        drained(model.enlarged(torch.zeros(1, 4, 4, 4)))


def test_what_is_too_large_to_be_an_upscale_model_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint chosen by mistake would lie in memory in float32 before spandrel says no."""
    monkeypatch.setattr(upscale, "MOST_WEIGHTS", 100)
    save_file(compact(), tmp_path / "x2.safetensors")
    with pytest.raises(UnknownModel, match="1,700 weights; a network that enlarges pictures has at most 100"):
        load_upscaler(tmp_path / "x2.safetensors")
