"""What node packs find behind a model: its noise levels, the scale of its latents, and its predictions."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from sigmagraph.engine.models.conditioning import Conditioning
from sigmagraph.engine.models.spec import LatentFormat
from sigmagraph.engine.models.value import Model
from sigmagraph.engine.sampling import Parameterisation
from sigmagraph.nodes.support.packs.weights import checkpoint_tensors

__all__ = ["SD3", "BaseModel", "ModelSampling", "ModelType", "Part", "number"]

LOG = logging.getLogger("sigmagraph.packs")


class ModelType(Enum):
    """What a network predicts, by the names packs compare with."""

    EPS = 1
    V_PREDICTION = 2
    V_PREDICTION_EDM = 3
    STABLE_CASCADE = 4
    EDM = 5
    FLOW = 6
    V_PREDICTION_CONTINUOUS = 7
    FLUX = 8
    IMG_TO_IMG = 9


@dataclass(frozen=True)
class ModelSampling:
    """A model's noise levels, under the names packs ask for them."""

    parameterisation: Parameterisation

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.parameterisation.levels, name)  # sigma_min, sigma_max, shift, timestep, percent_to_sigma

    @property
    def sigmas(self) -> Tensor:
        """All trained levels, ascending."""
        return self.parameterisation.levels.table

    @property
    def sigma_data(self) -> float:
        """The standard deviation of the data."""
        return self.parameterisation.sigma_data

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        """A state as the network takes it."""
        return self.parameterisation.network_input(noise, number(sigma))

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        """The estimate that an answer of the network means."""
        return self.parameterisation.denoised(model_input, number(sigma), model_output)

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, max_denoise: bool = False) -> Tensor:
        """The state at a level of a latent and unit noise."""
        return self.parameterisation.noised(number(sigma), noise, latent_image)

    def inverse_noise_scaling(self, sigma: Tensor, latent: Tensor) -> Tensor:
        """The latent of a state left at a level."""
        return self.parameterisation.released(number(sigma), latent)


@dataclass(frozen=True)
class PackFormat:
    """How a model's latents are scaled, under the names packs ask for."""

    own: LatentFormat

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return self.own.channels

    @property
    def scale_factor(self) -> float:
        """What is left of a latent's numbers in the model."""
        return self.own.scale

    @property
    def shift_factor(self) -> float:
        """What is taken off before."""
        return self.own.shift

    def process_in(self, latent: Tensor) -> Tensor:
        """From the autoencoder's units to the model's."""
        return self.own.to_model(latent)

    def process_out(self, latent: Tensor) -> Tensor:
        """From the model's units to the autoencoder's."""
        return self.own.to_vae(latent)


class SD3:
    """What packs read of a model's configuration; all models here are of this family."""

    def __init__(self, value: Model) -> None:
        levels = value.parameterisation.levels
        shift, scale = getattr(levels, "shift", 1.0), getattr(levels, "timestep_scale", 1000.0)
        self.sampling_settings = {"shift": shift, "multiplier": scale}
        self.latent_format = PackFormat(value.spec.latent_format)
        shape, channels = value.spec.shape, value.spec.latent_format.channels
        self.unet_config = {
            "in_channels": channels,
            "out_channels": channels,
            "patch_size": shape.patch,
            "depth": shape.depth,
            "adm_in_channels": shape.pooled_width,
        }


class Part(nn.Module):
    """What stands for a network or a block of one in a pack's hands, which may say that it should run compiled."""

    def __init__(self, blocks: int = 0) -> None:
        super().__init__()
        if blocks:
            self.joint_blocks = nn.ModuleList(Part() for _ in range(blocks))

    def named_modules(self, *arguments: Any, **more: Any) -> Iterator[tuple[str, nn.Module]]:
        """The blocks, with nothing in them; the log says so, since whoever walks them looks for something to patch."""
        LOG.warning(
            "a pack looks for modules of the network: its blocks are here to be named and compiled, not patched"
        )
        found: Iterator[tuple[str, nn.Module]] = super().named_modules(*arguments, **more)
        return found

    def forward(self, *_: Any, **__: Any) -> NoReturn:
        """Networks are not called by packs."""
        raise NotImplementedError("a network here is asked through the model, with `apply_model`")

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            message = f"a network's {name} is not here for node packs; docs/packs.md lists what they can use"
            raise AttributeError(message) from None


class BaseModel:
    """What a patcher has for its `model`: levels, the scale of latents, and predictions."""

    def __init__(self, value: Model) -> None:
        self.value = value
        self.model_sampling = ModelSampling(value.parameterisation)
        self.latent_format = PackFormat(value.spec.latent_format)
        self.model_type = ModelType.FLOW if value.parameterisation.target == "flow" else ModelType.EPS
        self.device = value.placement.device
        self.model_config = SD3(value)
        self.unet_config = dict(self.model_config.unet_config)
        self.memory_usage_factor = 1.0  # the engine counts memory itself
        self.manual_cast_dtype = None
        self.concat_keys: tuple[str, ...] = ()

    @property
    def diffusion_model(self) -> Part:
        """What stands for the network."""
        return Part(self.value.spec.shape.depth)

    def state_dict_for_saving(
        self, clip_state_dict: Any = None, vae_state_dict: Any = None, clip_vision_state_dict: Any = None
    ) -> dict[str, Tensor]:
        """The weights as a checkpoint has them, and those of other parts that are given, under their prefixes there."""
        return checkpoint_tensors(self.value, clip_state_dict, vae_state_dict, clip_vision_state_dict)

    def get_dtype(self) -> torch.dtype:
        """The precision the network computes in."""
        return self.value.placement.dtype

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a model's {name} is not here for node packs; docs/packs.md lists what they can use")

    def scale_latent_inpaint(self, sigma: Any, noise: Tensor, latent_image: Tensor, **_: Any) -> Tensor:
        """What is kept, at the level of what is made."""
        return self.model_sampling.noise_scaling(sigma, noise, latent_image)

    def process_latent_in(self, latent: Tensor) -> Tensor:
        """From the autoencoder's units to the model's."""
        return self.latent_format.process_in(latent)

    def process_latent_out(self, latent: Tensor) -> Tensor:
        """From the model's units to the autoencoder's."""
        return self.latent_format.process_out(latent)

    def apply_model(
        self, x: Tensor, t: Tensor, c_concat: Any = None, c_crossattn: Any = None, y: Any = None, **_: Any
    ) -> Tensor:
        """The denoised estimate of a state at a level, for a context and a pooled vector."""
        (made,) = self.value.predict(x, number(t), [Conditioning(c_crossattn, y)])
        return made

    def predict(self, x: Tensor, sigma: float, conditionings: Sequence[Conditioning]) -> list[Tensor]:
        """Denoised estimates, one for each conditioning."""
        return self.value.predict(x, sigma, conditionings)


def number(level: Any) -> float:
    """A noise level: packs have it as a tensor with an entry an image."""
    return float(level.flatten()[0]) if isinstance(level, Tensor) else float(level)
