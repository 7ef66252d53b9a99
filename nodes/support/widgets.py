"""Widgets that several sampling nodes share."""

from functools import partial
from typing import Annotated

from sigmagraph.engine.graph.node import Options, Range, Tooltip
from sigmagraph.nodes.support.graph_names import content, sampler_names, schedule_names

__all__ = [
    "Fraction",
    "GuidanceScale",
    "SamplerName",
    "ScheduleName",
    "Steps",
]

Steps = Annotated[int, Range(1, 10_000), Tooltip("More steps follow the path more closely and take longer.")]
GuidanceScale = Annotated[
    float,
    Range(0.0, 100.0, step=0.1, round=0.01),
    Tooltip("How strongly the image follows the prompt; 1 leaves the negative out."),
]
SamplerName = Annotated[
    str,
    Options(sampler_names, content=partial(content, "sampler")),
    Tooltip("The rule of each step; `sigmagraph samplers` lists them."),
]
ScheduleName = Annotated[
    str,
    Options(schedule_names, content=partial(content, "schedule")),
    Tooltip("How the noise levels are spread over the steps."),
]
Fraction = Annotated[
    float, Range(0.0, 1.0, step=0.01), Tooltip("The part of the way that is gone; below 1 the latent shows through.")
]
