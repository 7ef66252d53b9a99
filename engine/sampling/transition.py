"""A step as a distribution: where a stochastic step may lead from a state, and how likely one of those places is."""

import math
from dataclasses import dataclass

from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling.exact import exact


@dataclass(frozen=True, slots=True, eq=False)
class Transition:
    """The normal distribution N(mean, std^2) of the state after a step from `sigma` to `sigma_next`, given all before.

    `mean` [B, ...] may carry gradients. `std` is one number for all elements; 0 where the step is deterministic.
    """

    mean: Tensor
    std: float
    sigma: float
    sigma_next: float

    @property
    def is_stochastic(self) -> bool:
        """Whether the step draws noise, so that there is a density."""
        return self.std > 0

    def log_prob(self, x_next: Tensor, *, per_element: bool = False) -> Tensor:
        """Ln of the density at `x_next` [B, ...], in nats, float64 [B]: the sum over an image's elements.

        `per_element` divides by their number, as Flow-GRPO does.
        """
        self._require_density("log-probability")
        z = (exact(x_next) - exact(self.mean)) / self.std
        values = (-0.5 * (z.square() + math.log(math.tau)) - math.log(self.std)).flatten(1)
        return values.mean(1) if per_element else values.sum(1)

    def divergence(self, other: "Transition", *, per_element: bool = False) -> Tensor:
        """KL(self || other) of two transitions of one step, in nats, float64 [B]."""
        self._require_density("divergence")
        if other.std != self.std:
            raise BadValue("Transition.divergence", other.std, f"a transition of the same step, of std {self.std:g}")
        values = ((exact(self.mean) - exact(other.mean)) / self.std).square().flatten(1) / 2
        return values.mean(1) if per_element else values.sum(1)

    def _require_density(self, what: str) -> None:
        if not self.is_stochastic:
            where = f"{what} of the step from sigma {self.sigma:.6g} to {self.sigma_next:.6g}"
            allowed = "a stochastic step: one within the window, above sigma 0, with a noise level above 0"
            raise BadValue(where, "a deterministic step, which has no density", allowed)
