"""Weights wholly in one place: views of the mapped file where it holds what is needed, else one copy of each tensor."""

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sigmagraph.engine.errors import TensorMismatch
from sigmagraph.engine.models.files.fp8 import is_rounded
from sigmagraph.engine.models.files.read import StoredTensor, Weights, is_view
from sigmagraph.engine.models.memory.device import Placement, holds

log = logging.getLogger(__name__)
M = TypeVar("M", bound=nn.Module)
Shared = Callable[[StoredTensor], nn.Parameter | None]
LISTED = 8


def hollow(build: Callable[[], M]) -> M:
    """The module that `build` makes, without memory."""
    with torch.device("meta"):
        return build()


def expected(build: Callable[[], nn.Module]) -> Mapping[str, tuple[int, ...]]:
    """Names and shapes of what the module that `build` makes would hold.

    Those of a `partial` are remembered by its function and arguments, which must be hashable: a file that is opened
    again, or another of the same sizes, needs no second module to ask.
    """
    if isinstance(build, partial):
        return _remembered(build.func, build.args, tuple(sorted(build.keywords.items())))
    return {name: tuple(tensor.shape) for name, tensor in hollow(build).state_dict().items()}


@lru_cache(maxsize=16)
def _remembered(
    function: Any, given: tuple[Any, ...], named: tuple[tuple[str, Any], ...]
) -> Mapping[str, tuple[int, ...]]:
    return expected(lambda: function(*given, **dict(named)))


def filled(module: M, parameters: Mapping[str, nn.Parameter]) -> M:
    """The module with every tensor in its place, ready for inference."""
    module.requires_grad_(False).load_state_dict(parameters, assign=True)  # before: tensors made in inference mode
    return module.eval()


def parameter(stored: StoredTensor, placement: Placement, *, maps: bool) -> nn.Parameter:
    """One tensor where it belongs: a view into the file where `maps` and it is there as needed, else a copy."""
    if maps and placement.device.type == "cpu" and stored.dtype == placement.dtype and is_view(stored):
        return nn.Parameter(stored.read(), requires_grad=False)
    pieces = [piece.read() for piece in stored.pieces()]
    if not lies(stored, placement.device):
        return nn.Parameter(stored.read().to(placement.dtype).to(placement.device), requires_grad=False)
    values = stored.expanded(iter([piece.to(placement.device) for piece in pieces]))
    is_of_the_file = any(values.untyped_storage().data_ptr() == piece.untyped_storage().data_ptr() for piece in pieces)
    return nn.Parameter(values.to(placement.device, placement.dtype, copy=is_of_the_file), requires_grad=False)


def lies(stored: StoredTensor, device: torch.device) -> bool:
    """Whether what is stored can be moved to the device as it is, and grow there."""
    has_float8 = holds(device, torch.float8_e4m3fn)
    return all(holds(device, piece.dtype) for piece in stored.pieces()) and (has_float8 or not is_rounded(stored))


def parameters(
    weights: Weights, placement: Placement, *, maps: bool = False, shared: Shared = lambda _: None
) -> dict[str, nn.Parameter]:
    """Every tensor, one after another; one stored tensor that carries two names is one parameter."""
    made: dict[StoredTensor, nn.Parameter] = {}
    for stored in weights.values():
        if stored not in made:
            known = shared(stored)
            made[stored] = parameter(stored, placement, maps=maps) if known is None else known
    return {name: made[stored] for name, stored in weights.items()}


def absent(stored: StoredTensor, placement: Placement) -> nn.Parameter:
    """What stands where a tensor is not: its shape and dtype, no memory."""
    return nn.Parameter(torch.empty(stored.shape, dtype=placement.dtype, device="meta"), requires_grad=False)


def check_tensors(what: str, expected: Mapping[str, tuple[int, ...]], weights: Weights) -> None:
    """Raise `TensorMismatch`, listing what is missing, misshapen or surplus, unless all that is expected is there.

    Tensors nobody expects are harmless alone: they are told in the log.
    """
    misshapen = [
        f"{name} {list(weights[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in weights and weights[name].shape != shape
    ]
    surplus = listing("surplus", (name for name in weights if name not in expected))
    problems = [
        listing("missing", (name for name in expected if name not in weights)),
        listing("misshapen", misshapen),
    ]
    if any(problems):
        raise TensorMismatch(f"{what}: " + "; ".join(problem for problem in (*problems, surplus) if problem))
    if surplus:
        log.warning("%s: left out: %s", what, surplus)


def listing(kind: str, names: Iterable[str]) -> str:
    """`3 missing: a, b, c`, or nothing where there is nothing."""
    found = sorted(names)
    if not found:
        return ""
    rest = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return f"{len(found)} {kind}: {', '.join(found[:LISTED])}{rest}"


def tensors_of(module: nn.Module) -> Iterable[Tensor]:
    """What a module holds: parameters and buffers, each once."""
    return {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}.values()
