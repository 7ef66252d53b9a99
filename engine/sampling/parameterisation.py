"""What a network was trained to say: raw output -> denoised, input scaling, timestep, start and end states.

A `Parameterisation` is a value made of levels and a target; it knows no schedule, no solver and no network.
"""

import math
from dataclasses import dataclass, field

from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling.levels import (
    ContinuousLevels,
    DiscreteLevels,
    DistilledLevels,
    FlowLevels,
    FluxLevels,
    Levels,
)
from sigmagraph.engine.sampling.options import is_number
from sigmagraph.engine.sampling.process import Process
from sigmagraph.engine.sampling.targets import TARGETS, TargetName

AT_MAXIMUM = 1e-5  # a first sigma this close to the trained maximum counts as the maximum


@dataclass(frozen=True)
class Parameterisation:
    """Levels plus what the network predicts at them; `sigma_data` is the data's standard deviation (EDM, else 1)."""

    levels: Levels = field(default_factory=FlowLevels)
    target: TargetName = "flow"
    sigma_data: float = 1.0

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise BadValue("Parameterisation.target", self.target, " or ".join(TARGETS))

    @property
    def process(self) -> Process:
        """How signal and noise mix in this model's states."""
        return TARGETS[self.target].process

    def timestep(self, sigma: float) -> float:
        """What the network is told as its time."""
        return self.levels.timestep(sigma)

    def network_input(self, x: Tensor, sigma: float) -> Tensor:
        """Scale a state to what the network was trained to see."""
        return TARGETS[self.target].network_input(x, sigma, self)

    def denoised(self, x: Tensor, sigma: float, output: Tensor) -> Tensor:
        """Turn the raw `output` for state `x` into an estimate of the clean latent, in the state's precision."""
        return TARGETS[self.target].denoised(x, sigma, output.to(x.dtype), self)

    def noised(self, sigma: float, noise: Tensor, latent: Tensor) -> Tensor:
        """The state at level `sigma` of a clean `latent` with this unit `noise`."""
        return noise * sigma + latent * self.process.alpha(sigma)

    def start(self, sigma: float, noise: Tensor, latent: Tensor) -> Tensor:
        """The state a run starts from: `noised`, but at the trained maximum the noise may get its full variance."""
        first_noise = TARGETS[self.target].first_noise
        if first_noise is None or not self.is_maximum(sigma):
            return self.noised(sigma, noise, latent)
        return noise * first_noise(sigma) + latent

    def released(self, sigma: float, x: Tensor) -> Tensor:
        """Undo the signal's scale in a state left at level `sigma` (0 after a whole run; at 1 there is no signal)."""
        alpha = self.process.alpha(sigma)
        return x / alpha if 0 < alpha < 1 else x

    def is_maximum(self, sigma: float) -> bool:
        """Whether this level counts as the top of the trained range, or lies above it."""
        return sigma > self.levels.sigma_max or math.isclose(sigma, self.levels.sigma_max, rel_tol=AT_MAXIMUM)


def sd3(shift: float = 3.0) -> Parameterisation:
    """Stable Diffusion 3 and 3.5: rectified flow, timestep 1000 sigma."""
    if not (is_number(shift) and 0 <= shift < math.inf):
        raise BadValue("sd3(shift)", shift, "a number, 0 or more")
    return Parameterisation(FlowLevels(shift=shift), "flow")


def flux(mu: float = 1.15) -> Parameterisation:
    """Flux: rectified flow with an exponential shift, fed sigma itself."""
    if not (is_number(mu) and math.isfinite(mu)):
        raise BadValue("flux(mu)", mu, "a finite number")
    return Parameterisation(FluxLevels(mu), "flow")


def sdxl(target: TargetName = "eps", zero_terminal_snr: bool = False) -> Parameterisation:
    """SD1 and SDXL: eps or v on the linear-in-sqrt(beta) table."""
    return Parameterisation(DiscreteLevels(zero_terminal_snr=zero_terminal_snr), target)


def lcm(zero_terminal_snr: bool = False) -> Parameterisation:
    """A latent consistency model of the SD1 family: noise, blended with the state towards timestep 0 (Luo 2023)."""
    return Parameterisation(DistilledLevels(zero_terminal_snr=zero_terminal_snr), "lcm")


def edm(lowest: float = 0.002, highest: float = 120.0, sigma_data: float = 1.0) -> Parameterisation:
    """EDM (Karras 2022, arXiv:2206.00364, table 1, last column)."""
    if not (is_number(lowest) and is_number(highest) and 0 < lowest < highest):
        raise BadValue("edm(lowest, highest)", (lowest, highest), "two levels above 0, the first below the second")
    return Parameterisation(ContinuousLevels(lowest, highest), "edm", sigma_data)


def continuous_v(lowest: float = 0.03, highest: float = 500.0) -> Parameterisation:
    """v-prediction at continuous levels, fed 2/pi atan(sigma)."""
    return Parameterisation(ContinuousLevels(lowest, highest, "atan"), "v")
