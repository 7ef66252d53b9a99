"""Parity data, unpacked once per run."""

import json
import lzma
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from sigmagraph.engine.models import Checkpoint, load_checkpoint
from sigmagraph.engine.models.memory.choices import MemoryChoices
from sigmagraph.engine.models.memory.residency import RESIDENCY

DATA = Path(__file__).parents[1] / "data" / "models"

GOLDEN_PRECISION = MemoryChoices(text="fp32", model="fp32", vae="fp32")
Unpack = Callable[[str], Path]
Arrays = Callable[[str], dict[str, dict[str, Tensor]]]


def packed_json(name: str) -> Any:
    """The parsed content of a compressed JSON file of the data folder."""
    return json.loads(lzma.decompress((DATA / f"{name}.xz").read_bytes()))


@pytest.fixture(scope="package", autouse=True)
def golden_precision() -> Iterator[None]:
    """The recorded numbers are float32, also where the processor would multiply 16-bit files as they are."""
    before, RESIDENCY.choices = RESIDENCY.choices, GOLDEN_PRECISION
    yield
    RESIDENCY.choices = before


@pytest.fixture(scope="session")
def unpack(tmp_path_factory: pytest.TempPathFactory) -> Unpack:
    """Name of a data file -> path of its unpacked form."""
    folder = tmp_path_factory.mktemp("models")

    @cache
    def unpacked(name: str) -> Path:
        (folder / name).write_bytes(lzma.decompress((DATA / f"{name}.xz").read_bytes()))
        return folder / name

    return unpacked


@pytest.fixture(scope="session")
def arrays(unpack: Unpack) -> Arrays:
    """Name of an io file -> case -> array name -> tensor."""

    @cache
    def cases(name: str) -> dict[str, dict[str, Tensor]]:
        found: dict[str, dict[str, Tensor]] = {}
        for key, tensor in load_file(unpack(f"{name}.io.safetensors")).items():
            case, _, array = key.rpartition("/")
            found.setdefault(case, {})[array] = tensor
        return found

    return cases


@pytest.fixture(scope="session")
def diffusers_shards(unpack: Unpack) -> Path:
    """The index of `mmdit_b` in diffusers' layout, its two shards beside it."""
    for shard in (1, 2):
        unpack(f"diffusion_pytorch_model-0000{shard}-of-00002.safetensors")
    return unpack("diffusion_pytorch_model.safetensors.index.json")


@pytest.fixture(scope="package")
def checkpoint(unpack: Unpack) -> Checkpoint:
    """The all-in-one checkpoint: `mmdit_a`, VAE and all three encoders."""
    return load_checkpoint(unpack("checkpoint_all_in_one.safetensors"))
