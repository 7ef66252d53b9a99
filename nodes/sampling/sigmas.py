"""Lists of noise levels: cut, turned, written by hand."""

import math
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import Options, Output, Range, Tooltip, node
from sigmagraph.nodes.support.types import Model, Sigmas, SigmasValue
from sigmagraph.nodes.support.widgets import Fraction

__all__ = ["NODES"]

CATEGORY = "sampling/custom_sampling/sigmas"
HALVES = [Output("SIGMAS", "high_sigmas"), Output("SIGMAS", "low_sigmas")]
LOWEST_START = 1e-4  # what a turned list starts from instead of 0
CURVES: dict[str, Callable[[float], float]] = {
    "linear": lambda x: x,
    "cosine": lambda x: math.sin(x * math.pi / 2),
    "sine": lambda x: 1 - math.cos(x * math.pi / 2),
}
Bound = Range(0.0, 20_000.0, step=0.01, round=False)


@node("SplitSigmas", category=CATEGORY, outputs=HALVES)
def split_sigmas(*, sigmas: Sigmas, step: Annotated[int, Range(0, 10_000)] = 0) -> tuple[SigmasValue, SigmasValue]:
    """The levels up to a step, and those from it on; both hold the level between."""
    return sigmas[: step + 1], sigmas[step:]


@node("SplitSigmasDenoise", category=CATEGORY, outputs=HALVES)
def split_sigmas_denoise(*, sigmas: Sigmas, denoise: Fraction = 1.0) -> tuple[SigmasValue, SigmasValue]:
    """Split so that the second part has this share of the steps."""
    kept = round(max(len(sigmas) - 1, 0) * denoise)
    return sigmas[: -kept or 0], sigmas[-(kept + 1) :]


@node("FlipSigmas", category=CATEGORY)
def flip_sigmas(*, sigmas: Sigmas) -> Sigmas:
    """The levels in the other order; a 0 at the start becomes a little more."""
    turned = sigmas[::-1]
    return (LOWEST_START, *turned[1:]) if turned and turned[0] == 0 else turned


@node("SetFirstSigma", category=CATEGORY)
def set_first_sigma(
    *, sigmas: Sigmas, sigma: Annotated[float, Range(0.0, 20_000.0, step=0.001, round=False)] = 136.0
) -> Sigmas:
    """The levels with another one at the start."""
    return (sigma, *sigmas[1:])


@node("ExtendIntermediateSigmas", category=CATEGORY)
def extend_sigmas(
    *,
    sigmas: Sigmas,
    steps: Annotated[int, Range(1, 100)] = 2,
    start_at_sigma: Annotated[float, Range(-1.0, 20_000.0, step=0.01, round=False)] = -1.0,
    end_at_sigma: Annotated[float, Bound] = 12.0,
    spacing: Annotated[str, Options(list(CURVES))] = "linear",
) -> Sigmas:
    """Each step between two levels taken in several; -1 starts at the first."""
    highest = math.inf if start_at_sigma < 0 else start_at_sigma
    found: list[float] = []
    for sigma, sigma_next in pairwise(sigmas):
        shares = range(steps) if end_at_sigma <= sigma <= highest else range(1)
        found += [sigma + CURVES[spacing](share / steps) * (sigma_next - sigma) for share in shares]
    return (*found, *sigmas[-1:])


@node("ManualSigmas", category=CATEGORY)
def manual_sigmas(
    *, sigmas: Annotated[str, Tooltip("Numbers from high to low; the last is usually 0.")] = "1, 0.5"
) -> Sigmas:
    """Levels written by hand, separated by commas or spaces."""
    words = [word for word in re.split(r"[,;\s]+", sigmas.strip(" []")) if word]
    try:
        return tuple(float(word) for word in words)
    except ValueError as error:
        raise BadValue("sigmas", sigmas, "numbers, separated by commas or spaces") from error


@node("SamplingPercentToSigma", category=CATEGORY, outputs=[Output("FLOAT", "sigma_value")])
def percent_to_sigma(
    *,
    model: Model,
    sampling_percent: Annotated[float, Range(0.0, 1.0, step=0.0001)] = 0.0,
    return_actual_sigma: Annotated[bool, Tooltip("At 0 and 1, the model's own highest and lowest level.")] = False,
) -> float:
    """The level reached after this share of the way."""
    levels = model.parameterisation.levels
    if return_actual_sigma and sampling_percent in (0.0, 1.0):
        return levels.sigma_max if sampling_percent == 0 else levels.sigma_min
    return levels.percent_to_sigma(sampling_percent)


NODES = (
    split_sigmas,
    split_sigmas_denoise,
    flip_sigmas,
    set_first_sigma,
    extend_sigmas,
    manual_sigmas,
    percent_to_sigma,
)
