"""Trains an adapter by a policy gradient: pictures are drawn, judged, and what led to the better ones is made likelier.

The reward of a picture is the share of it that its thing covers, and 0 where the checker does not find in it what the
prompt says. Nobody differentiates the reward. The first steps of a sampling by `flow_grpo` are choices, each drawn from
a distribution that the step tells (Liu 2025, arXiv:2505.05470). The loss is the mean of -A log p over the choices of a
group of pictures of one prompt, A how far a picture's reward is above its group's mean.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from models.demo.budget import log
from models.demo.checker import check, coloured
from models.demo.measure import HELD_OUT_SEED, LATENT_SIDE, Pipeline
from models.demo.scenes import Scene, scenes
from sigmagraph.engine.models.trainable import Trainable, trainable
from sigmagraph.engine.sampling import PhiloxNoise, Sampling, Trajectory, Unguided, find_schedule, run_sigmas

STEPS, CHOICES, NOISE_LEVEL = 6, 3, 0.9
"""Steps of a sampling, how many of them, from the first on, are choices, and how freely they choose."""
PROMPTS, GROUP = 4, 8
RANK, RATE, REWARD_UNIT = 8, 2e-3, 0.05
TRAINING_SEED = 5
HELD_OUT, MEASURED_EVERY = 32, 10
ADAPTER, FIGURES, PLOT = "larger-things.safetensors", "reinforce.json", "reinforce.png"


class Judged(NamedTuple):
    """Of one picture, or means over several: the reward, and whether the picture is right."""

    reward: float
    right: float


@dataclass
class Group:
    """Pictures of one prompt: the run, the way it took, and the rewards [GROUP]."""

    run: Sampling
    way: Trajectory
    judged: list[Judged]

    def push(self) -> None:
        """Add to the gradient: each choice again, now with gradients, weighed by what came of it."""
        rewards = torch.tensor([one.reward for one in self.judged], dtype=torch.float64)
        advantage = (rewards - rewards.mean()) / REWARD_UNIT
        for tick in replace(self.run, gradients=True).along(self.way.x):
            if tick.transition is None or not tick.transition.is_stochastic:
                break  # the window of choices is over
            loss = -(advantage * tick.transition.log_prob(tick.x, per_element=True)).mean()
            (loss / (CHOICES * PROMPTS)).backward()


class Studio:
    """The checkpoint, what is trained of it, and how it samples: without guidance, one evaluation a step."""

    def __init__(self, checkpoint: Path) -> None:
        self.pipeline = Pipeline(checkpoint)
        self.trained: Trainable = trainable(self.pipeline.model, RANK)
        self.levels = run_sigmas(find_schedule("sgm_uniform"), self.pipeline.model.parameterisation.levels, STEPS)

    def sampling(self, scene: Scene, images: int, seed: int, solver: str, **options: object) -> Sampling:
        """A run for one prompt."""
        model = self.trained.model
        denoiser = Unguided(model.predict, self.pipeline.clip.encode(scene.caption))
        blank, noise = torch.zeros(images, 16, LATENT_SIDE, LATENT_SIDE), PhiloxNoise(seed)
        return Sampling(denoiser, blank, self.levels, model.parameterisation, solver, noise=noise, options=options)

    @torch.inference_mode()
    def judge(self, latent: Tensor, scene: Scene) -> list[Judged]:
        """Every picture of a batch."""
        images = self.pipeline.vae.decode(self.pipeline.model.spec.latent_format.to_vae(latent)).permute(0, 3, 1, 2)
        verdicts = [check(image, scene).is_right for image in images]
        areas = [float(coloured(image).float().mean()) for image in images]
        return [Judged(area * right, float(right)) for area, right in zip(areas, verdicts, strict=True)]

    def draw(self, scene: Scene, seed: int) -> Group:
        """A group by choices, judged."""
        run, way = (
            self.sampling(scene, GROUP, seed, "flow_grpo", noise_level=NOISE_LEVEL, sde_end_step=CHOICES),
            Trajectory(),
        )
        return Group(run, way, self.judge(run.run(on_tick=way.add), scene))

    def measured(self, drawn: Sequence[Scene]) -> Judged:
        """Means over prompts, a picture each by euler; the seed is the prompt's place."""
        return mean([self.judge(self.sampling(one, 1, seed, "euler").run(), one)[0] for seed, one in enumerate(drawn)])


def mean(found: Sequence[Judged]) -> Judged:
    """Means of both figures."""
    return Judged(*(sum(values) / len(found) for values in zip(*found, strict=True)))


def single_things(count: int, seed: int, *, held_out: bool) -> list[Scene]:
    """Scenes of one thing each: what grows must not touch another."""
    return [one for one in scenes(2 * count, seed, held_out=held_out) if len(one.things) == 1][:count]


def train(
    checkpoint: Path, rounds: int, folder: Path | None = None, held_out: int = HELD_OUT
) -> list[dict[str, float]]:
    """Train for so many rounds; the figures of held-out prompts, from round 0 on. `folder` gets what was learnt."""
    studio, asked = Studio(checkpoint), single_things(PROMPTS * rounds, TRAINING_SEED, held_out=False)
    unseen = single_things(held_out, HELD_OUT_SEED, held_out=True)
    optimiser = torch.optim.Adam(studio.trained.parameters(), lr=RATE, betas=(0.9, 0.98))
    found = [{"round": 0.0, **studio.measured(unseen)._asdict()}]
    for number in range(rounds):
        groups = [studio.draw(asked[place], place) for place in range(PROMPTS * number, PROMPTS * (number + 1))]
        optimiser.param_groups[0]["lr"] = RATE * min(1.0, 2 * (1 - number / rounds))  # falls in the second half
        optimiser.zero_grad()
        for group in groups:
            group.push()
        torch.nn.utils.clip_grad_norm_(studio.trained.parameters(), 1.0)
        optimiser.step()
        drawn = mean([one for group in groups for one in group.judged])
        log.info("round %d: reward %.4f, right %.0f %%", number + 1, drawn.reward, 100 * drawn.right)
        if (number + 1) % MEASURED_EVERY == 0 or number + 1 == rounds:
            found.append({"round": float(number + 1), **studio.measured(unseen)._asdict()})
            log.info("held-out prompts: %s", found[-1])
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        studio.trained.save(folder / ADAPTER)
        (folder / FIGURES).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        plot(found, folder / PLOT)
    return found


def plot(found: Sequence[dict[str, float]], file: Path) -> None:
    """Reward and share of right pictures over the rounds; needs matplotlib, of the extra `plots`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    left = figure.add_subplot()
    right, rounds = left.twinx(), [one["round"] for one in found]
    left.plot(rounds, [one["reward"] for one in found], "o-", label="reward")
    right.plot(rounds, [one["right"] for one in found], "s:", color="grey", label="right")
    left.set(xlabel="rounds", ylabel="reward: share covered")
    right.set(ylabel="share of right pictures (dotted)", ylim=(0.0, 1.05))
    figure.savefig(file, dpi=110)
