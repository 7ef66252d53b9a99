"""Every wrong thing a user can hand over: one clear message, exit code 1, no traceback, nothing half-written."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from typer.testing import CliRunner

from sigmagraph.engine.cli.app import app

Graphs = Callable[..., dict[str, Any]]


def failure(home: Path, document: Any, *more: str) -> str:
    """Run a document that must fail; the one message it gives."""
    path = home / "workflow.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    arguments = ["run", str(path), "--home", str(home), "--output", str(home / "out"), *more]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1, done.output
    assert done.stdout == ""
    assert "Traceback" not in done.output
    assert done.stderr.count("error: ") == 1
    assert not list((home / "out").rglob("*")), "something was written"
    return done.stderr.split("error: ")[1]


def with_checkpoint(graph: dict[str, Any], name: str) -> dict[str, Any]:
    graph["1"]["inputs"]["ckpt_name"] = name
    return graph


def test_a_workflow_that_is_not_there(home: Path) -> None:
    done = CliRunner().invoke(app, ["run", "nowhere.json", "--home", str(home)])
    assert done.exit_code == 1
    assert done.stderr == "error: nowhere.json: No such file or directory\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "not JSON"), ("{", "line 1, column 2"), ("[]", "a list; expected an object"), ("{}", "no output node")],
)
def test_a_file_that_is_no_workflow(home: Path, text: str, words: str) -> None:
    assert words in failure(home, text)


def test_a_picture_that_carries_no_workflow(home: Path) -> None:
    from PIL import Image

    Image.new("RGB", (2, 2)).save(home / "a.png")
    done = CliRunner().invoke(app, ["run", str(home / "a.png"), "--home", str(home)])
    assert done.exit_code == 1
    assert "the picture carries no workflow" in done.stderr


def test_a_checkpoint_that_is_not_there_is_told_with_the_nearest(home: Path, txt2img: Graphs) -> None:
    message = failure(home, with_checkpoint(txt2img(), "tinny.safetensors"))
    assert "node 1 (CheckpointLoaderSimple).ckpt_name: 'tinny.safetensors' is not in the list" in message
    assert "did you mean 'tiny.safetensors'?" in message


def test_an_official_file_that_is_not_there_names_the_command_that_brings_it(home: Path, txt2img: Graphs) -> None:
    message = failure(home, with_checkpoint(txt2img(), "sd3.5_large.safetensors"))
    assert "`sigmagraph fetch sd3.5-large` brings sd3.5_large.safetensors" in message


def test_a_pickle_is_refused_whatever_its_name_says(home: Path, txt2img: Graphs) -> None:
    (home / "models/checkpoints/p.safetensors").write_bytes(pickle.dumps({"a": 1}))
    message = failure(home, with_checkpoint(txt2img(), "p.safetensors"))
    assert "node 1 (CheckpointLoaderSimple)" in message
    assert "p.safetensors" in message
    assert "pickle" in message


def test_a_truncated_checkpoint(home: Path, txt2img: Graphs, tiny_checkpoint: Path) -> None:
    (home / "models/checkpoints/t.safetensors").write_bytes(tiny_checkpoint.read_bytes()[:-1000])
    message = failure(home, with_checkpoint(txt2img(), "t.safetensors"))
    assert "t.safetensors" in message
    assert "bytes" in message


@pytest.mark.parametrize("header", [b"\xff" * 8, (2**40).to_bytes(8, "little"), (5).to_bytes(8, "little") + b"hello"])
def test_a_lying_header(home: Path, txt2img: Graphs, header: bytes) -> None:
    (home / "models/checkpoints/l.safetensors").write_bytes(header + b" " * 100)
    assert "l.safetensors" in failure(home, with_checkpoint(txt2img(), "l.safetensors"))


def test_a_checkpoint_of_another_family(home: Path, txt2img: Graphs) -> None:
    names = ("model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.decoder.conv_in.weight")
    save_file({name: torch.zeros(4, 4, 3, 3) for name in names}, home / "models/checkpoints/sd1.safetensors")
    message = failure(home, with_checkpoint(txt2img(), "sd1.safetensors"))
    assert "SD3 family was expected" in message


def test_a_checkpoint_that_lacks_a_tensor(home: Path, txt2img: Graphs, tiny_checkpoint: Path) -> None:
    with safe_open(tiny_checkpoint, "pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118  # no dict
    del tensors["model.diffusion_model.joint_blocks.0.x_block.mlp.fc1.bias"]
    save_file(tensors, home / "models/checkpoints/m.safetensors", metadata)
    message = failure(home, with_checkpoint(txt2img(), "m.safetensors"))
    assert "1 missing: joint_blocks.0.x_block.mlp.fc1.bias" in message


def test_a_graph_with_a_cycle(home: Path, txt2img: Graphs) -> None:
    graph = txt2img()
    graph["8"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["6", 0], "vae": ["1", 2]}}
    graph["5"]["inputs"]["latent_image"] = ["8", 0]
    message = failure(home, graph)
    assert "cycle" in message
    assert all(node_id in message for node_id in ("5", "6", "8"))


def test_an_unknown_node(home: Path, txt2img: Graphs) -> None:
    graph = txt2img()
    graph["5"]["class_type"] = "KSmapler"
    assert "node 5 (KSmapler): there is no node class 'KSmapler'; did you mean 'KSampler'?" in failure(home, graph)


def test_every_problem_is_told_at_once(home: Path, txt2img: Graphs) -> None:
    graph = txt2img(steps=0, cfg="much", sampler_name="eulr")
    del graph["5"]["inputs"]["positive"]
    del graph["2"]
    graph["4"]["inputs"] |= {"width": 73, "height": 20000}
    message = failure(home, graph)
    for words in (
        "node 5 (KSampler).steps: 0 is smaller than 1; expected 1 to 10000",
        "node 5 (KSampler).cfg: 'much' is not a FLOAT",
        "node 5 (KSampler).sampler_name: 'eulr' is not in the list",
        "did you mean 'euler'?",
        "node 5 (KSampler).positive: required input is missing",
        "node 4 (EmptySD3LatentImage).width: 73 is off the grid of 8; nearest are 72 and 80",
        "node 4 (EmptySD3LatentImage).height: 20000 is bigger than 16384",
    ):
        assert words in message


def test_a_link_of_the_wrong_type(home: Path, txt2img: Graphs) -> None:
    message = failure(home, txt2img(positive=["4", 0]))
    assert "node 5 (KSampler).positive" in message
    assert "LATENT" in message
    assert "CONDITIONING" in message


def test_a_link_to_nowhere(home: Path, txt2img: Graphs) -> None:
    assert "node 5 (KSampler).positive" in failure(home, txt2img(positive=["99", 0]))


@pytest.mark.parametrize("data", [b"", b"no picture at all", b"\x89PNG\r\n\x1a\n\0\0"])
def test_an_unreadable_image(home: Path, data: bytes) -> None:
    (home / "input/a.png").write_bytes(data)
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a"}},
    }
    message = failure(home, graph)
    assert "node 1 (LoadImage)" in message
    assert "a.png" in message


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a\0.png"])
def test_a_file_name_that_leaves_its_folder(home: Path, name: str) -> None:
    (home / "secret.png").write_bytes(b"x")
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a"}},
    }
    assert "node 1 (LoadImage).image" in failure(home, graph)


def test_a_prefix_that_leaves_the_output_folder(home: Path, txt2img: Graphs) -> None:
    graph = txt2img()
    graph["7"]["inputs"]["filename_prefix"] = "../../escaped"
    assert "filename_prefix: '../../escaped' is not allowed" in failure(home, graph)
    assert not list(home.rglob("escaped*"))


def test_a_setting_for_a_node_that_is_not_there(home: Path, txt2img: Graphs) -> None:
    assert "did you mean 'Prompt'?" in failure(home, txt2img(), "--set", "Promt.text=x")


def test_an_output_folder_that_cannot_be_written_is_told_before_any_work(home: Path, txt2img: Graphs) -> None:
    (home / "file").touch()
    path = home / "workflow.json"
    path.write_text(json.dumps(txt2img()))
    done = CliRunner().invoke(app, ["run", str(path), "--home", str(home), "--output", str(home / "file/out")])
    assert done.exit_code == 1
    assert "file/out: cannot be written" in done.stderr
    assert "KSampler" not in done.stderr


def test_a_full_disk_leaves_nothing_half_written(home: Path) -> None:
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 2048, "height": 2048, "batch_size": 1, "color": 7}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a"}},
    }
    path, out = home / "workflow.json", home / "out"
    path.write_text(json.dumps(graph))
    # a limit on the size of files fails a write in the middle, as a full disk does
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "from sigmagraph.engine.cli.app import main\nmain()"
    )
    arguments = ["run", str(path), "--home", str(home), "--output", str(out)]
    done = subprocess.run(
        [sys.executable, "-B", "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "node 2 (SaveImage)" in done.stderr
    assert "cannot be written: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(out.iterdir()) == []
