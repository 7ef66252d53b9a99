"""A model that can be trained a little: low-rank changes of its linears (Hu 2021, arXiv:2106.09685).

`trainable(model)` is a `Model` like any other, over a copy of the network: guidance, samplers and nodes take it. Its
estimates carry gradients where the caller tracks them, as `Sampling(..., gradients=True)` does. What was learnt is
saved as an adapter, which loads into the model it came from.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models.memory.residency import ready
from sigmagraph.engine.models.value import Model
from sigmagraph.engine.writing import write_file

__all__ = ["Trainable", "trainable"]

CHANGED = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
PREFIX = "diffusion_model."


class LowRank(nn.Module):
    """A linear and what was learnt beside it: y + up down x, which is nothing at first."""

    def __init__(self, base: nn.Linear, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base
        down = torch.randn(rank, base.in_features, generator=generator) / math.sqrt(base.in_features)
        self.down = nn.Parameter(down.to(base.weight.device))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank, device=base.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.base(x)
        return result + F.linear(F.linear(x, self.down.to(x.dtype)), self.up.to(x.dtype))


@dataclass(frozen=True, eq=False)
class Trainable:
    """A model with low-rank changes; `model` is what samples, `parameters` are what an optimiser takes."""

    model: Model
    changes: dict[str, LowRank]

    def parameters(self) -> Iterator[nn.Parameter]:
        """What is learnt: float32, two matrices for each changed linear."""
        for change in self.changes.values():
            yield from change.parameters(recurse=False)

    def save(self, path: Path) -> None:
        """Write an adapter file, for `LoraLoader` and every other program that takes SD3's."""
        tensors = {
            f"{PREFIX}{name}.lora_{role}.weight": part.detach().cpu().contiguous()
            for name, change in self.changes.items()
            for role, part in (("down", change.down), ("up", change.up))
        }
        write_file(path, save(tensors, {"modelspec.title": "low-rank changes of a diffusion transformer"}))


def trainable(model: Model, rank: int = 8, *, linears: Sequence[str] = CHANGED, seed: int = 0) -> Trainable:
    """A copy of the model's network whose blocks' `linears`, named by the ends of their names, have changes of `rank`.

    The copy is of its own: the model itself stays as it is. It holds the network's memory a second time.
    """
    if rank < 1:
        raise BadValue("rank", rank, "a whole number from 1")
    network = copy.deepcopy(model.network).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    found = [
        (name, part)
        for name, part in network.named_modules()
        if isinstance(part, nn.Linear) and any(name.endswith("." + end) for end in linears)
    ]
    if not found:
        raise BadValue("linears", [*linears], f"the ends of names of linears, such as {', '.join(CHANGED)}")
    changes = {}
    for name, part in found:
        owner, _, leaf = name.rpartition(".")
        changes[name] = LowRank(part, rank, generator)
        setattr(network.get_submodule(owner), leaf, changes[name])
    network.trains = True
    return Trainable(replace(model, recipe=ready(network, model.placement)), changes)
