"""Adapters (LoRA, LoHa, LoKr, DoRA, full differences): reading them and the arithmetic of merging one into a weight.

Merging is float32 throughout. The factor alpha / rank comes from the file's tensors; `lora_alpha` in a header is not
used, as in ComfyUI. What the keys mean in a network is in adapter_keys.py.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from sigmagraph.engine.errors import TensorMismatch, UnknownModel, is_out_of_memory
from sigmagraph.engine.models.files.adapter_keys import encoder_keys, mmdit_keys
from sigmagraph.engine.models.files.read import FileState, StoredTensor, Weights, open_weights
from sigmagraph.engine.models.files.rename import ParameterSlot

# Suffix of a tensor's name -> its role. Longer suffixes come first where one ends in another.
ROLES: tuple[tuple[str, str], ...] = (
    *(
        (suffix, "up")
        for suffix in (".lora_up.weight", "_lora.up.weight", ".lora.up.weight", ".lora_linear_layer.up.weight")
    ),
    *((suffix, "up") for suffix in (".lora_B.default.weight", ".lora_B.weight", ".lora_B")),
    *(
        (s, "down")
        for s in (".lora_down.weight", "_lora.down.weight", ".lora.down.weight", ".lora_linear_layer.down.weight")
    ),
    *((suffix, "down") for suffix in (".lora_A.default.weight", ".lora_A.weight", ".lora_A")),
    (".lora_mid.weight", "mid"),
    *((f".hada_{role}", f"hada_{role}") for role in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")),
    *((f".lokr_{role}", f"lokr_{role}") for role in ("w1_a", "w1_b", "w2_a", "w2_b", "w1", "w2", "t2")),
    *((f".{role}", role) for role in ("alpha", "dora_scale", "diff_b", "diff", "set_weight")),
    (".w_norm", "diff"),
    (".b_norm", "diff_b"),
)

Parts = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Adapter:
    """An adapter file: base key -> role -> tensor, and the keys whose role is not known."""

    path: Path
    groups: Mapping[str, Parts]
    unknown: tuple[str, ...] = ()
    states: tuple[FileState, ...] = ()

    @property
    def identity(self) -> Hashable:
        """Equal for two readings of the same file; an adapter that came from none equals itself alone."""
        return self.states or id(self)

    def fitting(self, keys: Mapping[str, ParameterSlot]) -> dict[str, ParameterSlot]:
        """The base keys that mean something in a network with these `keys`."""
        return {base: keys[base] for base in self.groups if base in keys}

    def of_model(self, parameters: Collection[str], depth: int, strength: float) -> "Patch | None":
        """The patch of a transformer with these weights and so many blocks, if it changes any."""
        return self._patch(mmdit_keys(parameters, depth), strength) if strength else None

    def of_encoder(self, encoder: str, parameters: Collection[str], strength: float) -> "Patch | None":
        """The patch of a text encoder with these weights, if it changes any."""
        return self._patch(encoder_keys(encoder, parameters), strength) if strength else None

    def _patch(self, keys: Mapping[str, ParameterSlot], strength: float) -> "Patch | None":
        slots = self.fitting(keys)
        return Patch(self, slots, strength) if slots else None

    def unused(self, *fitted: Collection[str]) -> list[str]:
        """What no network had a place for: base keys in none of `fitted`, and keys of no known role."""
        return sorted({*self.groups, *self.unknown}.difference(*fitted))


def load_adapter(path: Path) -> Adapter:
    """Read an adapter file into memory. Raises `UnknownModel` if no tensor has an adapter's name."""
    file = open_weights(path)
    groups, unknown = grouped(file.weights)
    if not groups:
        raise UnknownModel(
            f"{path}: no tensor of its {len(unknown)} is named as an adapter's; a LoRA file was expected"
        )
    return Adapter(path, groups, tuple(unknown), file.states)


def grouped(tensors: Mapping[str, Tensor | StoredTensor]) -> tuple[dict[str, Parts], list[str]]:
    """Base key -> role -> a float32 copy, and the names whose role is not known; those are not read."""
    groups: dict[str, dict[str, Tensor]] = {}
    unknown: list[str] = []
    for name, tensor in tensors.items():
        found = next(((suffix, role) for suffix, role in ROLES if name.endswith(suffix)), None)
        if found is None:
            unknown.append(name)
            continue
        suffix, role = found
        values = tensor.read() if isinstance(tensor, StoredTensor) else tensor
        groups.setdefault(name.removesuffix(suffix), {})[role] = values.to(torch.float32, copy=True)
    return dict(groups), unknown


def low_rank(parts: Parts) -> Tensor:
    """Up times down, with a Tucker core between them where there is one; scaled by alpha / rank."""
    up, down = parts["up"], parts["down"]
    if "mid" in parts:
        product = torch.einsum("or,rskl,si->oikl", up.flatten(1), parts["mid"], down.flatten(1))
    else:
        product = up.flatten(1) @ down.flatten(1)
    return product * _scale(parts, down.shape[0])


def hadamard(parts: Parts) -> Tensor:
    """LoHa (Hyeon-Woo 2022, arXiv:2108.06098): the elementwise product of two low-rank matrices."""
    first = _pair(parts, "hada_w1_a", "hada_w1_b", "hada_t1")
    second = _pair(parts, "hada_w2_a", "hada_w2_b", "hada_t2")
    return first * second * _scale(parts, parts["hada_w1_b"].shape[0])


def kronecker(parts: Parts) -> Tensor:
    """LoKr: the Kronecker product of two factors, each whole or low-rank; alpha counts only beside a low-rank one."""
    first = parts["lokr_w1"] if "lokr_w1" in parts else _pair(parts, "lokr_w1_a", "lokr_w1_b")
    second = parts["lokr_w2"] if "lokr_w2" in parts else _pair(parts, "lokr_w2_a", "lokr_w2_b", "lokr_t2")
    ranks = [parts[role].shape[0] for role in ("lokr_w2_b", "lokr_w1_b") if role in parts]
    if second.ndim == 4:
        first = first[:, :, None, None]
    product: Tensor = torch.kron(first, second)
    return product * (_scale(parts, ranks[0]) if ranks else 1.0)


def _pair(parts: Parts, left: str, right: str, core: str | None = None) -> Tensor:
    if core is not None and core in parts:
        return torch.einsum("ijkl,jr,ip->prkl", parts[core], parts[right], parts[left])
    return parts[left] @ parts[right]


def _scale(parts: Parts, rank: int) -> float:
    return float(parts["alpha"]) / rank if "alpha" in parts else 1.0


KINDS: tuple[tuple[frozenset[str], Callable[[Parts], Tensor]], ...] = (
    (frozenset({"up", "down"}), low_rank),
    (frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}), hadamard),
    *(
        (frozenset({*first, *second}), kronecker)
        for first in (("lokr_w1",), ("lokr_w1_a", "lokr_w1_b"))
        for second in (("lokr_w2",), ("lokr_w2_a", "lokr_w2_b"))
    ),
)


def merged_weight(weight: Tensor, parts: Parts, strength: float) -> Tensor:
    """`weight` (float32) with the parts that change a weight: low-rank products, full differences, replacements."""
    if "set_weight" in parts:
        return parts["set_weight"].to(weight.device).reshape(weight.shape)
    for roles, delta_of in KINDS:
        if roles <= parts.keys():
            delta = delta_of({role: part.to(weight.device) for role, part in parts.items()}).reshape(weight.shape)
            scale = parts.get("dora_scale")
            return weight + strength * (delta if scale is None else _decomposed(weight, delta, scale) - weight)
    if "diff" in parts:
        return weight + strength * parts["diff"].to(weight.device).reshape(weight.shape)
    return weight


def _decomposed(weight: Tensor, delta: Tensor, dora_scale: Tensor) -> Tensor:
    """DoRA (Liu 2024, arXiv:2402.09353): the changed weight rescaled to learned norms.

    With one norm per output row they are measured on the original weight, per input column on the changed one: what
    existing images were made with.
    """
    changed, scale = weight + delta, dora_scale.to(weight.device)
    is_per_row = scale.shape[0] == weight.shape[0]
    measured = weight if is_per_row else changed.transpose(0, 1)
    norms = torch.linalg.vector_norm(measured.flatten(1), dim=1).reshape(-1, *[1] * (weight.ndim - 1))
    along = norms if is_per_row else norms.transpose(0, 1)
    factors: Tensor = scale / (along + torch.finfo(weight.dtype).eps)
    return changed * factors


def merged_bias(bias: Tensor, parts: Parts, strength: float) -> Tensor:
    """`bias` (float32) with the difference for it, if there is one."""
    return bias + strength * parts["diff_b"].to(bias.device).reshape(bias.shape) if "diff_b" in parts else bias


def in_slot(whole: Tensor, slot: ParameterSlot, change: Callable[[Tensor], Tensor]) -> Tensor:
    """A copy of `whole` in which `change` was made to the slot's rows, seen in the adapter's own order."""
    shares = list(whole.chunk(slot.parts))
    if slot.is_swapped:
        shares[slot.part] = _halves_swapped(change(_halves_swapped(shares[slot.part])))
    else:
        shares[slot.part] = change(shares[slot.part])
    return torch.cat(shares)


def _halves_swapped(rows: Tensor) -> Tensor:
    first, second = rows.chunk(2)
    return torch.cat([second, first])


@dataclass(frozen=True, slots=True)
class TensorChange:
    """What one patch does to one tensor: `apply` is given it as changed so far, in float32, and what was read.

    That is the tensor as it is stored, then the `sources`.
    """

    origin: str
    apply: Callable[[Tensor, Sequence[Tensor]], Tensor]
    sources: tuple[StoredTensor, ...] = ()


class WeightPatch(Protocol):
    """A change of a network's weights, made where they are read."""

    @property
    def identity(self) -> Hashable:
        """Equal for patches that change a network equally."""

    def changes(self, weights: Weights) -> Iterable[tuple[str, TensorChange]]:
        """The names among these weights that it changes, each with how."""


class Adapting(Protocol):
    """What changes a model and its text encoders: an adapter, or what another checkpoint has different."""

    def of_model(self, parameters: Collection[str], depth: int, strength: float) -> WeightPatch | None:
        """The patch of a transformer with these weights and so many blocks, if it changes any."""

    def of_encoder(self, encoder: str, parameters: Collection[str], strength: float) -> WeightPatch | None:
        """The patch of the text encoder `clip_l`, `clip_g` or `t5xxl` with these weights, if it changes any."""


@dataclass(frozen=True, eq=False)
class Patch:
    """One adapter at one strength, reduced to the slots it fits; so much of a weight itself is left as `keeps` says."""

    adapter: Adapter
    slots: Mapping[str, ParameterSlot]
    strength: float
    keeps: float = 1.0

    @property
    def identity(self) -> Hashable:
        """Equal for patches that change a network equally."""
        whole = self.adapter.identity, self.strength
        return whole if self.keeps == 1.0 else (*whole, self.keeps)

    def changes(self, weights: Weights) -> Iterator[tuple[str, TensorChange]]:
        """The weights and biases that the adapter's parts change."""
        for base, slot in self.slots.items():
            for name, change in _changes(weights, slot, self.adapter.groups[base], self):
                yield name, TensorChange(f"{self.adapter.path}: {base}", _in(slot, change))


def _in(slot: ParameterSlot, change: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Sequence[Tensor]], Tensor]:
    return lambda current, _: in_slot(current, slot, change)


@dataclass(frozen=True, eq=False, slots=True)
class Merge:
    """The arithmetic of every patch on one tensor, in order, in float32: what a stored tensor is combined by."""

    name: str
    changes: tuple[TensorChange, ...]

    def __call__(self, parts: Sequence[Tensor]) -> Tensor:
        own, rest = parts[0], iter(parts[1:])
        current = own.float()
        for change in self.changes:
            read = [own, *islice(rest, len(change.sources))]
            try:
                current = change.apply(current, read)
            except (RuntimeError, ValueError, IndexError, ZeroDivisionError) as error:
                if is_out_of_memory(error):
                    raise
                raise TensorMismatch(f"{change.origin} does not fit {self.name} ({error})") from None
        return current


def patched(weights: Weights, patches: Sequence[WeightPatch]) -> Weights:
    """The weights, every patch merged in when they are read; tensors that no patch changes stay the same objects.

    One tensor under two names that is changed alike under both stays one.
    """
    changes: dict[str, list[TensorChange]] = {}
    for patch in patches:
        for name, change in patch.changes(weights):
            changes.setdefault(name, []).append(change)
    made: dict[tuple[StoredTensor, tuple[TensorChange, ...]], StoredTensor] = {}
    for name, own in changes.items():
        made.setdefault((weights[name], tuple(own)), _merged(name, weights[name], own))
    return {**weights, **{name: made[weights[name], tuple(own)] for name, own in changes.items()}}


def _merged(name: str, stored: StoredTensor, changes: Sequence[TensorChange]) -> StoredTensor:
    combine = Merge(name, tuple(changes))
    sources = (stored, *(source for change in changes for source in change.sources))
    return StoredTensor(
        stored.shape, stored.dtype, lambda: combine([source.read() for source in sources]), sources, combine
    )


def _changes(
    parameters: Collection[str], slot: ParameterSlot, parts: Parts, patch: Patch
) -> Iterable[tuple[str, Callable[[Tensor], Tensor]]]:
    """The parameters (weight, bias, or the one named exactly) that `parts` change, each with its change."""
    strength, keeps = patch.strength, patch.keeps
    weight = slot.name if slot.name in parameters else slot.name + ".weight"
    if weight in parameters and parts.keys() - {"diff_b"}:
        yield weight, lambda current: merged_weight(current if keeps == 1.0 else current * keeps, parts, strength)
    bias = slot.name + ".bias"
    if bias in parameters and "diff_b" in parts:
        yield bias, lambda current: merged_bias(current, parts, strength)
