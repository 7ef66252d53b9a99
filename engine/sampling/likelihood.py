"""The likelihood of given data under a denoiser's probability-flow ODE, in nats (Song 2021, arXiv:2011.13456, eq. 39).

With u = ln sigma the flow is dx/du = x - D(x, sigma), whatever the process, and along it d ln p / du = -div(x - D). So
the clean data's density is that of the noise it leads to plus the divergence gathered on the way. The divergence is
Hutchinson's estimate, v . J v with signs v: exact where D's Jacobian is diagonal, as for a Gaussian with independent
values.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadPrediction, BadValue
from sigmagraph.engine.sampling.denoiser import called
from sigmagraph.engine.sampling.noise import PhiloxNoise
from sigmagraph.engine.sampling.parameterisation import Parameterisation

Slope = tuple[Tensor, Tensor]
Prior = Callable[[Tensor], Tensor]
"""States at the last level [B, ...] to the log-density of each [B]."""


def log_likelihood(
    denoiser: Callable[..., object],
    x: Tensor,
    sigmas: Sequence[float],
    model: Parameterisation,
    *,
    seed: int = 0,
    prior: Prior | None = None,
) -> Tensor:
    """The ln p of each clean image of `x` [B, ...] -> [B], up along rising `sigmas` by Runge-Kutta's rule of order 4.

    The first level is above 0: what is finer than it counts as noise. At the last, states are taken for normal with its
    level as deviation. That is exact at a flow's sigma 1 and nearly so far above the data's spread; or `prior` says.
    Four evaluations with gradients a step; `seed` is that of the estimate's signs.
    """
    if len(sigmas) < 2 or sigmas[0] <= 0 or any(a >= b for a, b in pairwise(sigmas)):
        raise BadValue("sigmas", [*sigmas][:6], "two rising levels or more, the first above 0")
    signs = PhiloxNoise(seed).initial(x.detach()).sign()
    alpha = model.process.alpha(sigmas[0])
    state = x.detach() * alpha
    gained = x.new_zeros(x.shape[0]) + x[0].numel() * math.log(alpha)
    for sigma, sigma_next in pairwise(sigmas):
        state, growth = _step(denoiser, state, math.log(sigma), math.log(sigma_next), signs)
        gained = gained + growth
    at_last = prior(state) if prior is not None else _normal(state, sigmas[-1])
    return at_last + gained


def _step(denoiser: Callable[..., object], x: Tensor, start: float, end: float, signs: Tensor) -> Slope:
    """One step of the classical rule for the state and the divergence gathered."""
    width = end - start
    first = _slope(denoiser, x, start, signs)
    second = _slope(denoiser, x + first[0] * (width / 2), start + width / 2, signs)
    third = _slope(denoiser, x + second[0] * (width / 2), start + width / 2, signs)
    fourth = _slope(denoiser, x + third[0] * width, end, signs)
    moved, gathered = (
        (a + 2 * b + 2 * c + d) * (width / 6) for a, b, c, d in zip(first, second, third, fourth, strict=True)
    )
    return x + moved, gathered


def _slope(denoiser: Callable[..., object], x: Tensor, u: float, signs: Tensor) -> Slope:
    """The slope x - D and its divergence per image, by one product with the Jacobian."""
    with torch.inference_mode(False), torch.enable_grad():
        state = x.detach().clone().requires_grad_()
        denoised = called(denoiser, state, math.exp(u), False).denoised  # type: ignore[arg-type]
        _check(denoiser, denoised, state, math.exp(u))
        away = state - denoised
        (product,) = torch.autograd.grad((away * signs).sum(), state)
    return away.detach(), (product * signs).flatten(1).sum(1)


def _check(denoiser: Callable[..., object], denoised: Tensor, x: Tensor, sigma: float) -> None:
    """An estimate like the state, and one that hands gradients through where it depends on the state at all."""
    if denoised.shape != x.shape:
        given = f"shape {tuple(denoised.shape)} for a state of shape {tuple(x.shape)}"
        raise BadPrediction(f"sigma {sigma:.6g}: the denoiser returned {given}")
    if not bool(denoised.isfinite().all()):
        raise BadPrediction(f"sigma {sigma:.6g}: the denoiser returned NaN or infinity")
    if not denoised.requires_grad:
        elsewhere = called(denoiser, (x + 1).requires_grad_(), sigma, False).denoised  # type: ignore[arg-type]
        if not torch.equal(elsewhere, denoised):
            allowed = "one that lets gradients through: no detach, no torch.no_grad; of a model, trainable(model).model"
            raise BadValue("denoiser", "an estimate without a gradient", allowed)


def _normal(x: Tensor, std: float) -> Tensor:
    density = x.square() * (-0.5 / std**2) - math.log(std * math.sqrt(math.tau))
    return density.flatten(1).sum(1)
