"""Temporal score rescaling on Gaussian data, where the answer at every temperature is known."""

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.sampling import sd3, sdxl
from sigmagraph.engine.sampling.guidance import Estimates, ScoreRescaling
from sigmagraph.engine.sampling.process import Process

X = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
PROCESSES = {"flow": (sd3().process, (0.05, 0.4, 0.9)), "noise": (sdxl().process, (0.1, 1.0, 14.0))}


def denoised(process: Process, sigma: float, variance: float) -> Tensor:
    """The mean of clean data given X, for data of mean 0 and this variance."""
    alpha = process.alpha(sigma)
    return X * (alpha * variance / (alpha**2 * variance + sigma**2))


@pytest.mark.parametrize("kind", PROCESSES)
@pytest.mark.parametrize("k", [0.5, 0.95, 3.0])
@pytest.mark.parametrize("deviation", [0.3, 1.0, 2.5])
def test_gaussian_data_become_data_of_variance_divided_by_k(kind: str, k: float, deviation: float) -> None:
    process, sigmas = PROCESSES[kind]
    for sigma in sigmas:
        guided = denoised(process, sigma, deviation**2)
        found = ScoreRescaling(process, k, deviation)(guided, Estimates(X, sigma, guided, guided))
        torch.testing.assert_close(found, denoised(process, sigma, deviation**2 / k))


def test_nothing_changes_at_k_1_and_where_there_is_no_signal_or_no_noise() -> None:
    process, guided = sd3().process, torch.ones_like(X)
    for k, sigma in ((1.0, 0.5), (2.0, 0.0), (2.0, 1.0)):
        assert ScoreRescaling(process, k)(guided, Estimates(X, sigma, guided, guided)) is guided
