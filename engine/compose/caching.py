"""The cache of a process: budgets from the option, and how tensors and records of the node library go to disk."""

from collections.abc import Callable
from pathlib import Path

import safetensors.torch
from torch import Tensor

from sigmagraph.engine.execution.cache.disk import DiskTier
from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.cache.result_store import ResultStore
from sigmagraph.engine.execution.cache.serialise import Packer, Serialiser
from sigmagraph.engine.execution.cache.settings import CacheSettings
from sigmagraph.engine.models.conditioning import Conditioning
from sigmagraph.nodes.support.types import LatentValue

__all__ = ["SERIALISER", "open_store"]

NAME = "value"


def _pack(tensor: Tensor) -> bytes:
    return safetensors.torch.save({NAME: tensor.detach().cpu().contiguous()})


def _unpack(data: bytes) -> Tensor:
    return safetensors.torch.load(data)[NAME]


# embeddings, latents and pictures; models are no records and have no packer, so weights never go to disk
SERIALISER = Serialiser(
    [Packer("tensor", lambda value: type(value) is Tensor, _pack, _unpack)], [LatentValue, Conditioning]
)


def open_store(settings: CacheSettings, folder: Path, report: Callable[[str], None]) -> ResultStore:
    """The store with both tiers; `report` hears of damaged entries and of a disk that cannot be written."""
    disk = DiskTier(folder, SERIALISER, settings.disk_bytes, report) if settings.disk_bytes else None
    return ResultStore(MemoryCache(settings.memory_bytes), disk)
