"""`sigmagraph models`: what it says of each file, by headers alone."""

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from benchmarks.layouts import layouts
from sigmagraph.engine.cli.app import app
from sigmagraph.engine.models.arch import MMDiT, MMDiTShape
from tests.models.conftest import packed_json
from tests.tiny import write_controlnet

ROOT = Path(__file__).resolve().parents[2]
DEMO = "sigmagraph-demo.safetensors"


def listed(home: Path) -> dict[str, dict[str, Any]]:
    done = CliRunner().invoke(app, ["models", "--json", "--home", str(home)])
    assert done.exit_code == 0, done.output
    return {row["file"]: row for row in json.loads(done.stdout)}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for folder in ("checkpoints", "diffusion_models", "controlnet", "loras"):
        (tmp_path / "models" / folder).mkdir(parents=True)
    (tmp_path / "models/checkpoints" / DEMO).symlink_to(ROOT / "models/checkpoints" / DEMO)
    return tmp_path


def transformer(path: Path, dtype: torch.dtype) -> None:
    tensors = {
        name: torch.zeros(each.shape, dtype=dtype)
        for name, each in MMDiT(MMDiTShape(1, 128, 64, 96, 8)).state_dict().items()
    }
    save_file(tensors, path)


def test_family_precision_and_what_a_file_completes(home: Path) -> None:
    transformer(home / "models/diffusion_models/small.safetensors", torch.bfloat16)
    (home / "models/diffusion_models/broken.safetensors").write_bytes(b"PK\x03\x04" + bytes(600))
    write_controlnet(home / "models/controlnet/net.safetensors", MMDiTShape(2, 128, 64, 96, 8), kind=1)
    block = "transformer.transformer_blocks.0.attn.to_q"
    factors = {f"{block}.lora_A.weight": torch.zeros(4, 2432), f"{block}.lora_B.weight": torch.zeros(2432, 4)}
    save_file(factors, home / "models/loras/style.safetensors", {"modelspec.trigger_phrase": "in oil"})
    rows = listed(home)
    style = rows["style.safetensors"]
    assert (style["holds"], style["family"], style["precision"]) == (
        "LoRA of rank 4 for the diffusion model, 2 tensors; words: in oil",
        "SD3.5 Large",
        "float32",
    )
    assert (style["rank"], style["tensors"], style["trigger_words"]) == ("4", 2, ["in oil"])
    assert rows["net.safetensors"]["holds"] == "a ControlNet for canny"
    demo = rows[DEMO]
    assert demo["holds"] == "a diffusion model, a VAE, clip_l, clip_g, t5xxl"
    assert demo["family"] == "SD3's architecture, width 256"
    assert {"txt2img", "img2img", "inpaint"} <= set(demo["completes"])
    assert "sd3.5_large_txt2img" not in demo["completes"]  # its files are not here
    assert rows["small.safetensors"]["precision"] == "bfloat16"
    assert rows["small.safetensors"]["completes"] == []
    assert "zip archive" in rows["broken.safetensors"]["holds"]


def test_a_file_completes_what_looks_for_it_in_its_folder(home: Path) -> None:
    (home / "models/diffusion_models" / DEMO).symlink_to(ROOT / "models/checkpoints" / DEMO)
    done = CliRunner().invoke(app, ["models", "--json", "--home", str(home)])
    rows = {row["folder"]: row for row in json.loads(done.stdout)}
    assert "txt2img" in rows["checkpoints"]["completes"]
    assert rows["diffusion_models"]["completes"] == []  # CheckpointLoaderSimple does not look there
    (home / "models/checkpoints" / DEMO).unlink()
    assert [row["completes"] for row in listed(home).values()] == [[]]


def test_a_digest_is_that_of_an_earlier_run_and_is_gone_when_the_file_changes(home: Path) -> None:
    path = home / "models/diffusion_models/small.safetensors"
    transformer(path, torch.float16)
    assert listed(home)[path.name]["digest"] is None
    facts = path.stat()
    kept = {str(path): [facts.st_size, facts.st_mtime_ns, "blake3:" + "0" * 32]}
    (home / ".digests.json").write_text(json.dumps(kept))
    assert listed(home)[path.name]["digest"] == "blake3:" + "0" * 32
    path.touch()
    assert listed(home)[path.name]["digest"] is None


def full_size(path: Path, tensors: dict[str, list[int]]) -> None:
    """A file with the header and the size of a published one, and a hole where its numbers would be."""
    header, at = {}, 0
    for name, shape in tensors.items():
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at := at + 2 * math.prod(shape)]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)


@pytest.mark.slow
def test_a_hundred_files_of_full_size_are_listed_in_two_seconds(home: Path) -> None:
    kinds = ("sd3.5_large.original", "sd3.5_medium.original", "sd3.5_large.diffusers", "sd3_medium.original")
    manifests = packed_json("manifests.json")
    for number in range(100):
        full_size(home / f"models/diffusion_models/{number}.safetensors", manifests[kinds[number % 4]])
    CliRunner().invoke(app, ["models", "--home", str(home / "none")])  # imports
    began = time.process_time()
    rows = listed(home)
    assert time.process_time() - began < 2
    assert len(rows) == 101
    assert rows["0.safetensors"]["family"] == "SD3.5 Large or Large Turbo"


SAID = {
    "Large, float8 plain": "float8_e4m3fn",
    "Large, float8 e5m2": "float8_e5m2",
    "Large, float8 scale_weight": "float8_e4m3fn scaled",
    "Large, float8 comfy_quant": "float8_e4m3fn scaled",
    "Large, int8_tensorwise": "int8 scaled",
    "Large, rotated int8": "int8 scaled",
    "Large, mxfp8": "mxfp8",
    "Large, nvfp4": "nvfp4",
    "T5-XXL, float8 plain": "float8_e4m3fn",
}
"""What is told of a layout whose name does not end in its precision."""
PLACES = {"model": "diffusion_models", "text": "text_encoders", "vae": "vae", "control": "controlnet"}
"""Where the file of a loader lies."""


def write_every_layout(models: Path, count: int) -> None:
    """So many files of full size with holes for numbers: each layout that is measured once, then again and again."""
    folders, there = list[Path](), 0
    for number, layout in enumerate(layouts().values()):
        folders.append(models / PLACES[layout.loader] / f"{number:02}")
        folders[-1].mkdir(parents=True)
        layout.write(folders[-1], layout.tensors())
        there += len(weights_in(folders[-1]))
    for copy in range(count):
        for folder in folders:
            if there + len(weights_in(folder)) <= count:
                again = folder.with_name(f"{folder.name}-{copy}")
                again.mkdir()
                for path in folder.iterdir():
                    os.link(path, again / path.name)
                there += len(weights_in(folder))


def weights_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix != ".json"]


@pytest.mark.slow
def test_a_hundred_files_of_every_layout_are_listed_in_two_seconds(home: Path) -> None:
    write_every_layout(home / "models", 100)
    CliRunner().invoke(app, ["models", "--home", str(home / "none")])  # imports
    began = time.process_time()
    rows = listed(home)
    took = time.process_time() - began
    assert took < 2, f"{took:.2f} s"
    assert len(rows) == 101
    assert all(row["family"] and row["precision"] for row in rows.values())
    kept = {name.split("/")[0]: row["precision"] for name, row in rows.items()}
    for number, name in enumerate(layouts()):
        told = kept[f"{number:02}"]
        assert SAID.get(name, name.rpartition(" ")[2].replace("bf", "bfloat").replace("fp", "float")) in told, name


def test_what_is_not_a_file_is_said_and_hides_nothing(home: Path) -> None:
    folder = home / "models/diffusion_models"
    (folder / "gone.safetensors").symlink_to(home / "nowhere")
    (folder / "folder.safetensors").mkdir()
    os.mkfifo(folder / "pipe.safetensors")
    (folder / "empty.safetensors").touch()
    transformer(folder / "real.safetensors", torch.float16)
    net = load_file(folder / "real.safetensors") | {"x.comfy_quant": torch.tensor(list(b'{"format": []}')).byte()}
    save_file(net, folder / "odd.safetensors")
    (home / "models/diffusers/pipe").mkdir(parents=True)
    (home / "models/diffusers/pipe/model_index.json").touch()
    (home / "models/diffusers/pipe/gone.safetensors").symlink_to(home / "nowhere")
    rows = listed(home)
    assert rows["gone.safetensors"]["holds"] == rows["pipe.safetensors"]["holds"] == "a link to nothing, or not a file"
    assert "not a safetensors file" in rows["empty.safetensors"]["holds"]
    assert "is stored as []" in rows["odd.safetensors"]["holds"]
    assert rows["real.safetensors"]["holds"] == "a diffusion model"
    assert "folder.safetensors" not in rows
    done = CliRunner().invoke(app, ["convert", str(folder / "pipe.safetensors"), "--to", "bf16"])
    assert "is a pipe, a socket or a device" in done.stderr
