"""How well the checkpoint obeys: pictures for held-out prompts through the real pipeline, judged by `checker`."""

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from models.demo.checker import Verdict, check
from models.demo.scenes import Scene, draw, scenes
from sigmagraph.engine.models import load_checkpoint
from sigmagraph.engine.sampling import Cfg, ComfyNoise, Sampling, find_schedule, find_solver, run_sigmas

STEPS, GUIDANCE, LATENT_SIDE = 20, 4.0, 16
HELD_OUT_SEED = 77
RECONSTRUCTED = 64


@dataclass
class Score:
    """Counts over many pictures."""

    total: int = 0
    right: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[Scene, Verdict]] = field(default_factory=list)

    def add(self, scene: Scene, verdict: Verdict) -> None:
        """Count one picture."""
        self.total += 1
        for name in ("has_shapes", "has_colours", "has_positions", "has_background", "is_right"):
            self.right[name] += getattr(verdict, name)
        if not verdict.is_right:
            self.wrong.append((scene, verdict))

    def __str__(self) -> str:
        parts = [f"{name.partition('_')[2]} {count / self.total:.1%}" for name, count in self.right.items()]
        return f"{self.total} pictures: " + ", ".join(parts)


class Pipeline:
    """The checkpoint behind one call: captions -> pictures, as the workflow's nodes would make them."""

    def __init__(self, file: Path, *, solver: str = "euler", schedule: str = "simple", steps: int = STEPS) -> None:
        model, clip, vae = load_checkpoint(file)
        if clip is None or vae is None:
            raise ValueError(f"{file} lacks text encoders or a VAE")
        self.model, self.clip, self.vae = model, clip, vae
        self.solver, self.schedule, self.steps = find_solver(solver), find_schedule(schedule), steps

    @torch.inference_mode()
    def picture(self, caption: str, seed: int) -> Tensor:
        """[3, 128, 128] in 0..1."""
        parameterisation = self.model.parameterisation
        sigmas = run_sigmas(self.schedule, parameterisation.levels, self.steps, 1.0, self.solver.drops_penultimate)
        denoiser = Cfg(self.model.predict, self.clip.encode(caption), self.clip.encode(""), GUIDANCE)
        blank = torch.zeros(1, 16, LATENT_SIDE, LATENT_SIDE)
        latent = Sampling(denoiser, blank, sigmas, parameterisation, self.solver, noise=ComfyNoise(seed)).run()
        image: Tensor = self.vae.decode(self.model.spec.latent_format.to_vae(latent))[0].permute(2, 0, 1)
        return image


def judged(pipeline: Pipeline, drawn: Sequence[Scene]) -> Iterator[tuple[Scene, Tensor, Verdict]]:
    """Each scene with its picture and what the checker says of it; the seed is the scene's place in the list."""
    for seed, scene in enumerate(drawn):
        image = pipeline.picture(scene.caption, seed)
        yield scene, image, check(image, scene)


def held_out(count: int = 200) -> list[Scene]:
    """The scenes that the figures of the model card are measured on."""
    return scenes(count, HELD_OUT_SEED, held_out=True)


@torch.inference_mode()
def reconstruction(pipeline: Pipeline) -> float:
    """Peak signal to noise of unseen pictures through the file's VAE, mean over pictures, in decibel."""
    rng = random.Random(HELD_OUT_SEED)
    ratios = []
    for scene in scenes(RECONSTRUCTED, HELD_OUT_SEED, held_out=True):
        image = draw(scene, 8 * LATENT_SIDE, rng).permute(1, 2, 0)[None]
        error = (pipeline.vae.decode(pipeline.vae.encode(image)) - image).square().mean()
        ratios.append(-10 * math.log10(float(error)))
    return sum(ratios) / len(ratios)
