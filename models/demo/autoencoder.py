"""Trains the demo's 16-channel autoencoder on drawn scenes.

The loss is the evidence bound of a Gaussian decoder with standard deviation 0.03 in [-1, 1] (about 36 dB), its latent
prior chosen so that the SD3 scale and shift map latents to unit variance.
"""

import random
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.models.arch import Autoencoder, VaeShape
from models.demo import scenes
from models.demo.budget import Clock, learning_rate, log, save, update_average

SHAPE = VaeShape(channels=(64, 64, 128, 128), encoder_blocks=1, decoder_blocks=1)
"""64 channels at least: with 32, each of the 32 norm groups is one channel and flat colours are normalised away."""
PICTURE = 128
LATENT_SCALE, LATENT_SHIFT = 1.5305, 0.0609
KL_WEIGHT = 1.5e-4
BATCH = 4
MUON_RATE, ADAM_RATE = 2e-3, 1e-3


class Optimiser:
    """Muon (Jordan 2024) for the convolutions, each seen as a matrix [out, in * 9], AdamW for the rest."""

    def __init__(self, model: Autoencoder) -> None:
        self.weights = [p for p in model.parameters() if p.ndim == 4]
        self.matrices = [nn.Parameter(p.data.flatten(1)) for p in self.weights]  # views: they share memory
        rest = [p for p in model.parameters() if p.ndim != 4]
        self.parts = (
            torch.optim.Muon(self.matrices, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.0),
        )

    def step(self, rates: tuple[float, float]) -> None:
        """Update with one learning rate for each part."""
        for weight, matrix in zip(self.weights, self.matrices, strict=True):
            matrix.grad = None if weight.grad is None else weight.grad.flatten(1)
        for part, rate in zip(self.parts, rates, strict=True):
            for group in part.param_groups:
                group["lr"] = rate
            part.step()


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL from the posterior to N(shift, 1 / scale^2), mean over all latent elements."""
    scaled = ((mean - LATENT_SHIFT) ** 2 + log_variance.exp()) * LATENT_SCALE**2
    return 0.5 * (scaled - 1 - log_variance - torch.tensor(LATENT_SCALE**2).log()).mean()


def loss_of(model: Autoencoder, image: Tensor) -> tuple[Tensor, Tensor]:
    """The bound and the plain mean squared error."""
    mean, log_variance = model.encode(image)
    mean, log_variance = mean.float(), log_variance.float()
    latent = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
    error = (model.decode(latent).float() - image).square().mean()
    return error + KL_WEIGHT * divergence(mean, log_variance), error


def train(folder: Path, minutes: float, seed: int = 0) -> Autoencoder:
    """Train for `minutes`, resuming from `folder`/vae.pt; returns the averaged model."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    model, file = Autoencoder(SHAPE), folder / "vae.pt"
    # Start with little posterior noise: at unit variance it would drown the signal.
    nn.init.constant_(model.encoder.conv_out.get_parameter("bias")[SHAPE.latent_channels :], -5.0)
    optimiser = Optimiser(model)
    average: dict[str, Tensor] = {}
    clock, step = Clock(minutes), 0
    if file.exists():
        state = torch.load(file, weights_only=True)
        model.load_state_dict(state["model"])
        for part, saved in zip(optimiser.parts, state["optimiser"], strict=True):
            part.load_state_dict(saved)
        average, step, clock.spent_s = state["average"], state["step"], state["spent_s"]
    for fraction in clock.fractions():
        image = scenes.batch(scenes.scenes(BATCH, rng.getrandbits(32), held_out=False), PICTURE, rng)
        with torch.autocast("cpu", torch.bfloat16):
            loss, error = loss_of(model, image)
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step((learning_rate(MUON_RATE, fraction, step), learning_rate(ADAM_RATE, fraction, step)))
        update_average(average, model, step, decay=0.995)
        step += 1
        if step % 100 == 0:
            log.info("vae step %d (%.0f %%): bound %.5f, mse %.5f", step, 100 * fraction, loss.item(), error.item())
            save(file, _state(model, optimiser, average, step, clock))
    save(file, _state(model, optimiser, average, step, clock))
    return load(folder)


def _state(
    model: Autoencoder, optimiser: Optimiser, average: dict[str, Tensor], step: int, clock: Clock
) -> dict[str, object]:
    return {
        "model": model.state_dict(),
        "optimiser": [part.state_dict() for part in optimiser.parts],
        "average": average,
        "step": step,
        "spent_s": clock.spent_s,
    }


def load(folder: Path) -> Autoencoder:
    """The averaged autoencoder that `train` left in `folder`."""
    model = Autoencoder(SHAPE)
    model.load_state_dict(torch.load(folder / "vae.pt", weights_only=True)["average"])
    return model.eval()
