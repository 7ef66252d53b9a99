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
    has_dual_attention: bool = False


FAMILIES = (
    Family("SD3 Medium", width=1536, table_side=192),
    Family("SD3.5 Medium", width=1536, table_side=384, has_dual_attention=True),
    Family("SD3.5 Large", width=2432, table_side=192),
)
TOKENS_WITHOUT_TABLE = 1024  # a side: what nodes offer, 16384 pixels
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
        return self.pixel_step * (self.shape.table_side or TOKENS_WITHOUT_TABLE)


def sd3_spec(shape: MMDiTShape) -> ModelSpec:
    """The spec of an SD3-family transformer of this shape, with the default shift of 3."""
    return ModelSpec(shape, family_of(shape.width, shape.table_side, bool(shape.dual_attention_blocks)))


def family_of(width: int, table_side: int, has_dual_attention: bool) -> str:
    """Which model it is, by its numbers; where there is no position table, by dual attention."""
    for family in FAMILIES:
        is_it = family.table_side == table_side if table_side else family.has_dual_attention == has_dual_attention
        if family.width == width and is_it:
            return family.name
    return OTHER_SIZE
