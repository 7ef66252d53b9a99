"""Random weights of small networks, the same ones whenever they are asked for."""

import torch
from torch import Tensor

from sigmagraph.engine.models.arch import MMDiT, MMDiTShape

__all__ = ["drawn_weights"]


def drawn_weights(shape: MMDiTShape, seed: int = 0) -> dict[str, Tensor]:
    """The tensors of a transformer, each from a normal of standard deviation 0.05."""
    torch.manual_seed(seed)
    return {name: torch.randn(tensor.shape) * 0.05 for name, tensor in MMDiT(shape).state_dict().items()}
