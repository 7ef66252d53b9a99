"""Models and samplers under the names packs know: `comfy.model_patcher`, and what of `comfy.samplers` runs them."""

from typing import Any

from torch import Tensor

from sigmagraph.engine.sampling.schedule import run_sigmas
from sigmagraph.nodes.support.graph_names import schedule_in_graph, solver_in_graph
from sigmagraph.nodes.support.pack_models import ModelPatcher, ModelSampling, calc_cond_batch
from sigmagraph.nodes.support.pack_samplers import KSAMPLER
from sigmagraph.nodes.support.types import SamplerValue

__all__ = ["names"]


def calculate_sigmas(model_sampling: ModelSampling, scheduler_name: str, steps: int) -> Tensor:
    """The levels of a schedule for a model's."""
    levels = model_sampling.parameterisation.levels
    return model_sampling.sigmas.new_tensor(run_sigmas(schedule_in_graph(scheduler_name), levels, steps, 1.0))


def names() -> dict[str, dict[str, Any]]:
    """The names that do what they say."""
    return {
        "comfy.model_patcher": {"ModelPatcher": ModelPatcher},
        "comfy.samplers": {
            "KSAMPLER": KSAMPLER,
            "calc_cond_batch": calc_cond_batch,
            "calculate_sigmas": calculate_sigmas,
            "sampler_object": lambda name: SamplerValue(solver_in_graph(name)),
        },
    }
