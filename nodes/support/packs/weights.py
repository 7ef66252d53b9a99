"""Changes of weights that node packs ask for: adapters, differences, and shares of another model's weights.

A name of a weight is ours with `diffusion_model.` before it; a place among its rows may follow, as a pair with
(0, first row, rows).
"""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models.files.adapter_keys import encoder_keys, mmdit_keys
from sigmagraph.engine.models.files.lora import Adapter, Parts, Patch, grouped
from sigmagraph.engine.models.files.read import StoredTensor
from sigmagraph.engine.models.files.rename import ParameterSlot
from sigmagraph.engine.models.merge import Blend, MergeShares, merged_models
from sigmagraph.engine.models.text.clip import Clip
from sigmagraph.engine.models.text.encode import T5
from sigmagraph.engine.models.value import Model

__all__ = [
    "PREFIX",
    "OtherWeight",
    "StoredWeights",
    "WeightChange",
    "adapter_of",
    "checkpoint_tensors",
    "clip_weights",
    "load_lora",
    "lora_names",
    "model_weights",
    "weight_change",
    "with_lora",
]

LOG = logging.getLogger("sigmagraph.packs")
PREFIX = "diffusion_model."
LORA = ("up", "down", "alpha", "mid", "dora_scale")
SOURCE = Path("a node pack")


class WeightChange(Protocol):
    """One change of a model's weights."""

    @property
    def names(self) -> Iterable[str]:
        """The weights that it changes."""

    def __call__(self, model: Model) -> Model:
        """The model with it."""


@dataclass(frozen=True, eq=False)
class Patched:
    """An adapter's change, `keeps` of the weights themselves being left."""

    patch: Patch

    @property
    def names(self) -> Iterable[str]:
        return [slot.name for slot in self.patch.slots.values()]

    def __call__(self, model: Model) -> Model:
        return replace(model, recipe=model.recipe.with_patches([*model.recipe.patches, self.patch]))


@dataclass(frozen=True, eq=False)
class OtherWeight:
    """A weight of another model, not read yet."""

    model: Model
    name: str


@dataclass(frozen=True, eq=False)
class Blended:
    """Shares of another model's weights."""

    other: Model
    blends: tuple[tuple[str, Blend], ...]

    @property
    def names(self) -> Iterable[str]:
        return [name for name, _ in self.blends]

    def __call__(self, model: Model) -> Model:
        return merged_models(model, self.other, MergeShares(Blend(1.0, 0.0), self.blends))


class SlotName(str):
    """The name of a weight that remembers whose it is, and in which order an adapter has its rows."""

    slot: ParameterSlot
    encoder: str = ""

    @classmethod
    def of(cls, name: str, slot: ParameterSlot, encoder: str = "") -> "SlotName":
        """The name with what it remembers."""
        made = cls(name)
        made.slot, made.encoder = slot, encoder
        return made


def lora_names(model: Model) -> dict[str, Any]:
    """Base keys of every trainer's style -> the names of weights, with the rows where they are a part."""
    depth, base = model.spec.shape.depth, model.recipe.base
    return {key: _named(slot, base) for key, slot in mmdit_keys(base, depth).items()}


def _named(slot: ParameterSlot, base: Mapping[str, Any]) -> Any:
    whole = slot.name if slot.name in base else slot.name + ".weight"
    name = SlotName.of(PREFIX + whole, slot)
    if slot.parts == 1 or whole not in base:
        return name
    rows = base[whole].shape[0] // slot.parts
    return name, (0, slot.part * rows, rows)


def clip_lora_names(clip: Clip) -> dict[str, Any]:
    """The same for text encoders: the encoder's name and the module's."""
    return {
        key: SlotName.of(f"{name}.{slot.name}", slot, name)
        for name, encoder in clip.encoders.items()
        for key, slot in encoder_keys(name, encoder.parameters()).items()
    }


def load_lora(lora: Mapping[str, Tensor], to_load: Mapping[str, Any], log_missing: bool = True) -> dict[Any, Parts]:
    """The parts of an adapter's tensors by the names they are for; those without one are logged."""
    groups, unknown = grouped(lora)
    missing = [base for base in groups if base not in to_load]
    if log_missing and (missing or unknown):
        LOG.warning("an adapter's tensors have no place: %s", ", ".join([*missing, *unknown])[:400])
    return {to_load[base]: parts for base, parts in groups.items() if base in to_load}


class StoredWeights(Mapping[str, Tensor]):
    """Weights by name, each read when it is asked for."""

    def __init__(self, stored: Mapping[str, StoredTensor]) -> None:
        self._stored = stored

    def __getitem__(self, name: str) -> Tensor:
        return self._stored[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def model_weights(model: Model, prefix: str = PREFIX) -> StoredWeights:
    """A model's weights with every patch, by the names packs change them by."""
    return StoredWeights({prefix + name: stored for name, stored in model.recipe.weights.items()})


def checkpoint_tensors(
    model: Model,
    clip: Mapping[str, Tensor] | None = None,
    vae: Mapping[str, Tensor] | None = None,
    vision: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """The tensors of a checkpoint's file: a model's, and those of other parts under the prefixes they have there."""
    given = {"text_encoders.": clip, "first_stage_model.": vae, "": vision}
    others = {prefix + name: part for prefix, one in given.items() for name, part in (one or {}).items()}
    return {**model_weights(model, f"model.{PREFIX}"), **others}


def clip_weights(clip: Clip) -> StoredWeights:
    """The weights of text encoders with every patch; the names remember whose they are."""
    found: dict[str, StoredTensor] = {}
    encoders: Mapping[str, Any] = clip.patched
    for encoder, value in encoders.items():
        within = "transformer." if encoder == T5 else "transformer.text_model."
        for name, stored in value.recipe.weights.items():
            found[SlotName.of(f"{encoder}.{within}{name}", ParameterSlot(name), encoder)] = stored
    return StoredWeights(found)


def adapter_of(lora: Mapping[str, Tensor]) -> Adapter:
    """Tensors of an adapter's file that a pack read itself."""
    groups, unknown = grouped(lora)
    return Adapter(SOURCE, groups, tuple(unknown))


def weight_change(
    model: Model, patches: Mapping[Any, Any], strength: float, keeps: float
) -> tuple[list[WeightChange], list[Any]]:
    """What patches by name change about a model, and the names among them that it has."""
    groups: dict[str, Parts] = {}
    slots: dict[str, ParameterSlot] = {}
    blends: dict[int, tuple[Model, list[tuple[str, Blend]]]] = {}
    taken: list[Any] = []
    for key, value in patches.items():
        slot = _slot(key, model.recipe.base)
        if slot is None:
            continue
        taken.append(key)
        if isinstance(value, list | tuple) and len(value) == 1 and isinstance(value[0], OtherWeight):
            other = value[0].model
            blends.setdefault(id(other), (other, []))[1].append((slot.name, Blend(keeps, strength)))
            continue
        groups[str(key)], slots[str(key)] = _parts(key, value), slot
    made: list[WeightChange] = [Blended(other, tuple(shares)) for other, shares in blends.values()]
    if groups:
        made.append(Patched(Patch(Adapter(SOURCE, groups), slots, strength, keeps)))
    return made, taken


def changed_clip(clip: Clip, patches: Mapping[Any, Any], strength: float, keeps: float) -> tuple[Clip, list[Any]]:
    """Text encoders with patches by the names of `clip_lora_names`, and those among them that they have."""
    taken = [key for key in patches if isinstance(key, SlotName) and key.encoder in clip.encoders]
    made = dict(clip.patches)
    for name in dict.fromkeys(key.encoder for key in taken):
        own = [key for key in taken if key.encoder == name]
        adapter = Adapter(SOURCE, {key: _parts(key, patches[key]) for key in own})
        made[name] = (*made.get(name, ()), Patch(adapter, {key: key.slot for key in own}, strength, keeps))
    return replace(clip, patches=made), taken


def _slot(key: Any, base: Mapping[str, Any]) -> ParameterSlot | None:
    """Where a name's weight is; None where this model has none of that name. Raises `BadValue` for odd rows."""
    name, rows = (key[0], key[1]) if isinstance(key, tuple) else (key, None)
    bare = str(name).removeprefix(PREFIX)
    if bare not in base:
        return None
    if isinstance(name, SlotName):
        return name.slot
    if rows is None:
        return ParameterSlot(bare)
    axis, first, count = rows
    whole = base[bare].shape[0]
    if axis != 0 or whole % count or first % count:
        raise BadValue("rows of a weight", list(rows), f"(0, first, rows) that divide the {whole} rows of {bare}")
    return ParameterSlot(bare, first // count, whole // count)


def _parts(key: Any, value: Any) -> Parts:
    """A patch as an adapter's parts: ours, or one of ComfyUI's tuples."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, Sequence) and len(value) == 1 and value[0] is None:
        return {"alpha": _tensor(1.0)}  # nothing is added; so much of the weight is left as is asked for
    if isinstance(value, Sequence) and len(value) == 1 and isinstance(value[0], Tensor):
        return {"diff": value[0].float()}
    is_pair = isinstance(value, Sequence) and len(value) == 2
    kind, given = (value[0], tuple[Any, ...](value[1])) if is_pair else (type(value).__qualname__, ())
    if kind in ("diff", "set"):
        return {"diff" if kind == "diff" else "set_weight": given[0].float()}
    if kind == "lora":
        parts = dict(zip(LORA, given, strict=False))
        alpha = {"alpha": _tensor(parts["alpha"])} if parts.get("alpha") is not None else {}
        return {role: part.float() for role, part in parts.items() if role != "alpha" and part is not None} | alpha
    allowed = "diff, set, lora, a mapping of an adapter's parts, or another model's weight"
    raise BadValue(f"a patch of {key}", kind, allowed)


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else Tensor([float(value)])[0]


def with_lora(
    model: Model | None, clip: Clip | None, lora: Mapping[str, Tensor], strengths: tuple[float, float]
) -> Any:
    """A model and text encoders with an adapter at these strengths; what is None stays so."""
    adapter = adapter_of(lora)
    fitted = [one.fitting(adapter) for one in (model, clip) if one is not None]
    if unused := adapter.unused(*(keys for found in fitted for keys in _keys(found))):
        LOG.warning("an adapter's tensors have no place: %s", ", ".join(unused)[:400])
    return (
        model.with_adapter(adapter, strengths[0]) if model is not None else None,
        clip.with_adapter(adapter, strengths[1]) if clip is not None else None,
    )


def _keys(found: Mapping[str, Any]) -> list[Collection[str]]:
    """Base keys of a model, or of each encoder."""
    return [slots for slots in found.values() if isinstance(slots, Mapping)] or [found]
