"""Scaled files: every linear weight is a float8 or int8 tensor times a float32 scale stored beside it.

The scale is `X.scale_weight`, or in ComfyUI's newer form `X.weight_scale` beside `X.comfy_quant`. It is one number, one
a row, or one a block: each of its sides divides that of the weight. In that form there are mxfp8 and nvfp4 too
(microscaled.py), and int8 rotated before it was rounded. The weights are multiplied out when they are read, so the rest
of the loader sees ordinary tensors. Biases keep their stored precision (ComfyUI rounds them to float8 on load; images
made from such files differ slightly for that).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from sigmagraph.engine.errors import TensorMismatch
from sigmagraph.engine.models.files.ggml import Dequantise
from sigmagraph.engine.models.files.header import E8M0
from sigmagraph.engine.models.files.microscaled import Microscaled, Rotate, hadamard
from sigmagraph.engine.models.files.quantisation import QUANTISED_AS, rotated_in
from sigmagraph.engine.models.files.read import Combine, StoredTensor, Weights
from sigmagraph.engine.models.files.rename import derived

log = logging.getLogger(__name__)
MARKER = "scaled_fp8"
SCALE = ".scale_weight"
SCALES = (SCALE, ".weight_scale")
SCALE_OF_ALL = ".weight_scale_2"  # of nvfp4, beside the scales of its blocks
NOT_WEIGHTS = (*SCALES, SCALE_OF_ALL, ".scale_input", ".input_scale", QUANTISED_AS, MARKER)
NOT_LAYERS = ("relative_attention_bias.weight", "shared.weight", "embed_tokens.weight", "embedding.weight")  # tables
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)


def multiplied_out(weights: Weights) -> dict[str, StoredTensor]:
    """`weights` without markers and scales; each scaled weight reads as its float32 product."""
    plain = {name: tensor for name, tensor in weights.items() if not name.endswith(NOT_WEIGHTS)}
    for scale_name in (name for name in weights if name.endswith(SCALES)):
        name = scale_name.rpartition(".")[0] + ".weight"
        if name in plain:
            plain[name] = _grown(name, weights, weights[scale_name])
    bare = [name for name, tensor in plain.items() if _lacks_scale(name, tensor)]
    if bare and any(scaled_parts(tensor) is not None for tensor in plain.values()):
        log.warning(
            "%d float8 matrices have no scale, %s first; others do: they are taken as they are", len(bare), bare[0]
        )
    for note in (name for name in weights if name.endswith(QUANTISED_AS)):
        layer = note.removesuffix(QUANTISED_AS)
        if layer + ".weight" in plain and not any(layer + scale in weights for scale in SCALES):
            raise TensorMismatch(f"{layer} is quantised, as its comfy_quant says, and its weight_scale is missing")
    return plain


def _lacks_scale(name: str, stored: StoredTensor) -> bool:
    is_matrix = name.endswith(".weight") and len(stored.shape) == 2 and stored.combine is None
    return is_matrix and stored.dtype in FLOAT8 and not name.endswith(NOT_LAYERS)


def are_numbers(stored: StoredTensor) -> bool:
    """Whether it reads as numbers that mean something: integers do only by a scale or in GGUF's blocks."""
    if stored.combine is None:
        return stored.dtype.is_floating_point
    makes_numbers = stored.combine is _product or isinstance(stored.combine, (Microscaled, Dequantise))
    return makes_numbers or all(map(are_numbers, stored.sources))


def _grown(name: str, weights: Weights, scale: StoredTensor) -> StoredTensor:
    """One scaled weight as its float32 values. What form it has is told by what lies beside it, and by its dtypes."""
    weight, layer = weights[name], name.removesuffix(".weight")
    if weight.dtype == torch.uint8:
        if layer + SCALE_OF_ALL not in weights:
            raise TensorMismatch(f"{name} is stored as nvfp4, whose {layer + SCALE_OF_ALL} is missing")
        return _microscaled(name, Microscaled("nvfp4"), weight, scale, weights[layer + SCALE_OF_ALL])
    if scale.dtype in (torch.uint8, E8M0):
        return _microscaled(name, Microscaled("mxfp8"), weight, scale)
    product = derived(name, [weight, scale], _product)
    group = rotated_in(weights, layer)
    if group is None:
        return product
    try:
        hadamard(group, torch.device("cpu"))
    except ValueError as error:
        raise TensorMismatch(f"{name}: {error}") from None
    if len(product.shape) != 2 or product.shape[1] % group:
        raise TensorMismatch(f"{name}: a shape of {list(product.shape)} does not combine with groups of {group}")
    return _made(product.shape, product.dtype, Rotate(group), product)


def _microscaled(name: str, combine: Microscaled, *sources: StoredTensor) -> StoredTensor:
    try:
        shape = combine.shape_of([source.shape for source in sources])
    except ValueError as error:
        shapes = ", ".join(str(list(source.shape)) for source in sources)
        raise TensorMismatch(f"{name}: tensors of shapes {shapes} do not combine to {combine.form} ({error})") from None
    return _made(shape, sources[0].dtype, combine, *sources)


def microscaled_as(stored: StoredTensor) -> str | None:
    """`mxfp8` or `nvfp4`, for a tensor that is made of such."""
    if isinstance(stored.combine, Microscaled):
        return stored.combine.form
    return next((form for source in stored.sources if (form := microscaled_as(source))), None)


@dataclass(frozen=True, slots=True)
class Rounded:
    """Rounds to a float8 precision that the result is kept in: what comes out is small, what goes in need not be.

    A second part is a scale to divide by before.
    """

    dtype: torch.dtype

    def __call__(self, parts: Sequence[Tensor]) -> Tensor:
        return parts[0].to(self.dtype) if len(parts) == 1 else (parts[0].float() / parts[1]).to(self.dtype)


@dataclass(frozen=True, slots=True)
class Scale(Rounded):
    """The scale that uses a float8 precision's whole range: the largest magnitude over the largest float8."""

    def __call__(self, parts: Sequence[Tensor]) -> Tensor:
        return (parts[0].float().abs().amax() / torch.finfo(self.dtype).max).clamp(min=torch.finfo(torch.float32).tiny)


def rounded(weights: Weights, dtype: torch.dtype) -> dict[str, StoredTensor]:
    """The weights with every matrix of a block rounded to a float8 precision; norms, biases and tables stay."""
    return {
        name: _in_8_bits(tensor, dtype) if _is_block_matrix(name, tensor) else tensor
        for name, tensor in weights.items()
    }


def scaled(weights: Weights, dtype: torch.dtype = torch.float8_e4m3fn) -> dict[str, StoredTensor]:
    """The same with a scale for each matrix, as scaled float8 files have; what is small already stays as it is."""
    return {
        name: _scaled(tensor, dtype) if _is_block_matrix(name, tensor) and not is_small(tensor) else tensor
        for name, tensor in weights.items()
    }


def _scaled(stored: StoredTensor, dtype: torch.dtype) -> StoredTensor:
    scale = _made((), torch.float32, Scale(dtype), stored)
    return _made(stored.shape, dtype, _product, _made(stored.shape, dtype, Rounded(dtype), stored, scale), scale)


def _made(shape: tuple[int, ...], dtype: torch.dtype, combine: Combine, *sources: StoredTensor) -> StoredTensor:
    return StoredTensor(shape, dtype, lambda: combine([source.read() for source in sources]), sources, combine)


def _is_block_matrix(name: str, stored: StoredTensor) -> bool:
    return name.startswith("joint_blocks.") and name.endswith(".weight") and len(stored.shape) == 2


def _in_8_bits(stored: StoredTensor, dtype: torch.dtype) -> StoredTensor:
    if stored.dtype == dtype and stored.combine is None:
        return stored
    return _made(stored.shape, dtype, Rounded(dtype), stored)


def scaled_parts(stored: StoredTensor) -> tuple[StoredTensor, StoredTensor] | None:
    """The float8 matrix and its scale, of a tensor that is their product."""
    if stored.combine is not _product or stored.sources[0].dtype not in FLOAT8:
        return None
    return stored.sources[0], stored.sources[1]


def is_rounded(stored: StoredTensor) -> bool:
    """Whether it, or what it is made of, is rounded when it is read: so it should be read once."""
    return isinstance(stored.combine, Rounded) or any(map(is_rounded, stored.sources))


def roundings(weights: Weights) -> frozenset[Rounded]:
    """How tensors of a table are rounded when they are read: each way once."""
    found, waiting = set[Rounded](), list(weights.values())
    while waiting:
        stored = waiting.pop()
        found |= {stored.combine} if isinstance(stored.combine, Rounded) else set()
        waiting += stored.sources
    return frozenset(found)


def is_small(stored: StoredTensor) -> bool:
    """Whether a tensor is kept in 8 bits or less an element, or made of such."""
    return packed_bytes(stored) < 2 * prod(stored.shape)


def packed_bytes(stored: StoredTensor) -> int:
    """Bytes that it takes as `packed`: pieces as they are stored, roundings rounded."""
    if stored.combine is None or isinstance(stored.combine, Rounded):
        return prod(stored.shape) * stored.dtype.itemsize
    return sum(map(packed_bytes, stored.sources))


def scaled_bytes(stored: StoredTensor) -> tuple[StoredTensor, StoredTensor | None] | None:
    """A float8 tensor's bytes and their scale, if it has one; None for anything else, or a scale of another form."""
    if stored.combine is not _product:
        is_plain = stored.combine is None or isinstance(stored.combine, Rounded)
        return (stored, None) if is_plain and stored.dtype == torch.float8_e4m3fn else None
    small, scale = stored.sources
    is_by_row = prod(scale.shape) == stored.shape[0] == scale.shape[0] if scale.shape else False
    if small.dtype != torch.float8_e4m3fn or not (prod(scale.shape) == 1 or is_by_row):
        return None
    return small, scale


def packed(stored: StoredTensor, device: torch.device) -> StoredTensor:
    """The same tensor with its small form on a device, from where it grows when it is read."""
    if stored.combine is None or isinstance(stored.combine, Rounded):
        kept = stored.on(device)
        kept = kept.clone() if stored.combine is None and kept.device.type == "cpu" else kept
        return StoredTensor(stored.shape, stored.dtype, lambda: kept)
    return _made(stored.shape, stored.dtype, stored.combine, *(packed(source, device) for source in stored.sources))


def _product(parts: Sequence[Tensor]) -> Tensor:
    weight, scale = parts[0].to(torch.float32), parts[1].to(torch.float32)
    if scale.numel() == 1:
        return weight * scale.reshape(())
    scale = scale.reshape(scale.shape + (1,) * (weight.ndim - scale.ndim))
    blocks = [size for side, count in zip(weight.shape, scale.shape, strict=True) for size in (count, side // count)]
    spread = scale.reshape([size for count in scale.shape for size in (count, 1)])
    return (weight.reshape(blocks) * spread).reshape(weight.shape)
