"""Products of float8 weights as they are stored, where a device's hardware multiplies float8 (Micikevicius 2022,
arXiv:2209.05433).

The input is rounded to float8 as well, every row to a scale of its own or all to one: that is the error, about 4 % of a
single product with random input, 1 % of a picture's latent. Half the bytes are read and twice as fast multiplied.
"""

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor, nn

from sigmagraph.engine.models.files.fp8 import scaled_bytes
from sigmagraph.engine.models.files.read import StoredTensor
from sigmagraph.engine.models.memory.device import capability

LARGEST = 448.0  # of float8_e4m3fn
LEAST_SCALE = 1e-12
WITH_PRODUCTS = (8, 9)  # CUDA's capability
BY_ROW = (9, 0)  # where a scale for every row costs nothing
MULTIPLE = 16  # of widths, as the kernels want


class Float8Linear(nn.Module):
    """A linear layer whose weight [out, in] is float8, times `scale` (one, or one for each output).

    `by_row`: the input gets a scale for each of its rows, which takes one pass over it, else one for all.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    scale: Tensor

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None, *, by_row: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False) if bias is not None else None
        self.by_row = by_row
        kept = scale.float().reshape(1, -1).expand(1, weight.shape[0]).contiguous() if by_row else scale.float()
        self.register_buffer("scale", kept, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """[..., in] -> [..., out], in the precision of the input."""
        rows = tokens.flatten(0, -2)
        largest = rows.abs().amax(dim=1, keepdim=True) if self.by_row else rows.abs().amax()
        scale = (largest.float() / LARGEST).clamp(min=LEAST_SCALE)
        stored = (rows / scale.to(rows.dtype)).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
        product: Tensor = torch._scaled_mm(
            stored,
            self.weight.t(),
            scale_a=scale,
            scale_b=self.scale,
            bias=self.bias,
            out_dtype=tokens.dtype,
            use_fast_accum=True,
        )
        shaped: Tensor = product.unflatten(0, tokens.shape[:-1])
        return shaped


def multiplies_float8(device: torch.device) -> bool:
    """Whether products of float8 run on the device's own hardware."""
    return device.type == "cuda" and torch.version.hip is None and capability(device) >= WITH_PRODUCTS


def with_products(module: nn.Module, weights: Mapping[str, StoredTensor], device: torch.device) -> set[str]:
    """Put float8 layers in place of the hollow linear ones whose weights are stored so; the names of their tensors.

    The layers' biases are left to whoever fills the module.
    """
    by_row, done = device.type != "cuda" or capability(device) >= BY_ROW, set[str]()
    for name, stored in weights.items():
        place, _, leaf = name.rpartition(".")
        found = scaled_bytes(stored) if leaf == "weight" else None
        layer = module.get_submodule(place)
        if found is None or not isinstance(layer, nn.Linear) or any(side % MULTIPLE for side in stored.shape):
            continue
        if not by_row and found[1] is not None and prod(found[1].shape) > 1:
            continue  # a scale for each row of the weight, and one for all of the input: no kernel does that
        small, scale = (stored_part.on(device) if stored_part is not None else None for stored_part in found)
        assert small is not None
        if small.device.type == "cpu" and stored.combine is None:
            small = small.clone()  # not a view into the file, whose pages may go
        one = torch.ones((), device=device) if scale is None else scale
        module.set_submodule(place, Float8Linear(small, one, layer.bias, by_row=by_row))
        done.add(name)
    return done
