"""`comfy.model_sampling`: classes of noise levels that packs derive from, and ask with `isinstance` about a model's.

A pack joins a class of levels with one that says what the network predicts, sets parameters, and puts an object of it
in the place of a model's `model_sampling`. Here that object becomes a parameterisation again.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling import Parameterisation
from sigmagraph.engine.sampling.levels import ContinuousLevels, DiscreteLevels, FlowLevels, FluxLevels, Levels
from sigmagraph.engine.sampling.targets import TargetName
from sigmagraph.nodes.support.packs.base_model import ModelSampling

__all__ = ["CLASSES", "parameterisation_of", "time_snr_shift"]


def time_snr_shift(alpha: float, t: Any) -> Any:
    """Flow time with a shift (Esser 2024, arXiv:2403.03206, eq. 23)."""
    return t if alpha == 1.0 else alpha * t / (1 + (alpha - 1) * t)


class Asked(type):
    """A class whose instances are, besides its own, those levels of ours that it means."""

    def __instancecheck__(cls, instance: Any) -> bool:
        if isinstance(instance, ModelSampling):
            known = instance.parameterisation
            return (
                TARGETS.get(cls.__name__) == known.target if cls in PREDICTS else type(known.levels) is LEVELS.get(cls)
            )
        return super().__instancecheck__(instance)


class CONST(metaclass=Asked):
    """The network predicts the velocity of a rectified flow."""


class EPS(metaclass=Asked):
    """The network predicts the noise."""


class V_PREDICTION(metaclass=Asked):  # noqa: N801  # the name packs use
    """The network predicts v."""


class EDM(metaclass=Asked):
    """The network is preconditioned as EDM."""


class X0(metaclass=Asked):
    """The network predicts the picture."""


class IMG_TO_IMG(metaclass=Asked):  # noqa: N801  # the name packs use
    """The network turns pictures into pictures."""


class _Levels(nn.Module, metaclass=Asked):
    """Levels that are one of ours until a pack changes something."""

    own: Levels
    sigmas: Tensor

    def __init__(self, model_config: Any = None, *_: Any, **__: Any) -> None:
        super().__init__()
        settings: Mapping[str, Any] = getattr(model_config, "sampling_settings", None) or {}
        known = {name: value for name, value in settings.items() if name in ("shift", "multiplier")}
        self.set_parameters(**known)

    def set_parameters(self, **_: Any) -> None:
        """Nothing to set."""

    def _take(self, own: Levels) -> None:
        self.own = own
        self.register_buffer("sigmas", own.table)

    @property
    def sigma_min(self) -> Tensor:
        """The lowest level."""
        return self.sigmas[0]

    @property
    def sigma_max(self) -> Tensor:
        """The highest level."""
        return self.sigmas[-1]

    def timestep(self, sigma: Any) -> Any:
        """What the network is told."""
        return self.own.timestep(sigma)

    def percent_to_sigma(self, percent: float) -> float:
        """The level at a share of the way."""
        return self.own.percent_to_sigma(percent)


class ModelSamplingDiscreteFlow(_Levels):
    """Rectified flow with a shift: SD3's."""

    def set_parameters(self, shift: float = 1.0, timesteps: int = 1000, multiplier: float = 1000, **_: Any) -> None:
        """The shift, how many levels there are, and what flow time is multiplied by for the network."""
        self.shift, self.multiplier = shift, multiplier
        self._take(FlowLevels(float(shift), float(multiplier), int(timesteps)))

    def sigma(self, timestep: Any) -> Any:
        """The level of an unshifted timestep."""
        return time_snr_shift(self.shift, timestep / self.multiplier)

    def timestep(self, sigma: Any) -> Any:
        """What the network is told."""
        return sigma * self.multiplier

    def percent_to_sigma(self, percent: float) -> float:
        """The level at a share of the way."""
        return float(time_snr_shift(self.shift, min(max(1.0 - percent, 0.0), 1.0)))


class ModelSamplingFlux(_Levels):
    """Rectified flow with an exponential shift."""

    def set_parameters(self, shift: float = 1.15, timesteps: int = 10000, **_: Any) -> None:
        """The exponent, and how many levels there are."""
        self.shift = shift
        self._take(FluxLevels(float(shift), int(timesteps)))

    def sigma(self, timestep: Any) -> Any:
        """The level of a timestep between 0 and 1."""
        return self.own.sigmas_at(torch.as_tensor(timestep, dtype=torch.float32))


class ModelSamplingDiscrete(_Levels):
    """The thousand levels of SD1 and SDXL."""

    def set_parameters(self, **_: Any) -> None:
        """They are what they are."""
        self._take(DiscreteLevels())

    def sigma(self, timestep: Any) -> Any:
        """The level of a timestep."""
        return torch.as_tensor(self.own.sigma(float(timestep)))


class ModelSamplingContinuousEDM(metaclass=Asked):
    """Continuous levels: for asking alone."""


PREDICTS: Mapping[type, TargetName] = {
    CONST: "flow", EPS: "eps", V_PREDICTION: "v", EDM: "edm", X0: "x0", IMG_TO_IMG: "image_to_image",
}  # fmt: skip
TARGETS: Mapping[str, TargetName] = {cls.__name__: target for cls, target in PREDICTS.items()}
LEVELS: Mapping[type, type] = {
    ModelSamplingDiscreteFlow: FlowLevels,
    ModelSamplingFlux: FluxLevels,
    ModelSamplingDiscrete: DiscreteLevels,
    ModelSamplingContinuousEDM: ContinuousLevels,
}
CLASSES = (*PREDICTS, *LEVELS)
METHODS = ("timestep", "sigma", "percent_to_sigma", "sigma_min", "sigma_max")


def parameterisation_of(sampling: Any) -> Parameterisation:
    """What a pack's object says of a model. Raises `BadValue` for one that says too little."""
    if isinstance(sampling, ModelSampling):
        return sampling.parameterisation
    target = next((PREDICTS[cls] for cls in type(sampling).__mro__ if cls in PREDICTS), None)
    table = getattr(sampling, "sigmas", None)
    if target is None or not isinstance(table, Tensor) or table.ndim != 1 or len(table) < 2:
        allowed = "model_sampling of a model here, or a class of levels joined with CONST, EPS, V_PREDICTION, EDM or X0"
        raise BadValue("model_sampling", type(sampling).__qualname__, allowed)
    return Parameterisation(sampling.own if _is_untouched(sampling) else PackLevels(sampling), target)


def _is_untouched(sampling: Any) -> bool:
    """Whether it is a class of levels here, no method of which was replaced, nor the table."""
    base = next((cls for cls in type(sampling).__mro__ if cls in LEVELS), None)
    if base is None or not issubclass(base, _Levels):
        return False
    known = (sampling.own.shift, sampling.own.timestep_scale) if isinstance(sampling.own, FlowLevels) else None
    if known is not None and (sampling.shift, sampling.multiplier) != known:
        return False
    kept = all(getattr(type(sampling), name) is getattr(base, name) for name in METHODS)
    return kept and torch.equal(sampling.sigmas, sampling.own.table)


@dataclass(frozen=True, eq=False, repr=False)
class PackLevels:
    """Levels as a pack's object has them; between the levels of its table there are lines."""

    sampling: Any

    def __repr__(self) -> str:
        digest = hashlib.blake2b(self.table.numpy().tobytes(), digest_size=8).hexdigest()
        return f"PackLevels({type(self.sampling).__qualname__}, {digest})"

    @cached_property
    def table(self) -> Tensor:
        """All levels, ascending."""
        return torch.as_tensor(self.sampling.sigmas).detach().to("cpu", torch.float32).sort().values

    @property
    def timestep_scale(self) -> float:
        """Timesteps per unit of position."""
        return self.timestep(self.sigma_max)

    @property
    def sigma_min(self) -> float:
        """The lowest level."""
        return float(self.sampling.sigma_min)

    @property
    def sigma_max(self) -> float:
        """The highest level."""
        return float(self.sampling.sigma_max)

    def timestep(self, sigma: float) -> float:
        """What the network is told at this level."""
        return float(self.sampling.timestep(torch.tensor(sigma)))

    def sigma(self, timestep: float) -> float:
        """The level of a timestep."""
        return float(self.sampling.sigma(torch.tensor(timestep)))

    def position(self, sigma: float) -> float:
        """The place in the table, from 0 below its first level to 1 at its last."""
        above = int(torch.searchsorted(self.table, sigma))
        if above >= len(self.table):
            return 1.0
        low, high = (float(self.table[above - 1]) if above else 0.0), float(self.table[above])
        return (above + (sigma - low) / (high - low if high > low else 1.0)) / len(self.table)

    def sigmas_at(self, positions: Tensor) -> Tensor:
        """The levels at places in the table."""
        table = torch.cat([self.table.new_zeros(1), self.table])
        places = (positions.float() * (len(table) - 1)).clamp(0, len(table) - 1)
        low = places.floor().long().clamp(max=len(table) - 2)
        return torch.lerp(table[low], table[low + 1], places - low)

    def percent_to_sigma(self, percent: float) -> float:
        """The level at a share of the way."""
        return float(self.sampling.percent_to_sigma(percent))
