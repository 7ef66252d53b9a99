"""Fixtures that several layers share: a folder with a tiny checkpoint, and workflows for it."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Graph = dict[str, dict[str, Any]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who still holds a network is asked first: in one process with all tests, others may hold theirs for a while."""
    items.sort(key=lambda item: "/tests/models/memory/" not in item.path.as_posix())


@pytest.fixture(autouse=True)
def nothing_chosen(request: pytest.FixtureRequest) -> Iterator[None]:
    """Outside the tests of models nothing is chosen at first; theirs choose float32 for the whole session."""
    loaded = sys.modules.get("sigmagraph.engine.models.memory.residency")
    if loaded is None or "/tests/models/" in request.path.as_posix():
        yield
        return
    before = loaded.RESIDENCY.choices
    loaded.RESIDENCY.choices = type(before)()
    yield
    loaded.RESIDENCY.choices = before


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
