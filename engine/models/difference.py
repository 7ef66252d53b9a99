"""Another checkpoint's weights as a change of a model and its text encoders: what it has different, as an adapter.

Nothing of the file is copied: its tensors are read where they lie, each when the one that it changes is made.
"""

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from sigmagraph.engine.errors import TensorMismatch
from sigmagraph.engine.models.files.detect import find_parts, unexpected
from sigmagraph.engine.models.files.lora import TensorChange
from sigmagraph.engine.models.files.read import FileState, Weights, open_weights
from sigmagraph.engine.models.memory.recipe import Table

__all__ = ["CheckpointDifference", "Towards", "load_difference"]


@dataclass(frozen=True, slots=True)
class StepTowards:
    """w + strength (o - w): w is the tensor as it is stored, o the other; changes before this one stay."""

    strength: float

    def __call__(self, current: Tensor, read: Sequence[Tensor]) -> Tensor:
        own, other = read
        return current + self.strength * (other.float() - own.float())


@dataclass(frozen=True, eq=False, slots=True)
class Towards:
    """The patch that moves a network's weights towards those of the same names; what only one has stays."""

    place: str
    others: Weights
    states: tuple[FileState, ...]
    strength: float

    @property
    def identity(self) -> Hashable:
        """Equal for patches that change a network equally."""
        return "towards", self.states, self.strength

    def changes(self, weights: Weights) -> Iterator[tuple[str, TensorChange]]:
        """Every tensor that both have. Raises `TensorMismatch` for one that has another shape there."""
        for name, own in weights.items():
            other = self.others.get(name)
            if other is None:
                continue
            if other.shape != own.shape:
                raise TensorMismatch(
                    f"{self.place}: {name} is {list(other.shape)}, the model's own is {list(own.shape)}: "
                    "a checkpoint of the same sizes was expected"
                )
            yield name, TensorChange(self.place, StepTowards(self.strength), (other,))


@dataclass(frozen=True, eq=False)
class CheckpointDifference:
    """What a checkpoint has different from whatever it is put on: its transformer and its text encoders, by name."""

    path: Path
    model: Weights
    encoders: Mapping[str, Weights]
    states: tuple[FileState, ...]

    def of_model(self, parameters: Collection[str], depth: int, strength: float) -> Towards | None:
        """The patch of a transformer, if it is of any strength."""
        return Towards(f"{self.path}: diffusion model", self.model, self.states, strength) if strength else None

    def of_encoder(self, encoder: str, parameters: Collection[str], strength: float) -> Towards | None:
        """The patch of a text encoder, if this checkpoint has the same one."""
        if not strength or encoder not in self.encoders:
            return None
        return Towards(f"{self.path}: {encoder}", self.encoders[encoder], self.states, strength)


def load_difference(path: Path) -> CheckpointDifference:
    """Open a checkpoint for its weights alone. Raises `UnknownModel` if it holds no diffusion model of the family."""
    file = open_weights(path)
    parts = find_parts(file)
    if parts.mmdit is None:
        raise unexpected(file, parts, "a diffusion model of the SD3 family")
    encoders = {name: Table(weights) for name, weights in parts.encoders.items()}
    return CheckpointDifference(path, Table(parts.mmdit), encoders, file.states)
