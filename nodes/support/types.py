"""What travels on edges, and the widgets that several nodes share. Sockets are wire names; values are plain Python."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, TypeVar

from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import Hidden, Range, Services, Socket, Tooltip
from sigmagraph.engine.models import value
from sigmagraph.engine.models.conditioning import Conditioning as ConditioningValue
from sigmagraph.engine.models.controlnet import ControlNet as ControlNetValue
from sigmagraph.engine.models.hooks import Hook, Keyframe
from sigmagraph.engine.models.text.clip import Clip as ClipValue
from sigmagraph.engine.models.text.encode import Going
from sigmagraph.engine.sampling import Denoiser, NoiseSource, Solver

__all__ = [
    "NO_VAE",
    "BatchSize",
    "Clip",
    "Conditioning",
    "ControlNet",
    "Document",
    "Engine",
    "Guider",
    "GuiderValue",
    "Hooks",
    "Image",
    "Keyframes",
    "Latent",
    "LatentOperation",
    "LatentValue",
    "Mask",
    "Model",
    "Noise",
    "PictureInfo",
    "Progressing",
    "Sampler",
    "SamplerValue",
    "Seed",
    "Sigmas",
    "SigmasValue",
    "TimestepsRange",
    "Vae",
    "present",
]

T = TypeVar("T")
NO_VAE = "an autoencoder, which this checkpoint does not hold; add a VAELoader"


@dataclass(frozen=True, slots=True)
class LatentValue:
    """Latent pictures in VAE units [B, C, h, w]; `noise_mask` [B, H, W] says where to work (1) and where to keep (0).

    `batch_index` remembers which image of an earlier batch each one is, so that it gets that image's noise. `extra` is
    what a node pack put beside these: it travels on to the pack's next node.
    """

    samples: Tensor
    noise_mask: Tensor | None = None
    batch_index: tuple[int, ...] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def with_samples(self, samples: Tensor) -> "LatentValue":
        """The same places with other content."""
        return replace(self, samples=samples)


@dataclass(frozen=True, slots=True)
class SamplerValue:
    """A solver and its settings."""

    solver: Solver
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GuiderValue:
    """A model and how its predictions become one."""

    model: value.Model
    denoiser: Denoiser


SigmasValue = tuple[float, ...]
LatentOperationValue = Callable[[Tensor], Tensor]
"""Latents [B, C, h, w] to latents of that shape."""

Model = Annotated[value.Model, Socket("MODEL")]
Clip = Annotated[ClipValue, Socket("CLIP")]
Vae = Annotated[value.Vae, Socket("VAE")]
Conditioning = Annotated[ConditioningValue, Socket("CONDITIONING")]
ControlNet = Annotated[ControlNetValue, Socket("CONTROL_NET")]
Latent = Annotated[LatentValue, Socket("LATENT")]
Image = Annotated[Tensor, Socket("IMAGE")]
Mask = Annotated[Tensor, Socket("MASK")]
Sampler = Annotated[SamplerValue, Socket("SAMPLER")]
Sigmas = Annotated[SigmasValue, Socket("SIGMAS")]
Guider = Annotated[GuiderValue, Socket("GUIDER")]
LatentOperation = Annotated[LatentOperationValue, Socket("LATENT_OPERATION")]
Hooks = Annotated[tuple[Hook, ...], Socket("HOOKS")]
Keyframes = Annotated[tuple[Keyframe, ...], Socket("HOOK_KEYFRAMES")]
TimestepsRange = Annotated[tuple[float, float], Socket("TIMESTEPS_RANGE")]
Noise = Annotated[NoiseSource, Socket("NOISE")]

Engine = Annotated[Services, Hidden("SERVICES")]
Document = Annotated[Mapping[str, Any] | None, Hidden("PROMPT")]
Progressing = Annotated[Going, Hidden("PROGRESS")]
PictureInfo = Annotated[Mapping[str, Any] | None, Hidden("EXTRA_PNGINFO")]

Seed = Annotated[
    int, Range(0, 2**64 - 1, control_after_generate=True), Tooltip("Equal seeds give equal noise, so equal images.")
]
BatchSize = Annotated[int, Range(1, 4096), Tooltip("How many are made at once.")]


def present(part: T | None, input_name: str, missing: str) -> T:
    """`part`, which a checkpoint may lack; `missing` says what was expected and what to do."""
    if part is None:
        raise BadValue(input_name, None, missing)
    return part
