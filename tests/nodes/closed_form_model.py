"""A model whose network is the exact posterior mean of a Gaussian mixture, for whole runs through the sampling nodes.

A conditioning names its mixture: the first number of its pooled vector is the mixture's place in `SIDES`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sigmagraph.engine.models import Conditioning, Model
from sigmagraph.engine.models.arch import MMDiTShape
from sigmagraph.engine.models.memory.device import Placement
from sigmagraph.engine.models.memory.residency import ready
from sigmagraph.engine.models.spec import LatentFormat, ModelSpec
from sigmagraph.engine.models.value import Pass
from sigmagraph.engine.sampling import sd3, sdxl

SIDES = ("pos", "neg", "pos2")
SINGLE = 1000  # added to the number of a skipped block of one stream
FAMILIES = {"flow": (sd3(3.0), 16), "eps": (sdxl(), 4)}


def conditioning(side: str) -> Conditioning:
    return Conditioning(torch.zeros(1, 1, 1), torch.tensor([[float(SIDES.index(side))]]))


class MixtureNetwork(nn.Module):
    """Raw outputs (velocity or eps, float32) of the recorded runs' network."""

    def __init__(self, mixtures: Mapping[str, Tensor], family: str) -> None:
        super().__init__()
        self.mixtures, self.family = mixtures, family
        self.sigma = 1.0  # of the evaluation under way: a timestep is rounded to the model's table

    def forward(
        self, fed: Tensor, timestep: Tensor, pooled: Tensor, context: Tensor, skip_layers: frozenset[int] = frozenset()
    ) -> Tensor:
        sigma = self.sigma
        x = fed.double() if self.family == "flow" else fed.double() * (sigma**2 + 1) ** 0.5
        rows = [
            self._output(one[None], sigma, SIDES[int(side[0])], skip_layers)
            for one, side in zip(x, pooled, strict=True)
        ]
        return torch.cat(rows).float()

    def _output(self, x: Tensor, sigma: float, side: str, skipped: frozenset[int]) -> Tensor:
        means, stds, weights = (
            self.mixtures[f"mixture/{self.family}/{side}/{part}"].double() for part in ("means", "stds", "weights")
        )
        a = 1.0 - sigma if self.family == "flow" else 1.0
        variances = a**2 * stds**2 + sigma**2
        off = x[:, None] - a * means
        logits = (weights.log() - x.shape[1] / 2 * variances.log())[:, None, None]
        logits = logits - (off**2).sum(2) / (2 * variances)[:, None, None]
        parts = means + (a * stds**2 / variances)[:, None, None, None] * off
        clean = (logits.softmax(1)[:, :, None] * parts).sum(1)
        for layer in sorted(skipped):
            clean = clean * (1 - 0.02 * (layer + 1)) if layer < SINGLE else clean + 0.01 * (layer - SINGLE + 1)
        return (x - clean) / sigma


@dataclass(frozen=True, eq=False)
class ClosedFormModel(Model):
    """Tells its network the noise level, and takes blocks of one stream to leave out as other families have them."""

    def passes(self, x: Tensor, sigma: float, conditionings: Sequence[Conditioning]) -> list[list[Pass]]:
        self.network.sigma = sigma  # type: ignore[assignment]
        return super().passes(x, sigma, conditionings)

    def with_skipped_layers(self, layers: Iterable[int], single: Iterable[int] = ()) -> "Model":
        return replace(self, skip_layers=frozenset((*layers, *(SINGLE + layer for layer in single))))


def closed_form_model(family: str, mixtures: Mapping[str, Tensor]) -> Model:
    parameterisation, channels = FAMILIES[family]
    network: Any = MixtureNetwork(mixtures, family)
    shape = MMDiTShape(depth=38, width=64, pooled_width=1, context_width=1, table_side=192, in_channels=channels)
    spec = ModelSpec(shape, "closed form", parameterisation, LatentFormat(channels, 8, 1.0, 0.0))
    placed = Placement(torch.device("cpu"), torch.float32)
    return ClosedFormModel(ready(network, placed), spec, parameterisation)
