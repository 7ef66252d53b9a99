"""Forty kinds of work on the demo checkpoint, and what each comes to when nothing disturbs it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.execution.inline import execute
from sigmagraph.engine.graph.plan import plan
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.validate import validate

CHECKPOINT = Path(__file__).resolve().parents[3] / "models/checkpoints/sigmagraph-demo.safetensors"
SAMPLERS = (
    "euler",
    "dpmpp_2m",
    "heun",
    "euler_ancestral",
    "dpmpp_sde",
    "uni_pc",
    "lms",
    "res_multistep",
    "dpmpp_3m_sde",
    "sa_solver",
    "er_sde",
)
SCHEDULES = ("simple", "normal", "sgm_uniform", "beta")
SHAPES = ("red heart", "blue circle", "green square", "yellow triangle")
Graph = dict[str, dict[str, Any]]


def make_home(home: Path) -> None:
    """The demo checkpoint in place, and a picture to start from."""
    from PIL import Image

    for name in ("models/checkpoints", "input"):
        (home / name).mkdir(parents=True, exist_ok=True)
    (home / "models/checkpoints" / CHECKPOINT.name).symlink_to(CHECKPOINT)
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save(home / "input/start.png")


def mixed(at: int) -> Graph:
    """Job `at`: one of several samplers, schedules, lengths and kinds of graph, and a name of its own."""
    graph: Graph = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": CHECKPOINT.name}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": f"a {SHAPES[at % 4]}", "clip": ["1", 1]}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["1", 1]}},
        "4": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "5": sampler(at, ["4", 0], steps=(30, 60, 120)[at % 3]),
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": f"job{at:02}x"}},
    }
    match at % 4:
        case 1:
            graph["4"]["inputs"]["batch_size"] = 2
        case 2:  # image to image
            graph["8"] = {"class_type": "LoadImage", "inputs": {"image": "start.png"}}
            graph["4"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["8", 0], "vae": ["1", 2]}}
            graph["5"]["inputs"]["denoise"] = 0.7
        case 3:  # one sampler behind the other
            graph["9"] = sampler(at + 5, ["5", 0], steps=40)
            graph["9"]["inputs"]["denoise"] = 0.5
            graph["6"]["inputs"]["samples"] = ["9", 0]
    return graph


def sampler(at: int, latent: list[Any], steps: int) -> dict[str, Any]:
    """A KSampler."""
    names = {"sampler_name": SAMPLERS[at % len(SAMPLERS)], "scheduler": SCHEDULES[at % len(SCHEDULES)]}
    links = {"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": latent}
    return {
        "class_type": "KSampler",
        "inputs": {"seed": at, "steps": steps, "cfg": 4.0, "denoise": 1.0, **names, **links},
    }


def undisturbed(home: Path, graph: Mapping[str, Any]) -> list[bytes]:
    """The files of a graph, made here in one go."""
    import torch

    from sigmagraph.nodes import NODES

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        folders = Folders(home / "models", home / "input", home / "calm", home / "calm-temp")
        prepared = plan(validate(parse_workflow(dict(graph)), NODES, folders), folders)
        ui = execute(prepared, folders, MemoryCache(), around=torch.inference_mode).or_raise().ui
    finally:
        torch.set_num_threads(threads)
    return [(home / "calm" / image["filename"]).read_bytes() for image in ui["7"]["images"]]
