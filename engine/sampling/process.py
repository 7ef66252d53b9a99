"""How signal and noise mix at a noise level: alpha, half log-SNR and its inverse, and the ancestral split.

Numbers only, all Python floats: nothing here knows a tensor, a model or a schedule. The state at level sigma is
`alpha(sigma) * latent + sigma * noise`; `log_snr` is ln(alpha / sigma).
"""

import math
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Ancestral:
    """One step split in two: go down to `sigma_down`, then `x * rescale + sigma_up * noise` is at the target level."""

    sigma_down: float
    rescale: float
    sigma_up: float


class Process(Protocol):
    """What a solver may ask about the way noise was added."""

    def alpha(self, sigma: float) -> float:
        """The signal's scale at this level."""

    def log_snr(self, sigma: float) -> float:
        """ln(alpha / sigma); plus infinity at sigma 0, minus infinity where no signal is left."""

    def sigma(self, log_snr: float) -> float:
        """The level with this half log-SNR: the inverse of `log_snr`."""

    def ancestral(self, sigma: float, sigma_next: float, eta: float) -> Ancestral:
        """Split the step so that a share `eta` of the noise at `sigma_next` is fresh."""


@dataclass(frozen=True, slots=True)
class VarianceExploding:
    """alpha = 1: eps, v, EDM and x0 models, with the input scaling left to the parameterisation."""

    def alpha(self, sigma: float) -> float:
        return 1.0

    def log_snr(self, sigma: float) -> float:
        return -math.log(sigma) if sigma > 0 else math.inf

    def sigma(self, log_snr: float) -> float:
        return math.exp(-log_snr)

    def ancestral(self, sigma: float, sigma_next: float, eta: float) -> Ancestral:
        """Variances add: sigma_down^2 + sigma_up^2 = sigma_next^2 (k-diffusion, Crowson 2022)."""
        down, up = split(sigma, sigma_next, eta)
        return Ancestral(down, 1.0, up)


@dataclass(frozen=True, slots=True)
class RectifiedFlow:
    """alpha = 1 - sigma (Liu 2022, arXiv:2209.03003); the ODE in sigma is the same as for alpha = 1."""

    def alpha(self, sigma: float) -> float:
        return 1.0 - sigma

    def log_snr(self, sigma: float) -> float:
        if sigma <= 0:
            return math.inf
        return math.log((1.0 - sigma) / sigma) if sigma < 1 else -math.inf

    def sigma(self, log_snr: float) -> float:
        return 1.0 / (1.0 + math.exp(log_snr)) if log_snr < 700 else math.exp(-log_snr)

    def ancestral(self, sigma: float, sigma_next: float, eta: float) -> Ancestral:
        """Adding noise moves a flow state to another alpha too, so the signal is rescaled on the way back up."""
        if eta == 0:
            return Ancestral(sigma_next, 1.0, 0.0)
        down = sigma_next * (1.0 + (sigma_next / sigma - 1.0) * eta)
        rescale = (1.0 - sigma_next) / (1.0 - down)
        return Ancestral(down, rescale, math.sqrt(max(sigma_next**2 - (down * rescale) ** 2, 0.0)))


def split(sigma: float, sigma_next: float, eta: float) -> tuple[float, float]:
    """(sigma_down, sigma_up) of an ancestral step where alpha = 1; an infinite `sigma` renoises fully."""
    if eta == 0:
        return sigma_next, 0.0
    share = 1.0 if math.isinf(sigma) else math.sqrt(max(sigma**2 - sigma_next**2, 0.0)) / sigma
    up = min(sigma_next, eta * sigma_next * share)
    return math.sqrt(sigma_next**2 - up**2), up
