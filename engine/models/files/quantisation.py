"""What a file says of how its matrices are quantised: ComfyUI's `comfy_quant` tensors, the header's table, marks.

Forms that are read are multiplied out in fp8.py. Every other form is refused by its name, with the way out.
"""

import json
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import torch

from sigmagraph.engine.errors import UnknownModel
from sigmagraph.engine.models.files.read import StoredTensor, WeightFile

QUANTISED_AS = ".comfy_quant"  # one JSON object a layer, in bytes
METADATA = "_quantization_metadata"  # the same for all layers, in the header
LARGEST_NOTE_BYTES = 4096
READ = frozenset(
    {"float8_e4m3fn", "float8_e4m3fn_rowwise", "float8_e4m3fn_blockwise", "float8_e5m2", "int8_tensorwise"}
    | {"int8_rowwise", "int8_blockwise"}
)
WAY_OUT = "take the file in float8, GGUF or 16 bits instead"
# by the end of a tensor's name, or a part of it: kinds of files that say nothing in their header
MARKS: tuple[tuple[str, str], ...] = (
    ("quant_state.bitsandbytes__nf4", "nf4 (bitsandbytes)"),
    ("quant_state.bitsandbytes__fp4", "fp4 (bitsandbytes)"),
    (".weight.absmax", "4 bits of bitsandbytes"),
    (".weight.SCB", "int8 of bitsandbytes"),
    (".wscales", "SVDQuant (nunchaku)"),
    (".weight_scale_2", "nvfp4"),
    (".weight_scalar", "mxfp8"),
)


def require_readable(file: WeightFile) -> None:
    """Raise `UnknownModel`, naming the form, if matrices are stored in one that is not read here."""
    for layer, said in _layers(file):
        form = said.get("format")
        if form not in READ:
            raise _refused(file, f"{layer} is stored as {form!r}")
        if said.get("convrot"):
            raise _refused(file, f"{layer} is rotated before it is rounded ({form} with convrot)")
    for mark, form in MARKS:
        if (name := next((name for name in file.weights if mark in name), None)) is not None:
            raise _refused(file, f"{name} says that it is stored as {form}")


def _refused(file: WeightFile, found: str) -> UnknownModel:
    return UnknownModel(f"{file.path}: {found}, which is not read here; {WAY_OUT}")


def _layers(file: WeightFile) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, stored in file.weights.items():
        if name.endswith(QUANTISED_AS):
            yield name.removesuffix(QUANTISED_AS), _note(file, name, stored)
    if METADATA in file.metadata:
        layers = _parsed(file, METADATA, file.metadata[METADATA]).get("layers", {})
        if not isinstance(layers, dict) or not all(isinstance(said, dict) for said in layers.values()):
            raise UnknownModel(f"{file.path}: the layers of metadata {METADATA} are not a table of JSON objects")
        yield from layers.items()


def _note(file: WeightFile, name: str, stored: StoredTensor) -> dict[str, Any]:
    if stored.dtype != torch.uint8 or prod(stored.shape) > LARGEST_NOTE_BYTES:
        raise UnknownModel(f"{file.path}: {name} is not JSON of at most {LARGEST_NOTE_BYTES} bytes")
    return _parsed(file, name, bytes(stored.read().flatten().tolist()))


def _parsed(file: WeightFile, name: str, text: str | bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnknownModel(f"{file.path}: {name} is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise UnknownModel(f"{file.path}: {name} is not a JSON object")
    return found
