"""Trains the demo's MMDiT and text encoders: rectified flow on encoded scenes, prompts dropped for guidance.

Matrices inside the blocks are trained with Muon (Jordan 2024), everything else with AdamW.
"""

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.demo import autoencoder, scenes, text
from models.demo.budget import Clock, learning_rate, log, save, update_average
from sigmagraph.engine.models.arch import MMDiT, MMDiTShape

SHAPE = MMDiTShape(
    depth=4,
    width=256,
    pooled_width=text.WIDTH_L + text.WIDTH_G,
    context_width=text.WIDTH_T5,
    table_side=24,
)
POOL = 16_000
BATCH = 64
EMPTY_SHARE = 0.10
NO_T5_SHARE = 0.08
CORPUS_SEED, POOL_SEED = 11, 12
PEAK_MUON, PEAK_ADAM = 2e-3, 1e-3


@dataclass(frozen=True)
class Pool:
    """Encoded training pictures: `latents` [N, 16, 16, 16] in model space, float16, and their scenes."""

    latents: Tensor
    drawn: list[scenes.Scene]


class Network(nn.Module):
    """Text encoders and transformer, trained as one."""

    def __init__(self, tokenizers: text.Tokenizers) -> None:
        super().__init__()
        self.text = text.TextEncoders(tokenizers.clip.get_vocab_size(), tokenizers.t5.get_vocab_size())
        self.mmdit = MMDiT(SHAPE)
        initialise(self.mmdit)

    def forward(self, latent: Tensor, timestep: Tensor, tokens: text.Tokens, *, has_t5: bool = True) -> Tensor:
        """The velocity of `latent` [B, 16, h, w] at `timestep` [B]."""
        context, pooled = self.text(tokens)
        context = context if has_t5 else context[:, : text.CHUNK]
        velocity: Tensor = self.mmdit(latent, timestep, pooled, context)
        return velocity


def initialise(model: MMDiT) -> None:
    """Sine position table of SD3's structure; gates and output start at zero, so blocks start as the identity."""
    side, width = model.shape.table_side, model.shape.width
    frequencies = 10_000 ** (-torch.arange(width // 4) / (width / 4))
    angles = (torch.arange(side) - side / 2)[:, None] * frequencies
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)
    table = torch.cat([axis[None].expand(side, -1, -1), axis[:, None].expand(-1, side, -1)], dim=-1)
    model.pos_embed.data.copy_(table.reshape(1, side * side, width))
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for name, parameter in model.named_parameters():
        if "adaLN_modulation" in name or "final_layer.linear" in name:
            nn.init.zeros_(parameter)


def captions_corpus() -> list[str]:
    """Every way of wording a few thousand training scenes: what the tokenizers are made from."""
    rng = random.Random(CORPUS_SEED)
    drawn = scenes.scenes(6000, CORPUS_SEED, held_out=False)
    return [text_of for scene in drawn for text_of in (scene.caption, scenes.wording(scene, rng))]


def make_tokenizers() -> text.Tokenizers:
    """The demo's vocabularies; the same at every call."""
    corpus = captions_corpus()
    return text.Tokenizers(text.clip_tokenizer(corpus), text.t5_tokenizer(corpus))


def encoded_pool(folder: Path) -> Pool:
    """Draw and encode the training pictures, or read them back from `folder`/pool.pt."""
    drawn = scenes.scenes(POOL, POOL_SEED, held_out=False)
    file = folder / "pool.pt"
    if not file.exists():
        model, rng, parts = autoencoder.load(folder), random.Random(POOL_SEED), []
        for start in range(0, POOL, 8):
            image = scenes.batch(drawn[start : start + 8], autoencoder.PICTURE, rng)
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                mean = model.encode(image)[0].float()
            parts.append(((mean - autoencoder.LATENT_SHIFT) * autoencoder.LATENT_SCALE).half())
            if start % 2000 == 0:
                log.info("encoded %d of %d pictures", start, POOL)
        save(file, {"latents": torch.cat(parts)})
    return Pool(torch.load(file, weights_only=True)["latents"], drawn)


def optimisers(network: Network) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the block matrices, AdamW for the rest, each with its peak learning rate."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        is_matrix = name.startswith("mmdit.joint_blocks") and parameter.ndim == 2 and "adaLN" not in name
        (matrices if is_matrix else others).append(parameter)
    muon = torch.optim.Muon(matrices, lr=PEAK_MUON, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(others, lr=PEAK_ADAM, betas=(0.9, 0.98), weight_decay=0.0)
    return [(muon, PEAK_MUON), (adam, PEAK_ADAM)]


@dataclass
class Trainer:
    """All state of the training; `step` makes one update."""

    network: Network
    pool: Pool
    tokenizers: text.Tokenizers
    rng: random.Random
    steps: int = 0

    def __post_init__(self) -> None:
        self.optimisers = optimisers(self.network)
        self.average: dict[str, Tensor] = {}

    def draw(self) -> tuple[Tensor, text.Tokens]:
        """A batch of latents and the ids of their captions, some of them emptied."""
        chosen = [self.rng.randrange(POOL) for _ in range(BATCH)]
        captions = [scenes.wording(self.pool.drawn[i], self.rng) for i in chosen]
        captions = ["" if self.rng.random() < EMPTY_SHARE else caption for caption in captions]
        return self.pool.latents[chosen].float(), self.tokenizers(captions)

    def step(self, fraction: float) -> float:
        """One update; the loss is the mean squared error of the velocity."""
        for optimiser, peak in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(peak, fraction, self.steps)
        latent, tokens = self.draw()
        sigma = torch.sigmoid(torch.randn(BATCH) * 1.1 + 0.5)[:, None, None, None]
        noise = torch.randn_like(latent)
        with torch.autocast("cpu", torch.bfloat16):
            has_t5 = self.rng.random() >= NO_T5_SHARE
            noisy = (1 - sigma) * latent + sigma * noise
            velocity = self.network(noisy, 1000 * sigma.flatten(), tokens, has_t5=has_t5)
        loss: Tensor = (velocity.float() - (noise - latent)).square().mean()
        for optimiser, _ in self.optimisers:
            optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimiser, _ in self.optimisers:
            optimiser.step()
        update_average(self.average, self.network, self.steps)
        self.steps += 1
        return float(loss.detach())

    def state(self, clock: Clock) -> dict[str, object]:
        """Everything needed to go on."""
        return {
            "network": self.network.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser, _ in self.optimisers],
            "average": self.average,
            "steps": self.steps,
            "spent_s": clock.spent_s,
        }

    def restore(self, state: dict[str, Any], clock: Clock) -> None:
        """Go on from `state`."""
        self.network.load_state_dict(state["network"])
        for (optimiser, _), saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.average, self.steps, clock.spent_s = state["average"], state["steps"], state["spent_s"]


def train(folder: Path, minutes: float, seed: int = 0) -> None:
    """Train for `minutes`, resuming from and saving to `folder`/diffusion.pt."""
    torch.manual_seed(seed)
    tokenizers, pool = make_tokenizers(), encoded_pool(folder)
    log.info("latents: mean %.3f, std %.3f", pool.latents.float().mean(), pool.latents.float().std())
    trainer, clock = Trainer(Network(tokenizers), pool, tokenizers, random.Random(seed)), Clock(minutes)
    file = folder / "diffusion.pt"
    if file.exists():
        trainer.restore(torch.load(file, weights_only=True), clock)
    recent = math.nan
    for fraction in clock.fractions():
        loss = trainer.step(fraction)
        recent = loss if math.isnan(recent) else 0.98 * recent + 0.02 * loss
        if trainer.steps % 50 == 0:
            log.info("diffusion step %d (%.1f %%): loss %.4f", trainer.steps, 100 * fraction, recent)
        if trainer.steps % 200 == 0:
            save(file, trainer.state(clock))
    save(file, trainer.state(clock))


def load(folder: Path) -> Network:
    """The averaged network that `train` left in `folder`."""
    network = Network(make_tokenizers())
    network.load_state_dict(torch.load(folder / "diffusion.pt", weights_only=True)["average"])
    return network.eval()
