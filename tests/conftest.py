"""Fixtures that several layers share: a folder with a tiny checkpoint, and workflows for it."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Graph = dict[str, dict[str, Any]]


@pytest.fixture(autouse=True)
def owner_as_found() -> Iterator[None]:
    """What a test tells this process's owner of networks ends with it: `run` and a worker's factory tell it things."""
    owner = _owner()
    before = (owner.choices, owner.keeps_unknown) if owner is not None else None
    yield
    if (owner := _owner()) is not None:
        found = owner.keeps_unknown
        owner.choices, owner.keeps_unknown = before if before is not None else (type(owner.choices)(), False)
        if found and not owner.keeps_unknown:
            owner.free()  # networks that nobody can ask for again


def _owner() -> Any:
    """The owner of networks, if a test has imported it by now."""
    module = sys.modules.get("sigmagraph.engine.models.memory.residency")
    return module.RESIDENCY if module is not None else None


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint of random weights; written once, never changed."""
    from tests.tiny import write_checkpoint

    return write_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny.safetensors")


@pytest.fixture
def home(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """A home folder as the command line expects it, the tiny checkpoint in place."""
    checkpoints = tmp_path / "models" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "tiny.safetensors").symlink_to(tiny_checkpoint)
    (tmp_path / "input").mkdir()
    return tmp_path


@pytest.fixture
def txt2img() -> Callable[..., Graph]:
    """A text-to-image graph for the tiny checkpoint; keyword arguments change the KSampler's inputs."""

    def graph(**sampler: Any) -> Graph:
        inputs = {"seed": 1, "steps": 2, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
        links = {"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0]}
        return {
            "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny.safetensors"}},
            "2": {
                "class_type": "CLIPTextEncode",
                "inputs": {"text": "a red circle", "clip": ["1", 1]},
                "_meta": {"title": "Prompt"},
            },
            "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["1", 1]}},
            "4": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 64, "height": 48, "batch_size": 1}},
            "5": {"class_type": "KSampler", "inputs": {**inputs, **links, **sampler}},
            "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
            "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "picture"}},
        }

    return graph
