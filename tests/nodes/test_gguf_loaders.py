"""The loaders of GGUF files: declared as the pack declares them, and files are found where its users put them."""

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import save_file

from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.models.arch import MMDiT, MMDiTShape
from sigmagraph.nodes import NODES


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "models", tmp_path / "input", tmp_path / "output", tmp_path / "temp")


def combos(name: str) -> dict[str, Any]:
    return NODES[name].object_info()["input"]["required"]


def test_inputs_are_those_that_saved_graphs_of_the_pack_give() -> None:
    assert list(combos("UnetLoaderGGUF")) == ["unet_name"]
    advanced = combos("UnetLoaderGGUFAdvanced")
    assert list(advanced) == ["unet_name", "dequant_dtype", "patch_dtype", "patch_on_device"]
    assert advanced["dequant_dtype"][0] == ["default", "target", "float32", "float16", "bfloat16"]
    assert list(combos("CLIPLoaderGGUF")) == ["clip_name", "type"]
    assert list(combos("DualCLIPLoaderGGUF")) == ["clip_name1", "clip_name2", "type"]
    assert list(combos("TripleCLIPLoaderGGUF")) == ["clip_name1", "clip_name2", "clip_name3"]
    for name, plain in (("CLIPLoaderGGUF", "CLIPLoader"), ("DualCLIPLoaderGGUF", "DualCLIPLoader")):
        assert combos(name)["type"] == combos(plain)["type"]
    for name in ("UnetLoaderGGUF", "CLIPLoaderGGUF", "DualCLIPLoaderGGUF", "TripleCLIPLoaderGGUF"):
        assert NODES[name].category == "bootleg"


@pytest.mark.parametrize("place", ["diffusion_models", "unet"])
def test_a_transformer_is_found_in_either_folder_and_by_either_loader(folders: Folders, place: str) -> None:
    (folders.models / place).mkdir(parents=True)
    shape = MMDiTShape(1, 64, 64, 64, 8)
    writer = gguf.GGUFWriter(folders.models / place / "small-Q8_0.gguf", "sd3")
    for name, tensor in MMDiT(shape).state_dict().items():
        values = tensor.detach().numpy()
        if values.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    save_file({"x": torch.zeros(1)}, folders.models / place / "other.safetensors")
    assert folders.files("unet_gguf") == ["small-Q8_0.gguf"]
    assert folders.files("diffusion_models") == ["other.safetensors", "small-Q8_0.gguf"]
    for name in ("UnetLoaderGGUF", "UnetLoaderGGUFAdvanced", "UNETLoader"):
        assert NODES[name](unet_name="small-Q8_0.gguf", services=folders).spec.shape == shape
