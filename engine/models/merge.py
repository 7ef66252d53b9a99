"""Two values into one, tensor by tensor, or parts of one multiplied: a recipe of stored tensors, no network is whole.

Sums are float32. What the first value has and the second cannot change (skipped layers, guidance, hooks) stays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sigmagraph.engine.errors import TensorMismatch
from sigmagraph.engine.models.files.read import StoredTensor
from sigmagraph.engine.models.memory.recipe import Recipe
from sigmagraph.engine.models.memory.resident import listing
from sigmagraph.engine.models.text.clip import Clip
from sigmagraph.engine.models.value import Model

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Blend:
    """So much of the first tensor and so much of the second, in float32: what a stored tensor is combined by."""

    first: float
    second: float

    def __call__(self, parts: Sequence[Tensor]) -> Tensor:
        return parts[0].float() * self.first + parts[1].float() * self.second


@dataclass(frozen=True, slots=True)
class MergeShares:
    """How much of each network: `rule` alone, or by the longest of the prefixes that a tensor's name begins with."""

    rule: Blend
    prefixes: tuple[tuple[str, Blend], ...] = ()

    def of(self, name: str) -> Blend:
        """The blend of one tensor."""
        fitting = [(prefix, blend) for prefix, blend in self.prefixes if name.startswith(prefix)]
        return max(fitting, key=lambda fit: len(fit[0]))[1] if fitting else self.rule


def towards(ratio: float) -> Blend:
    """`ratio` of the first, the rest of the second."""
    return Blend(ratio, 1.0 - ratio)


def merged_models(one: Model, other: Model, shares: MergeShares) -> Model:
    """The first model with weights of both. Raises `TensorMismatch` for models of different sizes."""
    return replace(one, recipe=merged(one.recipe, other.recipe, shares))


def merged_clips(one: Clip, other: Clip, shares: MergeShares) -> Clip:
    """The first value's encoders, each with the second's weights where that has the same one."""
    theirs = other.patched
    made: dict[str, Any] = {
        name: _merged_encoder(encoder, theirs[name], shares) if name in theirs else encoder
        for name, encoder in one.patched.items()
    }
    return replace(one, encoders=made, patches={})


def _merged_encoder(one: Any, other: Any, shares: MergeShares) -> Any:
    projection = one.projection
    if projection is not None and other.projection is not None:
        projection = _tensor("text_projection.weight", projection, other.projection, shares)
    return one.with_weights(merged(one.recipe, other.recipe, shares), projection)


def merged(one: Recipe[M], other: Recipe[M], shares: MergeShares) -> Recipe[M]:
    """The recipe of a network between two. Each brings its adapters; further ones act on the result."""
    if one.ready is not None:
        raise TensorMismatch(f"{one.what}: a network that is no file's is not merged")
    left, right = one.weights, other.weights
    names = [name for name in left if name not in right or right[name].shape != left[name].shape]
    if names or len(left) != len(right):
        differing = listing("tensors that are not in both in one size", [*names, *(set(right) - set(left))])
        raise TensorMismatch(f"{one.what} and {other.what} are not of one architecture: {differing}")
    tensors = {name: _tensor(name, stored, right[name], shares) for name, stored in left.items()}
    what = f"{_named(one)} with {_named(other)}, {shares}"
    return replace(one, what=what, base=tensors, patches=(), parents=(one.key, other.key, shares))


def _named(recipe: Recipe[Any]) -> str:
    patches = [str(patch.identity) for patch in recipe.patches]
    return f"{recipe.what} {patches}" if patches else recipe.what


def _tensor(name: str, left: StoredTensor, right: StoredTensor, shares: MergeShares) -> StoredTensor:
    blend = shares.of(name)
    if (blend.first, blend.second) == (1.0, 0.0):
        return left
    if (blend.first, blend.second) == (0.0, 1.0):
        return right
    dtype = max((left.dtype, right.dtype), key=lambda dtype: dtype.itemsize)
    return _combined(left, dtype, [left, right], blend)


@dataclass(frozen=True, slots=True)
class Times:
    """So many times the tensor, in float32."""

    factor: float

    def __call__(self, parts: Sequence[Tensor]) -> Tensor:
        return parts[0].float() * self.factor


def multiplied_clip(clip: Clip, factors: Mapping[str, float]) -> Clip:
    """The encoders with each tensor whose name ends in one of the endings so many times itself."""
    made: dict[str, Any] = {name: _multiplied_encoder(encoder, factors) for name, encoder in clip.patched.items()}
    return replace(clip, encoders=made, patches={})


def _multiplied_encoder(encoder: Any, factors: Mapping[str, float]) -> Any:
    return encoder.with_weights(_multiplied(encoder.recipe, factors), encoder.projection)


def _multiplied(one: Recipe[M], factors: Mapping[str, float]) -> Recipe[M]:
    if one.ready is not None:
        raise TensorMismatch(f"{one.what}: a network that is no file's is not changed")
    rules = {
        name: Times(factor)
        for name in one.weights
        for ending, factor in factors.items()
        if factor != 1.0 and name.endswith(ending)
    }
    if not rules:
        return one
    tensors = {
        name: _combined(stored, stored.dtype, [stored], rules[name]) if name in rules else stored
        for name, stored in one.weights.items()
    }
    said = ", ".join(f"{ending} times {factor!r}" for ending, factor in factors.items() if factor != 1.0)
    return replace(one, what=f"{_named(one)}, {said}", base=tensors, patches=(), parents=(one.key, said))


def _combined(
    like: StoredTensor, dtype: torch.dtype, parts: Sequence[StoredTensor], rule: Blend | Times
) -> StoredTensor:
    kept = dtype if dtype.itemsize > 1 else torch.float16
    return StoredTensor(like.shape, kept, lambda: rule([part.read() for part in parts]), tuple(parts), rule)
