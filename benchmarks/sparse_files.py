"""Weight files as large as published ones that take little room: header in full, data a hole but for what is asked."""

import json
from collections.abc import Mapping
from pathlib import Path
from re import Pattern
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor

from sigmagraph.engine.models.files.ggml import FORMATS, Format
from sigmagraph.engine.models.files.header import DTYPES

__all__ = ["Tensors", "filled", "quantised_blocks", "random_blocks", "safetensors", "shards"]

Tensors = Mapping[str, tuple[str, tuple[int, ...], bytes]]
"""By name: dtype as the format has it, shape, and the bytes that are not zero."""
BYTES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "F8_E8M0": 1}
SHARD_BYTES = 5e9
PATTERN = 1 << 16  # elements, or blocks, that are repeated
SCALES: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2)),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q6_K": (208,),
}
"""Where a block has its float16 scales; at 0 otherwise."""


def safetensors(folder: Path, tensors: Tensors, name: str = "layout.safetensors") -> Path:
    """One file, wide items first, so that every tensor lies where it can be used."""
    head: dict[str, Any] = {}
    at, filled = 0, dict[int, bytes]()
    for key, (dtype, shape, content) in sorted(tensors.items(), key=lambda item: (item[1][1] == (), -wide(item[1]))):
        head[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size(tensors[key])]}
        filled |= {at: content} if content else {}
        at += size(tensors[key])
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    path = folder / name
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        data = file.tell()
        file.truncate(data + at)
        for start, content in filled.items():
            file.seek(data + start)
            file.write(content)
    return path


def shards(folder: Path, tensors: Tensors) -> Path:
    """Files of at most 5 GB and the index that diffusers writes beside them; what is opened is the folder."""
    parts: list[dict[str, tuple[str, tuple[int, ...], bytes]]] = [{}]
    for name, told in tensors.items():
        if sum(map(size, parts[-1].values())) + size(told) > SHARD_BYTES:
            parts.append({})
        parts[-1][name] = told
    stem, index = "diffusion_pytorch_model", dict[str, str]()
    for number, part in enumerate(parts, 1):
        path = safetensors(folder, part, f"{stem}-{number:05}-of-{len(parts):05}.safetensors")
        index |= dict.fromkeys(part, path.name)
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"weight_map": index}), "utf-8")
    return folder


def quantised_blocks(folder: Path, tensors: Tensors) -> Path:
    """A GGUF file with the header of the `gguf` package; dtypes are its names. T5 is told by its first tensor."""
    path = folder / "layout.gguf"
    writer = gguf.GGUFWriter(path, "t5encoder" if "token_embd.weight" in tensors else "sd3")
    for name, (dtype, shape, _) in tensors.items():
        kind = gguf.GGMLQuantizationType[dtype]
        block, stored = gguf.GGML_QUANT_SIZES[kind]
        lying = (*shape[:-1], shape[-1] // block * stored)
        writer.add_tensor_info(name, lying, np.dtype(np.uint8), int(np.prod(lying)), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    held = gguf.GGUFWriter.ggml_pad
    at = held(path.stat().st_size, writer.data_alignment)
    with path.open("r+b") as file:
        for part in writer.tensors:
            for name, info in part.items():
                file.seek(at)
                file.write(tensors[name][2])
                at += held(info.nbytes, writer.data_alignment)
        file.truncate(at)
    return path


def filled(tensors: Tensors, names: Pattern[str]) -> Tensors:
    """The same, with ordinary numbers in the tensors that `names` finds and nothing is in."""
    return {
        name: (dtype, shape, content or (numbers(dtype, shape) if names.search(name) else b""))
        for name, (dtype, shape, content) in tensors.items()
    }


def numbers(dtype: str, shape: tuple[int, ...]) -> bytes:
    """Normally distributed numbers, or blocks or integers of any kind, that repeat."""
    count = torch.Size(shape).numel()
    if form := next((known for known in FORMATS.values() if known.name == dtype), None):
        made, size_bytes = random_blocks(form, PATTERN), count // form.size * form.bytes_
    else:
        made, size_bytes = _numbers(DTYPES[dtype]), count * DTYPES[dtype].itemsize
    raw = made.view(torch.uint8).numpy().tobytes()
    return (raw * (size_bytes // len(raw) + 1))[:size_bytes]


def _numbers(dtype: torch.dtype) -> Tensor:
    if dtype == torch.float8_e8m0fnu:
        return torch.randint(120, 130, (PATTERN,), dtype=torch.uint8)
    if dtype in (torch.uint8, torch.int8):
        return torch.randint(0, 256, (PATTERN,), dtype=torch.uint8)
    return (torch.randn(PATTERN) * 0.02).to(dtype)


def random_blocks(form: Format, count: int) -> Tensor:
    """Blocks [count, bytes] whose scales are ordinary numbers."""
    made = torch.randint(0, 256, (count, form.bytes_), dtype=torch.uint8)
    for at in SCALES.get(form.name, (0,)):
        made[:, at : at + 2] = (torch.randn(count, 1) * 0.01).half().view(torch.uint8)
    return made


def wide(told: tuple[str, tuple[int, ...], bytes]) -> int:
    """Bytes of an item."""
    return BYTES[told[0]]


def size(told: tuple[str, tuple[int, ...], bytes]) -> int:
    """Bytes of a tensor."""
    return wide(told) * torch.Size(told[1]).numel()
