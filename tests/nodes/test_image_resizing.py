from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.validate import validate
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.deep_png import deep_png
from sigmagraph.nodes.support.types import LatentValue

IMAGE = torch.rand(2, 30, 50, 3, generator=torch.Generator().manual_seed(0))
MASK = torch.rand(2, 30, 50, generator=torch.Generator().manual_seed(1))


def resized(value: Tensor, kind: str, method: str = "bilinear", **measure: Any) -> Tensor:
    result: Tensor = NODES["ResizeImageMaskNode"](
        input=value, resize_type={"resize_type": kind, **measure}, scale_method=method
    )
    return result


@pytest.mark.parametrize("value", [IMAGE, MASK], ids=["image", "mask"])
@pytest.mark.parametrize(
    ("kind", "measure", "size"),
    [
        ("scale by multiplier", {"multiplier": 1.5}, (45, 75)),
        ("scale dimensions", {"width": 20, "height": 10, "crop": "center"}, (10, 20)),
        ("scale dimensions", {"width": 0, "height": 15, "crop": "disabled"}, (15, 25)),
        ("scale dimensions", {"width": 0, "height": 0, "crop": "disabled"}, (30, 50)),
        ("scale longer dimension", {"longer_size": 100}, (60, 100)),
        ("scale shorter dimension", {"shorter_size": 60}, (60, 100)),
        ("scale width", {"width": 25}, (15, 25)),
        ("scale height", {"height": 60}, (60, 100)),
        ("scale total pixels", {"megapixels": 0.01}, (79, 132)),
        ("match size", {"match": torch.zeros(1, 9, 8), "crop": "disabled"}, (9, 8)),
        ("match size", {"match": torch.zeros(1, 9, 8, 4), "crop": "center"}, (9, 8)),
        ("scale to multiple", {"multiple": 8}, (24, 48)),
    ],
)
@pytest.mark.parametrize("method", ["area", "lanczos"])
def test_every_measure_gives_its_size_for_pictures_and_masks(
    value: Tensor, kind: str, measure: dict[str, Any], size: tuple[int, int], method: str
) -> None:
    found = resized(value, kind, method, **measure)
    assert found.shape == (2, *size, *value.shape[3:])


def test_a_mask_is_resized_as_a_picture_of_one_channel_is() -> None:
    image = resized(MASK[..., None].repeat(1, 1, 1, 3), "scale by multiplier", multiplier=0.5)
    torch.testing.assert_close(resized(MASK, "scale by multiplier", multiplier=0.5), image[..., 0])


def test_a_multiple_is_reached_by_scaling_as_little_as_covers_and_cutting_the_rest() -> None:
    exact = torch.rand(1, 16, 24, 3)
    assert torch.equal(resized(exact, "scale to multiple", multiple=8), exact)
    ramp = torch.linspace(0, 1, 50).expand(1, 30, 50)
    found = resized(ramp, "scale to multiple", multiple=16)
    assert found.shape == (1, 16, 48)
    assert torch.allclose(found[0], found[0, :1].expand(16, 48), atol=1e-6)


def test_batches_take_the_first_ones_size() -> None:
    images = {"image0": IMAGE, "image1": torch.rand(1, 60, 100, 3), "image2": IMAGE[:1]}
    found = NODES["BatchImagesNode"](images=images)
    assert torch.equal(found[:2], IMAGE)
    assert torch.equal(found[3:], IMAGE[:1])
    assert found.shape == (4, 30, 50, 3)
    masks = NODES["BatchMasksNode"](masks={"mask0": MASK, "mask1": torch.ones(8, 9)})
    assert torch.equal(masks[:2], MASK)
    torch.testing.assert_close(masks[2], torch.ones(30, 50))
    latents = {"latent0": LatentValue(torch.zeros(1, 4, 3, 3)), "latent1": LatentValue(torch.ones(2, 4, 3, 3))}
    assert NODES["BatchLatentsNode"](latents=latents).samples.flatten(1).mean(1).tolist() == [0, 1, 1]


def test_a_box_is_cut_out_and_kept_inside() -> None:
    box = NODES["PrimitiveBoundingBox"](x=10, y=20, width=100, height=5)
    assert torch.equal(NODES["ImageCropV2"](image=IMAGE, crop_region=box), IMAGE[:, 20:25, 10:])
    for wrong in (
        {"x": -1, "y": 0, "width": 1, "height": 1},
        {"x": 0},
        None,
        {"x": 0, "y": 0, "width": 0, "height": 1},
    ):
        with pytest.raises(BadValue, match="crop_region"):
            NODES["ImageCropV2"](image=IMAGE, crop_region=wrong)


def drawn(kind: str, inputs: list[dict[str, Any]], values: Any) -> dict[str, Any]:
    node = {"id": 1, "type": kind, "inputs": inputs, "outputs": [], "widgets_values": values, "mode": 0}
    return {"nodes": [node], "links": [], "version": 0.4}


def test_widgets_of_the_page_travel_from_a_drawing_as_they_are() -> None:
    declarations = {name: NODES[name].object_info() for name in ("ImageCropV2", "ColorToRGBInt", "ImageCompare")}
    region = {"x": 0, "y": 0, "width": 1669, "height": 2688}
    slot = [{"name": "image", "type": "IMAGE", "link": None}]
    cut = parse_workflow(drawn("ImageCropV2", slot, [region, 0, 0, 512, 512]), declarations)
    assert cut.nodes["1"].inputs["crop_region"] == region
    colour = parse_workflow(drawn("ColorToRGBInt", [], ["#0a9299"]), declarations)
    assert colour.nodes["1"].inputs == {"color": "#0a9299"}
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "ImageCropV2", "inputs": {"image": ["1", 0], "crop_region": region}},
        "3": {"class_type": "ImageCompare", "inputs": {"image_a": ["2", 0], "compare_view": None}},
        "4": {"class_type": "ColorToRGBInt", "inputs": {"color": "#0a9299"}},
        "5": {"class_type": "PreviewAny", "inputs": {"source": ["4", 0]}},
    }
    assert validate(parse_workflow(graph), NODES)


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 40))
def test_tiles_cover_the_picture_and_have_one_size(height: int, width: int, overlap: int) -> None:
    places = torch.arange(height * width, dtype=torch.float32).reshape(1, height, width, 1)
    parts = NODES["SplitImageToTileList"](image=places, tile_width=64, tile_height=64, overlap=overlap)
    assert {part.shape for part in parts} == {(1, min(64, height), min(64, width), 1)}
    assert torch.equal(torch.cat([part.flatten() for part in parts]).unique(), places.flatten())


def test_lists_are_joined_and_an_item_is_taken() -> None:
    joined = NODES["CreateList"](inputs={"input0": [1, 2], "input1": ["a"]})
    assert joined == [1, 2, "a"]
    assert NODES["GetItemFromList"](list=joined, index=[-1]) == "a"
    with pytest.raises(BadValue, match="from -3 to 2"):
        NODES["GetItemFromList"](list=joined, index=[3])


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    for name in ("input", "output", "temp"):
        (tmp_path / name).mkdir()
    return Folders(tmp_path / "models", tmp_path / "input", tmp_path / "output", tmp_path / "temp")


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_files_of_16_bits_hold_every_level(tmp_path: Path, channels: int) -> None:
    image = torch.rand(7, 5, channels, generator=torch.Generator().manual_seed(3))
    data = deep_png(image, {"prompt": {"ü": 1}})
    (tmp_path / "a.png").write_bytes(data)
    with Picture.open(tmp_path / "a.png") as picture:
        picture.load()
        assert picture.text["prompt"] == '{"\\u00fc": 1}'  # type: ignore[attr-defined]
        high = (image * 65535).round().numpy().astype(np.uint16)
        if channels == 1:
            assert np.array_equal(np.array(picture), high[..., 0])
        else:  # Pillow reads the upper eight bits of colours
            assert np.array_equal(np.array(picture), (high >> 8).astype(np.uint8))


@pytest.mark.parametrize(("depth", "channels"), [("8-bit", 1), ("8-bit", 3), ("16-bit", 3), ("16-bit", 4)])
def test_pictures_are_saved_in_either_depth_with_their_workflow(folders: Folders, depth: str, channels: int) -> None:
    images = torch.rand(2, 4, 6, channels)
    result = NODES["SaveImageAdvanced"](
        images=images,
        filename_prefix="deep/a",
        format={"format": "png", "bit_depth": depth, "input_color_space": "sRGB"},
        prompt={"1": {"class_type": "X", "inputs": {}}},
        services=folders,
    )
    assert result.value is images
    assert [one["filename"] for one in result.ui["images"]] == ["a_00001_.png", "a_00002_.png"]
    data = (folders.output_dir / "deep/a_00001_.png").read_bytes()
    assert data[24] == int(depth.removesuffix("-bit"))
    with Picture.open(folders.output_dir / "deep/a_00001_.png") as picture:
        assert '"class_type": "X"' in picture.text["prompt"]  # type: ignore[attr-defined]


def test_two_pictures_are_shown_to_compare(folders: Folders) -> None:
    ui = NODES["ImageCompare"](image_a=IMAGE, image_b=None, services=folders).ui
    assert [one["type"] for one in ui["a_images"]] == ["temp", "temp"]
    assert ui["b_images"] == []
    assert (folders.temp_dir / ui["a_images"][0]["filename"]).is_file()


def test_a_saved_picture_loads_from_the_output_folder(folders: Folders) -> None:
    Picture.fromarray(np.full((3, 4, 3), 128, np.uint8)).save(folders.output_dir / "x.png")
    image, _ = NODES["LoadImageOutput"](image="x.png", services=folders)
    assert image.shape == (1, 3, 4, 3)
