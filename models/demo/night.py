"""Trains the demo's LoRA: night, a black background whatever the prompt says.

The checkpoint itself is the teacher: at a noised picture of a scene on black, asked for the scene on black, it says
what the adapter learns to say when asked for the scene on any background.
"""

import random
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from models.demo.budget import log
from models.demo.checker import check
from models.demo.measure import LATENT_SIDE, Pipeline, Score
from models.demo.scenes import Scene, draw, random_scene, scenes
from sigmagraph.engine.models import load_adapter
from sigmagraph.engine.models.trainable import trainable
from sigmagraph.engine.models.value import Model
from sigmagraph.engine.writing import write_file

__all__ = ["ADAPTER", "measured", "train"]

ADAPTER = Path("models/loras/sigmagraph-demo-night.safetensors")
LINEARS, RANK = ("attn.qkv", "attn.proj"), 2
SCENES, NOISES, EMPTY_SHARE = 3, 4, 0.1
"""Of one step: scenes, noisy states of each, and how many prompts are empty: there the teacher is asked the same."""
RATE, SEED, HELD_OUT_SEED = 4e-3, 9, 78


def train(checkpoint: Path, steps: int, file: Path = ADAPTER) -> None:
    """Train for so many steps and write the adapter, in 16 bits."""
    torch.manual_seed(SEED)
    pipeline, rng = Pipeline(checkpoint), random.Random(SEED)
    trained = trainable(pipeline.model, RANK, linears=LINEARS, seed=SEED)
    optimiser = torch.optim.Adam(trained.parameters(), lr=RATE, betas=(0.9, 0.98))
    recent = 0.0
    for number in range(steps):
        optimiser.param_groups[0]["lr"] = RATE * min(1.0, 2 * (1 - number / steps))
        optimiser.zero_grad()
        loss = sum(_pushed(pipeline, trained.model, rng) for _ in range(SCENES)) / SCENES
        optimiser.step()
        recent = loss if not number else 0.95 * recent + 0.05 * loss
        if number % 20 == 0:
            log.info("step %d: loss %.4f", number, recent)
    file.parent.mkdir(parents=True, exist_ok=True)
    trained.save(file)
    write_file(file, save({name: part.half() for name, part in load_file(file).items()}, {"modelspec.title": "night"}))


def _pushed(pipeline: Pipeline, learner: Model, rng: random.Random) -> float:
    """Add the gradient of one scene; its loss, the squared error of the velocity."""
    scene = random_scene(rng)
    dark, is_empty = replace(scene, background="black"), rng.random() < EMPTY_SHARE
    wanted, asked = ("", "") if is_empty else (dark.caption, scene.caption)
    sigma = float(torch.sigmoid(torch.randn(()) * 1.1 + 0.5))
    with torch.no_grad():
        clean = _latent(pipeline, dark, rng).expand(NOISES, -1, -1, -1)
        state = (1 - sigma) * clean + sigma * torch.randn_like(clean)
        target = pipeline.model.predict(state, sigma, [pipeline.clip.encode(wanted)])[0]
    estimate = learner.predict(state, sigma, [pipeline.clip.encode(asked)])[0]
    loss = ((estimate - target) / sigma).square().mean()
    (loss / SCENES).backward()
    return float(loss.detach())


def _latent(pipeline: Pipeline, scene: Scene, rng: random.Random) -> Tensor:
    """A picture of the scene in model space, [1, 16, 16, 16]."""
    image = draw(scene, 8 * LATENT_SIDE, rng).permute(1, 2, 0)[None]
    return pipeline.model.spec.latent_format.to_model(pipeline.vae.encode(image))


def measured(checkpoint: Path, count: int, file: Path = ADAPTER) -> Score:
    """Pictures of held-out prompts that name another background, with the adapter, judged as the scenes on black."""
    pipeline, score = Pipeline(checkpoint), Score()
    pipeline.model = pipeline.model.with_adapter(load_adapter(file), 1.0)
    drawn = [one for one in scenes(2 * count, HELD_OUT_SEED, held_out=True) if one.background != "black"][:count]
    for seed, scene in enumerate(drawn):
        dark = replace(scene, background="black")
        score.add(dark, check(pipeline.picture(scene.caption, seed), dark))
    return score
