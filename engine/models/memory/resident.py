"""Weights wholly in one place: each stored tensor is read from the file once, straight to its device and precision."""

import copy
from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import TypeVar

import torch
from torch import Tensor, nn

from sigmagraph.engine.errors import TensorMismatch
from sigmagraph.engine.models.files.read import StoredTensor, Weights
from sigmagraph.engine.models.memory.device import Placement, require_room

M = TypeVar("M", bound=nn.Module)
LISTED = 8


def resident(what: str, build: Callable[[], M], weights: Weights, placement: Placement) -> M:
    """The module that `build` makes, filled with exactly `weights`.

    It is built on the meta device, so nothing is allocated before names, shapes and room are checked.
    Raises `TensorMismatch` (missing, surplus and misshapen tensors listed) or `OutOfMemory`.
    """
    hollow = [name for name, tensor in weights.items() if 0 in tensor.shape]
    if hollow:
        raise TensorMismatch(f"{what}: {_listing('without elements', hollow)}")
    try:
        with torch.device("meta"):
            module = build()
    except (ValueError, IndexError, ArithmeticError, RuntimeError) as error:
        raise TensorMismatch(f"{what}: tensors of these sizes form no such network ({error})") from error
    check_tensors(what, {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}, weights)
    size_bytes = sum(prod(tensor.shape) for tensor in weights.values()) * placement.dtype.itemsize
    require_room(what, size_bytes, placement.device)
    module.load_state_dict(_copied(weights, placement), assign=True)
    return module.requires_grad_(False).eval()


def replaced(module: M, tensors: Mapping[str, Tensor]) -> M:
    """A module of its own with these parameters in place of the old; all other tensors are shared, none is copied."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    twin = copy.deepcopy(module, shared)
    for name, tensor in tensors.items():
        owner, _, leaf = name.rpartition(".")
        setattr(twin.get_submodule(owner), leaf, nn.Parameter(tensor, requires_grad=False))
    return twin


def _copied(weights: Weights, placement: Placement) -> dict[str, Tensor]:
    copies: dict[StoredTensor, Tensor] = {}
    for tensor in weights.values():
        if tensor not in copies:  # one stored tensor may carry two names
            copies[tensor] = tensor.read().to(placement.device, placement.dtype, copy=True)
    return {name: copies[tensor] for name, tensor in weights.items()}


def check_tensors(what: str, expected: Mapping[str, tuple[int, ...]], weights: Weights) -> None:
    """Raise `TensorMismatch`, listing what is missing, surplus or misshapen, unless names and shapes are equal."""
    misshapen = [
        f"{name} {list(weights[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in weights and weights[name].shape != shape
    ]
    problems = [
        _listing("missing", (name for name in expected if name not in weights)),
        _listing("surplus", (name for name in weights if name not in expected)),
        _listing("misshapen", misshapen),
    ]
    if any(problems):
        raise TensorMismatch(f"{what}: " + "; ".join(problem for problem in problems if problem))


def _listing(kind: str, names: Iterable[str]) -> str:
    found = sorted(names)
    if not found:
        return ""
    rest = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return f"{len(found)} {kind}: {', '.join(found[:LISTED])}{rest}"
