"""Conditionings kept in files: safetensors with the context, and beside it what else an entry holds."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import torch
from safetensors.torch import save
from torch import Tensor

from sigmagraph.engine.errors import BadValue, CorruptFile
from sigmagraph.engine.graph.node import FileIn, Output, UiResult, node
from sigmagraph.engine.models.files.read import open_weights
from sigmagraph.engine.writing import write_new
from sigmagraph.nodes.support.naming import series
from sigmagraph.nodes.support.packs.conditioning import conditioning_of, conditioning_out
from sigmagraph.nodes.support.types import Conditioning, Engine

__all__ = ["NODES"]

CONTEXT, OPTIONS = "conditioning", "conditioning_options"


@node("ConditioningLoader", category="conditioning", display_name="Load Conditioning")
def conditioning_loader(*, conditioning_name: Annotated[str, FileIn("embeddings")], services: Engine) -> Conditioning:
    """Read a conditioning from models/embeddings, with all that was saved beside it."""
    path = services.path("embeddings", conditioning_name)
    file = open_weights(path)
    if CONTEXT not in file.weights:
        raise CorruptFile(path, f"holds no tensor '{CONTEXT}', so it is not a conditioning")
    tensors = {name: _single(stored.read()) for name, stored in file.weights.items()}
    context = tensors.pop(CONTEXT)
    if context.ndim != 3 or not context.numel():
        raise CorruptFile(path, f"has a context of shape {list(context.shape)}; expected [batch, tokens, width]")
    try:
        found = conditioning_of([[context, {**_grouped(tensors), **json.loads(file.metadata.get(OPTIONS, "{}"))}]])
        found.acts(1.0, lambda share: 1.0 - share)
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise CorruptFile(path, f"has options that no conditioning has ({error})") from error
    return found


@node(
    "SaveConditioning",
    category="conditioning",
    display_name="Save Conditioning",
    output_node=True,
    outputs=[Output("CONDITIONING", "conditioning")],
)
def save_conditioning(
    *, conditioning: Conditioning, filename_prefix: str = "conditioning/ComfyUI", services: Engine
) -> UiResult:
    """Write a conditioning of one entry to the output folder; from models/embeddings it can be loaded again."""
    if conditioning.further:
        found = f"{len(conditioning.entries)} entries"
        raise BadValue("conditioning", found, "one entry: save it before it is combined with others")
    context, options = conditioning_out(conditioning)[0]
    tensors, plain = {CONTEXT: context}, {}
    for name, value in options.items():
        if isinstance(value, bool | int | float | str):
            plain[name] = value
        elif value is not None:
            tensors |= _flat(name, value)
    apart = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    data = save(apart, {OPTIONS: json.dumps(plain)})  # which refuses tensors that share memory
    files = series(services.output_dir, filename_prefix, 0, 0, datetime.now().astimezone())
    write_new(files.folder, files.names(0, ".safetensors"), data)
    return UiResult(conditioning)


def _single(tensor: Tensor) -> Tensor:
    """A copy, in float32 where it has fractions."""
    return tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)


def _flat(name: str, value: Any) -> dict[str, Tensor]:
    """Tensors of an option by their names in the file. Raises `BadValue` for what is neither one nor a list of some."""
    if isinstance(value, Tensor):
        return {name: value}
    if isinstance(value, list | tuple) and value and all(isinstance(one, Tensor) for one in value):
        return {f"{name}.{place}": one for place, one in enumerate(value)}
    allowed = "tensors, lists of tensors, numbers, strings; ControlNets, hooks and areas are not saved"
    raise BadValue(f"conditioning: {name}", type(value).__name__, allowed)


def _grouped(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Tensors by their names; numbered ones are lists."""
    lists: dict[str, dict[int, Tensor]] = {}
    options: dict[str, Any] = {}
    for name, tensor in tensors.items():
        stem, _, number = name.rpartition(".")
        if stem and number.isascii() and number.isdigit():
            lists.setdefault(stem, {})[int(number)] = tensor
        else:
            options[name] = tensor
    return options | {name: [parts[at] for at in sorted(parts)] for name, parts in lists.items()}


NODES = (conditioning_loader, save_conditioning)
