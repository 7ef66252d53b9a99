"""For the sampler lab: a run with its way, the levels it takes, and how far two results lie apart."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue, EngineError
from sigmagraph.engine.graph.node import Output, Range, Tooltip, UiResult, node
from sigmagraph.engine.models.text.encode import nobody
from sigmagraph.engine.sampling import ComfyNoise, run_sigmas
from sigmagraph.engine.sampling.parameterisation import Parameterisation
from sigmagraph.engine.sampling.rehearsal import rehearsed
from sigmagraph.engine.sampling.solver_run import Tick
from sigmagraph.nodes.sampling.ksampler import Denoised, Negative, Positive, Start
from sigmagraph.nodes.support.denoising import Way, denoised_latent, in_vae_units
from sigmagraph.nodes.support.distances import relative_distance
from sigmagraph.nodes.support.graph_names import schedule_in_graph, solver_in_graph
from sigmagraph.nodes.support.kept_predictions import Unfinished
from sigmagraph.nodes.support.types import Latent, LatentValue, Model, Progressing, Seed
from sigmagraph.nodes.support.widgets import Fraction, GuidanceScale, SamplerName, ScheduleName, Steps

__all__ = ["NODES"]

CATEGORY = "sampling/lab"
MOST_ROWS, MOST_STEPS, MOST_TOGETHER = 400, 1000, 20_000
Names = Annotated[str, Tooltip("Names, separated by commas.")]
FILM = (
    Output("LATENT", tooltip="The latent without its noise, as KSampler gives it."),
    Output("LATENT", name="state", tooltip="The state after each of these steps, one batch."),
    Output("LATENT", name="denoised", tooltip="What the model took the clean latent for there, one batch."),
)


@dataclass
class _Film:
    """Keeps the state and the estimate of so many steps, evenly spread and with the last."""

    steps: int
    frames: int
    kept: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = min(self.frames, self.steps)
        self._wanted = {round((place + 1) * self.steps / count) for place in range(count)}

    def __call__(self, tick: Tick) -> None:
        """One evaluation is done."""
        if tick.step in self._wanted:
            self.kept[tick.step] = tick.x[:1].float().cpu(), tick.denoised[:1].float().cpu()

    def batches(self) -> list[Tensor]:
        """States and estimates, each [frames, C, h, w] in model space; nothing where no step was made."""
        kept = [self.kept[step] for step in sorted(self.kept)]
        return [torch.cat(way) for way in zip(*kept, strict=True)]


@node("SamplerTrajectory", category=CATEGORY, display_name="KSampler (Trajectory)", lane="device", outputs=FILM)
def sampler_trajectory(
    *,
    model: Denoised,
    seed: Seed = 0,
    steps: Steps = 20,
    cfg: GuidanceScale = 8.0,
    sampler_name: SamplerName = "euler",
    scheduler: ScheduleName = "simple",
    positive: Positive,
    negative: Negative,
    latent_image: Start,
    denoise: Fraction = 1.0,
    frames: Annotated[int, Range(1, 64), Tooltip("How many steps are kept.")] = 8,
    unfinished: Unfinished = None,
) -> Way:
    """Samples as KSampler does, bit for bit, and keeps state and estimate of some steps of the first image."""
    solver, schedule = solver_in_graph(sampler_name), schedule_in_graph(scheduler)
    sigmas = run_sigmas(schedule, model.parameterisation.levels, steps, denoise, solver.drops_penultimate)
    film = _Film(max(1, len(sigmas) - 1), frames)
    denoiser, noise = model.guided(positive, negative, cfg), ComfyNoise(seed)
    done = yield from denoised_latent(model, denoiser, latent_image, sigmas, solver, noise, kept=unfinished, watch=film)
    places = sorted(film.kept) or [0]
    ways = [in_vae_units(model, LatentValue(batch), batch) for batch in film.batches()]
    shown = {"step": places, "sigma": [sigmas[place] if place < len(sigmas) else 0.0 for place in places]}
    still = LatentValue(done.latent.samples[:1])  # of a run without a step
    told = done.shown((done.latent, *(ways or (still, still))))
    return UiResult(told.value, {**shown, **told.ui}) if isinstance(told, UiResult) else UiResult(told, shown)


@node("LatentDistance", category=CATEGORY, display_name="Latent Distance", output_node=True, outputs=("FLOAT",))
def latent_distance(*, samples: Latent, reference: Latent) -> UiResult:
    """Root mean square difference of two latents, in units of the reference's own spread."""
    found = relative_distance(samples.samples.float(), reference.samples.float())
    return UiResult(found, {"distance": [found]})


@node("SamplerLevels", category=CATEGORY, display_name="Sampler Levels", output_node=True, outputs=())
def sampler_levels(
    *,
    model: Model,
    samplers: Names = "euler",
    schedules: Names = "simple",
    steps: Names = "20",
    denoise: Fraction = 1.0,
    going: Progressing = nobody,
) -> UiResult:
    """The noise levels of every combination, and how many evaluations of the model it takes; nothing is sampled."""
    counts = [_count(word) for word in _words("steps", steps)]
    rows = [(a, b, n) for a in _words("samplers", samplers) for b in _words("schedules", schedules) for n in counts]
    if len(rows) > MOST_ROWS:
        raise BadValue("samplers, schedules, steps", f"{len(rows)} combinations", f"at most {MOST_ROWS}")
    if (together := sum(count for _, _, count in rows)) > MOST_TOGETHER:
        raise BadValue("samplers, schedules, steps", f"{together} steps together", f"at most {MOST_TOGETHER}")
    found = []
    for at, row in enumerate(rows):
        going(at, len(rows))  # a rule of high order takes seconds for a thousand steps: a cancel is heard between rows
        found.append(_row(model.parameterisation, denoise, *row))
    return UiResult(None, {"levels": found})


def _row(model: Parameterisation, denoise: float, sampler: str, schedule: str, steps: int) -> dict[str, Any]:
    row: dict[str, Any] = {"sampler": sampler, "schedule": schedule, "steps": steps}
    try:
        solver = solver_in_graph(sampler)
        sigmas = run_sigmas(schedule_in_graph(schedule), model.levels, steps, denoise, solver.drops_penultimate)
        asked = len(rehearsed(solver, sigmas, model)) if len(sigmas) > 1 else 0
    except EngineError as error:
        return row | {"sigmas": [], "evaluations": 0, "problem": str(error)}
    return row | {"sigmas": list(sigmas), "evaluations": asked, "problem": None}


def _words(name: str, text: str) -> Sequence[str]:
    words = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not words:
        raise BadValue(name, text, "at least one, separated by commas")
    return words


def _count(word: str) -> int:
    if not word.isdecimal() or len(word) > 4 or not 1 <= int(word) <= MOST_STEPS:
        raise BadValue("steps", word, f"whole numbers from 1 to {MOST_STEPS}, separated by commas")
    return int(word)


NODES = (sampler_trajectory, latent_distance, sampler_levels)
