"""Scaled float8 files: every linear weight is a float8 tensor times a float32 scale stored beside it.

The weights are multiplied out when they are read, so the rest of the loader sees ordinary tensors. Biases keep their
stored precision (ComfyUI rounds them to float8 on load; images made from such files differ slightly for that).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sigmagraph.engine.models.files.read import StoredTensor, Weights
from sigmagraph.engine.models.files.rename import derived

MARKER = "scaled_fp8"
SCALE = ".scale_weight"
INPUT_SCALE = ".scale_input"


def multiplied_out(weights: Weights) -> dict[str, StoredTensor]:
    """`weights` without markers and scales; each scaled weight reads as its float32 product."""
    plain = {name: tensor for name, tensor in weights.items() if not name.endswith((SCALE, INPUT_SCALE, MARKER))}
    for scale_name in (name for name in weights if name.endswith(SCALE)):
        name = scale_name.removesuffix(SCALE) + ".weight"
        if name in plain:
            plain[name] = derived(name, [plain[name], weights[scale_name]], _product)
    return plain


def _product(parts: Sequence[Tensor]) -> Tensor:
    weight, scale = parts
    return weight.to(torch.float32) * scale.to(torch.float32)
