"""What a file says of how its matrices are quantised: ComfyUI's `comfy_quant` tensors, the header's table, marks.

Forms that are read are multiplied out in fp8.py. Every other form is refused by its name, with the way out. What the
header says of a layer is made a tensor beside it, as newer files have it, so that one place is asked.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import torch

from sigmagraph.engine.errors import TensorMismatch, UnknownModel
from sigmagraph.engine.models.files.read import StoredTensor, WeightFile, Weights, bytes_of

QUANTISED_AS = ".comfy_quant"  # one JSON object a layer, in bytes
METADATA = "_quantization_metadata"  # the same for all layers, in the header
LARGEST_NOTE_BYTES = 4096
LARGEST_GROUP = 4096
READ = frozenset(
    {"float8_e4m3fn", "float8_e4m3fn_rowwise", "float8_e4m3fn_blockwise", "float8_e5m2", "int8_tensorwise"}
    | {"int8_rowwise", "int8_blockwise", "mxfp8", "nvfp4"}
)
ROTATED, GROUP, USUAL_GROUP = "convrot", "convrot_groupsize", 256
SAYS_NOTHING = "nvfp4 without a word on how its scales lie (ComfyUI's files have one)"
WAY_OUT = "take the file in float8, GGUF or 16 bits instead"
# by the end of a tensor's name, or a part of it: kinds of files that say nothing in their header
MARKS: tuple[tuple[str, str], ...] = (
    ("quant_state.bitsandbytes__nf4", "nf4 (bitsandbytes)"),
    ("quant_state.bitsandbytes__fp4", "fp4 (bitsandbytes)"),
    (".weight.absmax", "4 bits of bitsandbytes"),
    (".weight.SCB", "int8 of bitsandbytes"),
    (".wscales", "SVDQuant (nunchaku)"),
    (".weight_scalar", "mxfp8 of another kind than ComfyUI's"),
)


def readable(file: WeightFile) -> WeightFile:
    """The file with a note beside every layer that its header speaks of; the header's own table, which names layers as
    this file does, is gone then.

    Raises `UnknownModel`, naming the form, if matrices are stored in one that is not read here.
    """
    notes: dict[str, StoredTensor] = {}
    for layer, said in _layers(file):
        form = said.get("format")
        if not isinstance(form, str) or form not in READ:
            raise _refused(file, f"{layer} is stored as {form!r}")
        if layer + ".weight" not in file.weights:
            raise UnknownModel(f"{file.path}: {layer} is said to be stored as {form!r}, and has no weight here")
        notes[layer + QUANTISED_AS] = _note_of(said)
    for mark, form in MARKS:
        if (name := next((name for name in file.weights if mark in name), None)) is not None:
            raise _refused(file, f"{name} says that it is stored as {form}")
    for name in file.weights:
        if name.endswith(".weight_scale_2") and name.removesuffix(".weight_scale_2") + QUANTISED_AS not in notes:
            raise _refused(file, f"{name} says that it is stored as {SAYS_NOTHING}")
    if METADATA not in file.metadata:
        return file
    metadata = {name: value for name, value in file.metadata.items() if name != METADATA}
    return replace(file, weights={**notes, **file.weights}, metadata=metadata)


def rotated_in(weights: Weights, layer: str) -> int | None:
    """The size of the groups that a layer's rows were rotated in before they were rounded; None if they were not."""
    stored = weights.get(layer + QUANTISED_AS)
    said = json.loads(bytes_of(stored)) if stored is not None else {}
    if not said.get(ROTATED):
        return None
    group = said.get(GROUP, USUAL_GROUP)
    if type(group) is not int or not 1 <= group <= LARGEST_GROUP:
        raise TensorMismatch(f"{layer}: {GROUP} {group!r} is not a whole number from 1 to {LARGEST_GROUP}")
    return group


def _note_of(said: Mapping[str, Any]) -> StoredTensor:
    note = torch.tensor(list(json.dumps(said).encode()), dtype=torch.uint8)
    return StoredTensor(tuple(note.shape), note.dtype, lambda: note)


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
    return _parsed(file, name, bytes_of(stored))


def _parsed(file: WeightFile, name: str, text: str | bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnknownModel(f"{file.path}: {name} is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise UnknownModel(f"{file.path}: {name} is not a JSON object")
    return found
