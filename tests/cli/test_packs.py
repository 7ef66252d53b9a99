import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch

from sigmagraph.engine.compose.caching import SERIALISER, open_store
from sigmagraph.engine.compose.packs import load_custom_nodes
from sigmagraph.engine.execution.cache.memory import Entry
from sigmagraph.engine.execution.cache.settings import CacheSettings
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.execution.packs import Pack
from sigmagraph.engine.models.conditioning import Conditioning
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.types import LatentValue

PACK = """
import comfy.samplers
from comfy.model_management import get_torch_device
from nodes import NODE_CLASS_MAPPINGS as BUILT_IN, MAX_RESOLUTION


class Half:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), "sampler": (comfy.samplers.KSampler.SAMPLERS,)}}

    def go(self, image, sampler):
        return (image * 0.5,)


class Empty(BUILT_IN["EmptyImage"]):
    pass


NODE_CLASS_MAPPINGS = {"Half": Half, "Empty": Empty, "SaveImage": Half}
"""


@pytest.fixture
def folders(tmp_path: Path, offered_names: None) -> Folders:
    (tmp_path / "packs").mkdir()
    (tmp_path / "packs/half.py").write_text(PACK, encoding="utf-8")
    (tmp_path / "packs/gone.py").write_text("import a_library_nobody_has\n", encoding="utf-8")
    return Folders(tmp_path / "models", tmp_path / "input", tmp_path / "output", tmp_path / "temp")


def test_a_pack_works_with_our_samplers_device_and_nodes(folders: Folders, tmp_path: Path) -> None:
    listed: list[Pack] = []
    made = load_custom_nodes([tmp_path / "packs"], folders, listed.append)
    assert torch.equal(made["Half"](image=torch.ones(1, 2, 2, 3), sampler="euler")[0], torch.full((1, 2, 2, 3), 0.5))
    assert "euler" in made["Half"].object_info(folders)["input"]["required"]["sampler"][0]
    assert made["Empty"](width=8, height=8, batch_size=1, color=0)[0].shape == (1, 8, 8, 3)
    assert made["SaveImage"] is NODES["SaveImage"]
    assert [pack.name for pack in listed] == ["gone", "half"]
    assert listed[0].problems[0].startswith("ModuleNotFoundError")


OFFERED = """
import os, sys, threading
from pathlib import Path

from sigmagraph.engine.compose.packs import load_custom_nodes
from sigmagraph.engine.execution.folders import Folders

here = Path(sys.argv.pop())
(here / "packs").mkdir()
folders = Folders(*(here / name for name in ("models", "input", "output", "temp")))
load_custom_nodes([here / "packs"], folders, print)
before = threading.active_count()
sys.argv[1:] = ["--an-option-nobody-knows"]

from comfy_api.v0_0_2 import ComfyAPI, ComfyAPISync
from comfy.comfy_types import IO, ComfyNodeABC, InputTypeDict
from comfy.comfy_types.node_typing import IO, ComfyNodeABC, InputTypeDict
from comfy.model_management import get_torch_device, processing_interrupted, throw_exception_if_processing_interrupted
from comfy.samplers import KSampler
from comfy.sd import load_checkpoint_guess_config
from comfy.utils import ProgressBar, load_torch_file
from comfy_execution.graph import ExecutionBlocker
from comfy_execution.graph_utils import GraphBuilder, is_link
from nodes import NODE_CLASS_MAPPINGS
import comfy.samplers, comfy.sd, comfy.utils, folder_paths, nodes
import torch

assert "euler" in KSampler.SAMPLERS and "simple" in KSampler.SCHEDULERS
assert "KSampler" in NODE_CLASS_MAPPINGS
assert folder_paths.get_output_directory() == str(here / "output")
assert ComfyAPISync().execution.set_progress and ComfyAPI().execution.set_progress
assert threading.active_count() == before, "a thread was started"
assert not torch.cuda.is_initialized(), "a device was taken"
assert os.listdir(here) == ["packs"], "a folder was made"
"""


EDITS = """
class Darkens:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def go(self, image):
        image.mul_(0.5)
        return (image,)


NODE_CLASS_MAPPINGS = {"Darkens": Darkens}
"""


def test_a_pack_that_edits_its_input_is_harmless_and_with_the_option_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "packs").mkdir()
    (tmp_path / "packs/darkens.py").write_text(EDITS, encoding="utf-8")
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0xFFFFFF}},
        "2": {"class_type": "Darkens", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "dark"}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "white"}},
    }
    (tmp_path / "graph.json").write_text(json.dumps(graph), encoding="utf-8")
    command = [
        sys.executable,
        "-c",
        "from sigmagraph.engine.cli.app import main; main()",
        "run",
        str(tmp_path / "graph.json"),
    ]
    options = ["--home", str(tmp_path), "--output", str(tmp_path), "--custom-nodes", str(tmp_path / "packs")]
    here = Path(__file__).parents[2]
    subprocess.run([*command, *options], check=True, cwd=here, timeout=120)
    with PIL.Image.open(tmp_path / "dark_00001_.png") as dark, PIL.Image.open(tmp_path / "white_00001_.png") as white:
        assert (dark.getpixel((0, 0)), white.getpixel((0, 0))) == ((127, 127, 127), (255, 255, 255))
    told = subprocess.run([*command, *options, "--watch-edits"], capture_output=True, text=True, cwd=here, timeout=120)
    assert told.returncode != 0
    assert "node 2 (Darkens): the node changed its input 'image' in place" in " ".join(told.stderr.split())


def test_every_name_packs_import_is_offered_and_importing_them_starts_nothing(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", OFFERED, str(tmp_path)], check=True, cwd=Path(__file__).parents[2], timeout=120
    )


def test_weights_are_read_by_our_reader_and_pickles_are_refused(folders: Folders, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from sigmagraph.engine.errors import EngineError

    load_custom_nodes([tmp_path / "packs"], folders, lambda pack: None)
    load = importlib.import_module("comfy.utils").load_torch_file
    save_file({"a": torch.arange(4.0)}, tmp_path / "w.safetensors")
    assert torch.equal(load(str(tmp_path / "w.safetensors"))["a"], torch.arange(4.0))
    torch.save({"a": torch.arange(4.0)}, tmp_path / "w.pt")
    with pytest.raises(EngineError):
        load(str(tmp_path / "w.pt"))


def test_embeddings_latents_and_pictures_go_to_disk_and_come_back_bit_for_bit(tmp_path: Path) -> None:
    values: list[Any] = [
        torch.randn(2, 3, dtype=torch.bfloat16),
        LatentValue(torch.randn(1, 16, 4, 4), None, (1,)),
        Conditioning(torch.randn(1, 7, 8), torch.randn(1, 4)),
    ]
    back = SERIALISER.read("k" * 32, SERIALISER.write("k" * 32, Entry((values,), None, 5.0))).outputs[0]
    assert torch.equal(back[0], values[0])
    assert back[0].dtype == torch.bfloat16
    assert torch.equal(back[1].samples, values[1].samples)
    assert back[1].batch_index == (1,)
    assert torch.equal(back[2].pooled, values[2].pooled)


def test_a_store_has_a_disk_tier_only_where_it_has_a_budget(tmp_path: Path) -> None:
    assert open_store(CacheSettings(1000, 0), tmp_path / "none", lambda message: None).disk is None
    store = open_store(CacheSettings(1000, 1000), tmp_path / "cache", lambda message: None)
    assert store.disk is not None
    store.close()
