"""Trains the demo's 16-channel autoencoder on drawn scenes.

The loss is the evidence bound of a Gaussian decoder with standard deviation 0.03 in [-1, 1] (about 36 dB), its latent
prior chosen so that the SD3 scale and shift map latents to unit variance.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from models.demo import scenes
from models.demo.budget import Clock, learning_rate, log, save, update_average
from sigmagraph.engine.models.arch import Autoencoder, VaeShape

SHAPE = VaeShape(channels=(64, 64, 128, 128), encoder_blocks=1, decoder_blocks=1)
"""64 channels at least: with 32, each of the 32 norm groups is one channel and flat colours are normalised away."""
PICTURE = 128
LATENT_SCALE, LATENT_SHIFT = 1.5305, 0.0609
KL_WEIGHT = 1.5e-4
BATCH = 4
MUON_RATE, ADAM_RATE = 2e-3, 1e-3


class Optimiser:
    """Muon (Jordan 2024) for the convolutions, each seen as a matrix [out, in * 9], AdamW for the rest."""

    def __init__(self, model: nn.Module) -> None:
        self.weights = [p for p in model.parameters() if p.ndim == 4]
        self.matrices = [nn.Parameter(p.data.flatten(1)) for p in self.weights]  # views: they share memory
        rest = [p for p in model.parameters() if p.ndim != 4]
        self.parts = (
            torch.optim.Muon(self.matrices, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.0),
        )

    def step(self, rates: Sequence[float]) -> None:
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


def decoder_loss_of(model: Autoencoder, image: Tensor) -> tuple[Tensor, Tensor]:
    """The squared error of the decoder alone, twice; its latents carry half of the posterior's noise.

    Some noise must stay: what a diffusion model makes is never quite what the encoder would have given.
    """
    with torch.no_grad():
        mean, log_variance = model.encode(image)
        latent = mean.float() + 0.5 * torch.randn_like(mean.float()) * (0.5 * log_variance.float()).exp()
    error = (model.decode(latent).float() - image).square().mean()
    return error, error


@dataclass
class Stage:
    """One training stage: what it updates, by which loss, and the file that keeps its state."""

    model: Autoencoder
    updated: nn.Module
    loss: Callable[[Autoencoder, Tensor], tuple[Tensor, Tensor]]
    file: Path
    steps: int = 0

    def __post_init__(self) -> None:
        self.optimiser = Optimiser(self.updated)
        self.average: dict[str, Tensor] = {}

    def run(self, clock: Clock, rng: random.Random) -> None:
        """Update until the time is up, resuming from the file and saving to it."""
        if self.file.exists():
            self.restore(clock)
        for fraction in clock.fractions():
            image = scenes.batch(scenes.scenes(BATCH, rng.getrandbits(32), held_out=False), PICTURE, rng)
            with torch.autocast("cpu", torch.bfloat16):
                loss, error = self.loss(self.model, image)
            self.model.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.updated.parameters(), 1.0)
            rates = [learning_rate(peak, fraction, self.steps) for peak in (MUON_RATE, ADAM_RATE)]
            self.optimiser.step(rates)
            update_average(self.average, self.model, self.steps, decay=0.995)
            self.steps += 1
            if self.steps % 100 == 0:
                log.info("%s step %d (%.0f %%): mse %.5f", self.file.stem, self.steps, 100 * fraction, error.item())
                self.save(clock)
        self.save(clock)

    def save(self, clock: Clock) -> None:
        """Everything needed to go on."""
        state = {
            "model": self.model.state_dict(),
            "optimiser": [part.state_dict() for part in self.optimiser.parts],
            "average": self.average,
            "steps": self.steps,
            "spent_s": clock.spent_s,
        }
        save(self.file, state)

    def restore(self, clock: Clock) -> None:
        """Go on from the file."""
        state = torch.load(self.file, weights_only=True)
        self.model.load_state_dict(state["model"])
        for part, saved in zip(self.optimiser.parts, state["optimiser"], strict=True):
            part.load_state_dict(saved)
        self.average, self.steps, clock.spent_s = state["average"], state["steps"], state["spent_s"]


def train(folder: Path, minutes: float, seed: int = 0) -> None:
    """Train encoder and decoder for `minutes`; `folder`/vae.pt keeps the state."""
    torch.manual_seed(seed)
    model = Autoencoder(SHAPE)
    # Start with little posterior noise: at unit variance it would drown the signal.
    nn.init.constant_(model.encoder.conv_out.get_parameter("bias")[SHAPE.latent_channels :], -5.0)
    Stage(model, model, loss_of, folder / "vae.pt").run(Clock(minutes), random.Random(seed))


def train_decoder(folder: Path, minutes: float, seed: int = 1) -> None:
    """Go on with the decoder alone, so that latents stay what they are; `folder`/decoder.pt keeps the state."""
    torch.manual_seed(seed)
    model = load_stage(folder / "vae.pt")
    Stage(model, model.decoder, decoder_loss_of, folder / "decoder.pt").run(Clock(minutes), random.Random(seed))


def load_stage(file: Path) -> Autoencoder:
    """The averaged autoencoder of one stage."""
    model = Autoencoder(SHAPE)
    model.load_state_dict(torch.load(file, weights_only=True)["average"])
    return model.eval()


def load(folder: Path) -> Autoencoder:
    """The newest averaged autoencoder that training left in `folder`."""
    polished = folder / "decoder.pt"
    return load_stage(polished if polished.exists() else folder / "vae.pt")
