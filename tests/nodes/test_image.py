import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.nodes import NODES


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    for name in ("input", "output", "temp"):
        (tmp_path / name).mkdir()
    return Folders(tmp_path / "models", tmp_path / "input", tmp_path / "output", tmp_path / "temp")


def test_a_flat_colour_has_its_channels_in_order() -> None:
    image = NODES["EmptyImage"](width=3, height=2, batch_size=2, color=0x336699)
    assert image.shape == (2, 2, 3, 3)
    torch.testing.assert_close(image[1, 1, 2] * 255, torch.tensor([0x33, 0x66, 0x99], dtype=torch.float32))


def test_a_flat_colour_beyond_all_memory_is_refused() -> None:
    with pytest.raises(BadValue, match="at most 8 GiB"):
        NODES["EmptyImage"](width=16384, height=16384, batch_size=4096)


def test_saving_writes_one_numbered_file_per_image_with_the_workflow_inside(folders: Folders) -> None:
    prompt, editor = {"1": {"class_type": "EmptyImage", "inputs": {}}}, {"nodes": [], "version": 0.4}
    images = torch.stack([torch.zeros(2, 2, 3), torch.ones(2, 2, 3)])
    result = NODES["SaveImage"](
        images=images, filename_prefix="day/a", prompt=prompt, extra_pnginfo={"workflow": editor}, services=folders
    )
    assert result.ui["images"] == [
        {"filename": f"a_0000{number}_.png", "subfolder": "day", "type": "output"} for number in (1, 2)
    ]
    with Image.open(folders.output_dir / "day/a_00002_.png") as picture:
        assert picture.getpixel((0, 0)) == (255, 255, 255)
        assert json.loads(picture.text["prompt"]) == prompt  # type: ignore[attr-defined]
        assert json.loads(picture.text["workflow"]) == editor  # type: ignore[attr-defined]


def test_a_picture_saved_without_an_editor_document_carries_the_prompt_alone(folders: Folders) -> None:
    NODES["SaveImage"](images=torch.zeros(1, 2, 2, 3), prompt={}, extra_pnginfo=None, services=folders)
    with Image.open(folders.output_dir / "ComfyUI_00001_.png") as picture:
        assert list(picture.text) == ["prompt"]  # type: ignore[attr-defined]


def test_a_preview_goes_to_the_temporary_folder(folders: Folders) -> None:
    result = NODES["PreviewImage"](images=torch.zeros(1, 2, 2, 3), prompt=None, extra_pnginfo=None, services=folders)
    [record] = result.ui["images"]
    assert record["type"] == "temp"
    assert (folders.temp_dir / record["filename"]).is_file()
    assert record["filename"].startswith("ComfyUI_temp_")


def test_what_was_saved_loads_again_to_within_one_step_of_eight_bits(folders: Folders) -> None:
    image = torch.rand(1, 5, 7, 3, generator=torch.Generator().manual_seed(0))
    NODES["SaveImage"](images=image, prompt=None, extra_pnginfo=None, services=folders)
    loaded, _ = NODES["LoadImage"](image="ComfyUI_00001_.png [output]", services=folders)
    difference = image - loaded
    assert difference.min() >= -1e-6
    assert difference.max() < 1 / 255 + 1e-6
