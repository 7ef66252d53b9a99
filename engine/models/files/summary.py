"""What a weight file is, in words, by its header: parts, family, precision."""

from collections import Counter
from math import isqrt, prod
from pathlib import Path
from typing import NamedTuple

import torch

from sigmagraph.engine.models.controlnet import HINT_KINDS
from sigmagraph.engine.models.files.detect import Parts, control_type, find_parts
from sigmagraph.engine.models.files.fp8 import FLOAT8, microscaled_as, scaled_parts
from sigmagraph.engine.models.files.ggml import Dequantise
from sigmagraph.engine.models.files.read import StoredTensor, Weights, open_weights
from sigmagraph.engine.models.spec import OTHER_SIZE, family_of


class FileSummary(NamedTuple):
    """`holds`: the parts. `family`: which model of SD3's. `precision`: what most numbers are stored in."""

    holds: str
    family: str
    precision: str


def summarise(path: Path) -> FileSummary:
    """Only the header is read, and a ControlNet's number. Raises an `EngineError` for a file that is no such model."""
    file = open_weights(path)
    parts = find_parts(file)
    holds = parts.listing()
    if parts.control is not None:
        number = control_type(file.weights)
        kind = HINT_KINDS.get(number) if number is not None else None
        holds += f" for {kind}" if kind else ""
    return FileSummary(holds, _family(parts), _precision(parts))


def _family(parts: Parts) -> str:
    if parts.mmdit is not None:
        width, side = _rows(parts.mmdit, "x_embedder.proj.weight"), isqrt(_table(parts.mmdit))
        found = family_of(width, side, any(".x_block.attn2." in name for name in parts.mmdit))
        found = f"SD3's architecture, width {width}" if found == OTHER_SIZE else found
        return f"{found} or Large Turbo" if found.endswith("Large") else found
    return "SD3" if parts else ""


def _rows(weights: Weights, name: str) -> int:
    return weights[name].shape[0] if name in weights and weights[name].shape else 0


def _table(weights: Weights) -> int:
    shape = weights["pos_embed"].shape if "pos_embed" in weights else ()
    return shape[1] if len(shape) == 3 else 0


def _precision(parts: Parts) -> str:
    """Each precision once, the diffusion model's first."""
    tables = (parts.mmdit, parts.control, parts.vae, parts.tiny_vae, *parts.encoders.values())
    return ", ".join(dict.fromkeys(_stored_as(table) for table in tables if table))


def _stored_as(weights: Weights) -> str:
    blocks = [kept for tensor in weights.values() if (kept := _blocks(tensor)) is not None]
    if blocks:
        return f"GGUF {max(set(blocks), key=blocks.count)}"
    small = [form for tensor in weights.values() if (form := microscaled_as(tensor)) is not None]
    if small:
        return max(set(small), key=small.count)
    dtype = _usual_dtype(weights)
    scaled = any(scaled_parts(tensor) is not None for tensor in weights.values()) if dtype in FLOAT8 else False
    return f"{str(dtype).removeprefix('torch.')}{' scaled' if scaled or dtype == torch.int8 else ''}"


def _usual_dtype(weights: Weights) -> torch.dtype:
    """What most of the numbers are stored in: tables alone may be large, and of 16 bits where all else has 8."""
    elements = Counter[torch.dtype]()
    for tensor in weights.values():
        elements[tensor.dtype] += prod(tensor.shape)
    return elements.most_common(1)[0][0]


def _blocks(tensor: StoredTensor) -> str | None:
    if isinstance(tensor.combine, Dequantise):
        return tensor.combine.format.name
    return next((kept for source in tensor.sources if (kept := _blocks(source)) is not None), None)
