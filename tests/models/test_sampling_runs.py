"""Whole sampling runs on a tiny model against ComfyUI's, official's and diffusers' agreed results."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.models import Conditioning, Model, load_diffusion_model
from sigmagraph.engine.sampling import Cfg, ComfyNoise, Denoiser, Prediction, Sampling, find_solver
from sigmagraph.engine.sampling.noise import Streams
from tests.models.conftest import Arrays, Unpack

WHOLE_RUN = 1e-3


@dataclass(frozen=True)
class Fixed:
    """The recorded initial noise; nothing is drawn later."""

    noise: Tensor

    def initial(self, like: Tensor, batch_index: Sequence[int] | None = None) -> Tensor:
        return self.noise

    def streams(self, *request: Any) -> Streams:
        return ComfyNoise(0).streams(*request)

    def mask_noise(self, like: Tensor) -> Tensor:
        return self.noise


@pytest.fixture(scope="module")
def model(unpack: Unpack) -> Model:
    return load_diffusion_model(unpack("mmdit_c.safetensors"))


def run(model: Model, denoiser: Denoiser, io: dict[str, Tensor], solver: str) -> None:
    sigmas = [float(sigma) for sigma in io["sigmas"]]
    latent = torch.zeros_like(io["noise"])
    recorded = find_solver(solver, bare_revision=1)
    found = Sampling(denoiser, latent, sigmas, model.parameterisation, recorded, noise=Fixed(io["noise"])).run()
    torch.testing.assert_close(found, io["latent"], rtol=0, atol=WHOLE_RUN)
    for_vae = model.spec.latent_format.to_vae(found)
    torch.testing.assert_close(for_vae, io["latent_for_vae.comfy"], rtol=0, atol=WHOLE_RUN)


def pair(io: dict[str, Tensor]) -> tuple[Conditioning, Conditioning]:
    return Conditioning(io["cond"], io["pooled_cond"]), Conditioning(io["uncond"], io["pooled_uncond"])


@pytest.mark.parametrize(
    ("case", "solver", "cfg"), [("euler", "euler", 4.5), ("dpmpp_2m", "dpmpp_2m", 5.0), ("turbo", "euler", 1.0)]
)
def test_a_guided_run_ends_in_the_recorded_latent(
    model: Model, arrays: Arrays, case: str, solver: str, cfg: float
) -> None:
    io = arrays("sampling")[case]
    run(model, Cfg(model.predict, *pair(io), cfg), io, solver)


def test_a_skip_layer_run_ends_in_the_recorded_latent(model: Model, arrays: Arrays) -> None:
    """Scale 2.5, layer 0 skipped, between 1 and 20 percent of the way (both ends included)."""
    io = arrays("sampling")["euler_slg"]
    positive, negative = pair(io)
    skipped = model.with_skipped_layers([0])
    levels = model.parameterisation.levels
    start, end = levels.percent_to_sigma(0.01), levels.percent_to_sigma(0.2)

    def denoiser(x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        uncond, cond = model.predict(x, sigma, [negative, positive])
        guided = uncond + 4.0 * (cond - uncond)
        if end <= sigma <= start:
            guided = guided + 2.5 * (cond - skipped.predict(x, sigma, [positive])[0])
        return Prediction(guided, uncond)

    run(model, denoiser, io, "euler")
