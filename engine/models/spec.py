"""What a model is, apart from its weights: shape, parameterisation, latent format, and the table of known families."""

from dataclasses import dataclass, field

from torch import Tensor

from sigmagraph.engine.models.arch import MMDiTShape
from sigmagraph.engine.sampling.parameterisation import Parameterisation, sd3


@dataclass(frozen=True, slots=True)
class LatentFormat:
    """How VAE units relate to the space a diffusion model works in; the numbers are SD3's."""

    channels: int = 16
    downscale: int = 8
    scale: float = 1.5305
    shift: float = 0.0609

    def to_model(self, latent: Tensor) -> Tensor:
        """VAE units -> model space."""
        return (latent - self.shift) * self.scale

    def to_vae(self, latent: Tensor) -> Tensor:
        """Model space -> VAE units."""
        return latent / self.scale + self.shift


@dataclass(frozen=True, slots=True)
class Family:
    """A published model, as far as its tensors tell. SD3.5 Large and Large Turbo have the same tensors."""

    name: str
    width: int
    table_side: int


FAMILIES = (
    Family("SD3 Medium", width=1536, table_side=192),
    Family("SD3.5 Medium", width=1536, table_side=384),
    Family("SD3.5 Large", width=2432, table_side=192),
)
OTHER_SIZE = "SD3 architecture, other size"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything about a diffusion model that is not a weight."""

    shape: MMDiTShape
    family: str = OTHER_SIZE
    parameterisation: Parameterisation = field(default_factory=sd3)
    latent_format: LatentFormat = field(default_factory=LatentFormat)

    @property
    def pixel_step(self) -> int:
        """Image sides should be multiples of this many pixels."""
        return self.latent_format.downscale * self.shape.patch

    @property
    def largest_side(self) -> int:
        """Pixels; beyond this the position table ends."""
        return self.pixel_step * self.shape.table_side


def sd3_spec(shape: MMDiTShape) -> ModelSpec:
    """The spec of an SD3-family transformer of this shape, with the default shift of 3."""
    known = {(family.width, family.table_side): family.name for family in FAMILIES}
    return ModelSpec(shape, known.get((shape.width, shape.table_side), OTHER_SIZE))
