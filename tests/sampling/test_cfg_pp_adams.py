"""cfgpp_ud10_ab against its published formulas, written out once more with numpy."""

import numpy as np
import pytest
import torch

from sigmagraph.engine.sampling import Parameterisation, Prediction, Sampling, sd3, sdxl
from sigmagraph.engine.sampling.noise import ComfyNoise, NoNoise


def estimates(x: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Two different denoisers: guided and unconditional."""
    return np.tanh(x) * 0.5 + 0.1 * sigma, x / (1 + 2 * sigma**2) - 0.2


def literal(x: np.ndarray, sigmas: list[float], is_flow: bool) -> np.ndarray:
    """x' step by step, indexed as the formulas are."""
    alpha = (lambda s: 1 - s) if is_flow else (lambda s: 1.0)
    u, d, big_d = [], [], []
    for i in range(len(sigmas) - 1):
        s, t = sigmas[i], sigmas[i + 1]
        guided, uncond = estimates(x, s)
        u.append((x - alpha(s) * uncond) / s)
        big_d.append(guided)
        v = u[0] if i == 0 else u[i] + 0.1 * (t - s) / (s - sigmas[i - 1]) * (u[i] - u[i - 1])
        e = alpha(t) * guided + t * v - x
        d.append(e / (t - s))
        if i == 0:
            x = x + e
        elif t == 0:
            x = big_d[i] - s * (big_d[i] - big_d[i - 1]) / (s - sigmas[i - 1])
        else:
            before = sigmas[i - 1]
            nodes = np.polyfit([s, before], np.eye(2), 1)  # the Lagrange basis as lines
            c = [np.polyval(np.polyint(nodes[:, k]), t) - np.polyval(np.polyint(nodes[:, k]), s) for k in range(2)]
            h = c[0] * d[i] + c[1] * d[i - 1]
            x = x + e + 0.25 * (h - e)
    return x


@pytest.mark.parametrize("model", [sd3(), sdxl()], ids=["flow", "eps"])
@pytest.mark.parametrize("sigmas", [[0.9, 0.7, 0.62, 0.3, 0.1, 0.0], [0.8, 0.5, 0.2], [0.7, 0.0]])
def test_it_is_the_published_rule(model: Parameterisation, sigmas: list[float]) -> None:
    start = np.linspace(-1.5, 2.0, 16).reshape(1, 1, 4, 4)
    alpha = 1 - sigmas[0] if model.target == "flow" else 1.0
    last = 1 - sigmas[-1] if model.target == "flow" else 1.0

    def denoiser(x: torch.Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        guided, uncond = estimates(x.numpy(), sigma)
        return Prediction(torch.from_numpy(guided), torch.from_numpy(uncond))

    latent = torch.from_numpy(start)
    result = Sampling(denoiser, latent, sigmas, model, "cfgpp_ud10_ab", noise=NoNoise(ComfyNoise(0))).run()
    expected = literal(start * alpha, sigmas, model.target == "flow") / last
    assert np.abs(result.numpy() - expected).max() < 1e-12
