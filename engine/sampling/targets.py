"""What networks are trained to predict, a row each: how the state is scaled for them and what their output means.

With c_in, c_skip and c_out of Karras 2022 (arXiv:2206.00364, table 1) the estimate is c_skip x + c_out output. States
are alpha latent + sigma noise, with alpha from the row's process.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from torch import Tensor

from sigmagraph.engine.sampling.process import Process, RectifiedFlow, VarianceExploding

if TYPE_CHECKING:
    from sigmagraph.engine.sampling.parameterisation import Parameterisation

TargetName: TypeAlias = Literal["flow", "eps", "v", "edm", "x0", "image_to_image", "cosmos", "lcm"]
LCM_SIGMA_DATA, LCM_TIMESTEP_SCALE = 0.5, 10.0  # of the boundary condition (Luo 2023, arXiv:2310.04378, appendix)


@dataclass(frozen=True)
class Target:
    """One row: `network_input(x, sigma, model)`, `denoised(x, sigma, output, model)` and `first_noise(sigma)`.

    The last is the scale of a run's first noise at the top of the trained range; None means as at any level.
    """

    network_input: Callable[[Tensor, float, "Parameterisation"], Tensor]
    denoised: Callable[[Tensor, float, Tensor, "Parameterisation"], Tensor]
    first_noise: Callable[[float], float] | None = None
    process: Process = field(default_factory=VarianceExploding)


def as_it_is(x: Tensor, sigma: float, model: "Parameterisation") -> Tensor:
    """c_in = 1."""
    return x


def unit_variance(x: Tensor, sigma: float, model: "Parameterisation") -> Tensor:
    """c_in = 1 / sqrt(sigma^2 + sigma_data^2)."""
    return x / math.sqrt(sigma**2 + model.sigma_data**2)


def as_flow(x: Tensor, sigma: float, model: "Parameterisation") -> Tensor:
    """c_in = 1 / (1 + sigma): the state of a flow whose time is sigma / (1 + sigma)."""
    return x * (1.0 / (1.0 + sigma))


def noise(x: Tensor, sigma: float, output: Tensor, model: "Parameterisation") -> Tensor:
    """The output is the noise, or a flow's velocity, noise - latent: x - sigma output either way."""
    return x - output * sigma


def itself(x: Tensor, sigma: float, output: Tensor, model: "Parameterisation") -> Tensor:
    """The output is the estimate."""
    return output


def velocity(x: Tensor, sigma: float, output: Tensor, model: "Parameterisation") -> Tensor:
    """V of a variance-preserving state (Salimans 2022, arXiv:2202.00512): as EDM's, with the other sign."""
    skip, out = c_skip_and_out(sigma, model.sigma_data)
    return x * skip - output * out


def preconditioned(x: Tensor, sigma: float, output: Tensor, model: "Parameterisation") -> Tensor:
    """EDM's F."""
    skip, out = c_skip_and_out(sigma, model.sigma_data)
    return x * skip + output * out


def c_skip_and_out(sigma: float, sigma_data: float) -> tuple[float, float]:
    """sd^2 / (sigma^2 + sd^2) and sigma sd / sqrt(sigma^2 + sd^2)."""
    variance = sigma**2 + sigma_data**2
    return sigma_data**2 / variance, sigma * sigma_data / math.sqrt(variance)


def cosmos(x: Tensor, sigma: float, output: Tensor, model: "Parameterisation") -> Tensor:
    """A flow's velocity in its own time: x / (1 + sigma) - output sigma / (1 + sigma)."""
    return x * (1.0 / (1.0 + sigma)) - output * (sigma / (1.0 + sigma))


def consistent(x: Tensor, sigma: float, output: Tensor, model: "Parameterisation") -> Tensor:
    """Noise, blended with the state towards timestep 0 (Luo 2023)."""
    at = model.timestep(sigma) * LCM_TIMESTEP_SCALE
    power = at**2 + LCM_SIGMA_DATA**2
    return noise(x, sigma, output, model) * (at / math.sqrt(power)) + x * (LCM_SIGMA_DATA**2 / power)


def full_variance(sigma: float) -> float:
    """The variance of data of unit variance at this level."""
    return math.sqrt(1.0 + sigma**2)


TARGETS: dict[str, Target] = {
    "flow": Target(as_it_is, noise, None, RectifiedFlow()),
    "eps": Target(unit_variance, noise, full_variance),
    "v": Target(unit_variance, velocity, full_variance),
    "edm": Target(unit_variance, preconditioned, full_variance),
    "x0": Target(unit_variance, itself, full_variance),
    "image_to_image": Target(as_it_is, itself, full_variance),
    "cosmos": Target(as_flow, cosmos),
    "lcm": Target(unit_variance, consistent, full_variance),
}
