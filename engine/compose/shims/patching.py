"""Models and samplers under the names packs know: `comfy.model_patcher`, and what of `comfy.samplers` runs them."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sigmagraph.engine.compose.shims.arithmetic import reshape_mask
from sigmagraph.engine.execution.packs.progress import ProgressBar
from sigmagraph.engine.sampling import SCHEDULES, SOLVERS, ComfyNoise, NoNoise
from sigmagraph.engine.sampling.schedule import run_sigmas, step_range
from sigmagraph.engine.sampling.schedules.formulas import linear_then_quadratic
from sigmagraph.nodes.support.graph_names import schedule_in_graph, solver_in_graph
from sigmagraph.nodes.support.packs import wrappers
from sigmagraph.nodes.support.packs.base_model import SD3, BaseModel, ModelSampling, ModelType
from sigmagraph.nodes.support.packs.conditioning import GuiderEntries, conditioning_of
from sigmagraph.nodes.support.packs.guidance import calc_cond_batch
from sigmagraph.nodes.support.packs.guiders import CFGGuider, sampling_function
from sigmagraph.nodes.support.packs.model_sampling import CLASSES, time_snr_shift
from sigmagraph.nodes.support.packs.models import (
    ModelPatcher,
    set_model_options_patch_replace,
    set_model_options_post_cfg_function,
)
from sigmagraph.nodes.support.packs.noise import PackNoise
from sigmagraph.nodes.support.packs.runs import Ears
from sigmagraph.nodes.support.packs.samplers import KSAMPLER, KSamplerX0Inpaint, Sampler, sampler_out
from sigmagraph.nodes.support.types import SamplerValue

__all__ = ["names"]

Callback = Callable[[int, Tensor, Tensor, int], None]


class SchedulerHandler(NamedTuple):
    """How a pack declares a schedule of its own: a function of a model's levels, or of lowest and highest level."""

    handler: Callable[..., Tensor]
    use_ms: bool = True


HANDLERS: dict[str, SchedulerHandler] = {}
"""Schedules that packs declare, by name."""
SAMPLER_FUNCTIONS: dict[str, Callable[..., Tensor]] = {}
"""Samplers that packs added to the list, by name."""
FUNCTIONS = {
    "beta_scheduler": "beta",
    "ddim_scheduler": "ddim_uniform",
    "kl_optimal_scheduler": "kl_optimal",
    "normal_scheduler": "normal",
    "simple_scheduler": "simple",
}


def by_schedule(name: str, model_sampling: ModelSampling, steps: int, **options: Any) -> Tensor:
    """The levels of one of our schedules, with its settings."""
    return torch.tensor(SCHEDULES[name](model_sampling.parameterisation.levels, steps, **options), dtype=torch.float32)


def linear_quadratic_schedule(
    model_sampling: ModelSampling, steps: int, threshold_noise: float = 0.025, linear_steps: int | None = None
) -> Tensor:
    """Levels that fall evenly through the first `threshold_noise` of the way, half the steps if none are given."""
    levels = model_sampling.parameterisation.levels
    linear = steps // 2 if linear_steps is None else linear_steps
    return torch.tensor(linear_then_quadratic(levels, steps, linear, threshold_noise), dtype=torch.float32)


def handled(own: SchedulerHandler, model_sampling: ModelSampling, steps: int) -> Tensor:
    """The levels of a pack's schedule."""
    if own.use_ms:
        return own.handler(model_sampling, steps)
    return own.handler(n=steps, sigma_min=model_sampling.sigma_min, sigma_max=model_sampling.sigma_max)


def calculate_sigmas(model_sampling: ModelSampling, scheduler_name: str, steps: int) -> Tensor:
    """The levels of a schedule, ours or one that a pack declared, for a model's."""
    if (own := HANDLERS.get(scheduler_name)) is not None:
        return handled(own, model_sampling, steps)
    levels = model_sampling.parameterisation.levels
    return torch.tensor(run_sigmas(schedule_in_graph(scheduler_name), levels, steps, 1.0), dtype=torch.float32)


def sampler_object(name: str) -> Any:
    """One of our samplers by its name in graphs."""
    return sampler_out(SamplerValue(solver_in_graph(name)))


def ksampler(
    name: str, extra_options: Mapping[str, Any] | None = None, inpaint_options: Mapping[str, Any] | None = None
) -> Any:
    """A sampler by name with its settings: one that a pack added keeps its function, which may take anything."""
    if (own := SAMPLER_FUNCTIONS.get(name)) is not None:
        return KSAMPLER(own, extra_options, inpaint_options)
    return sampler_out(SamplerValue(solver_in_graph(name), dict(extra_options or {})))


def sample(
    model: ModelPatcher,
    noise: Tensor,
    positive: Any,
    negative: Any,
    cfg: float,
    device: Any,
    sampler: Any,
    sigmas: Tensor,
    model_options: Mapping[str, Any] | None = None,
    latent_image: Tensor | None = None,
    denoise_mask: Tensor | None = None,
    callback: Callback | None = None,
    disable_pbar: bool = False,
    seed: int | None = None,
) -> Tensor:
    """A latent in the autoencoder's units sampled under plain guidance, by any sampler over any levels."""
    guider = CFGGuider(model)
    guider.model_options = dict(model_options) if model_options else model.model_options
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    start = torch.zeros_like(noise) if latent_image is None else latent_image
    return guider.sample(noise, start, sampler, sigmas, denoise_mask, callback, disable_pbar, seed)


class KSampler:
    """A sampler by name over a schedule by name."""

    SAMPLERS: ClassVar[list[str]] = []
    SCHEDULERS: ClassVar[list[str]] = []
    DISCARD_PENULTIMATE_SIGMA_SAMPLERS: ClassVar[set[str]] = {
        name for name in SOLVERS if SOLVERS[name].drops_penultimate
    }

    def __init__(
        self,
        model: ModelPatcher,
        steps: int,
        device: Any = None,
        sampler: str | None = None,
        scheduler: str | None = None,
        denoise: float | None = None,
        model_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.device = model, device
        self.sampler = sampler or self.SAMPLERS[0]
        self.scheduler = scheduler or self.SCHEDULERS[0]
        self.model_options = dict(model_options or {})
        self.set_steps(steps, denoise)

    def set_steps(self, steps: int, denoise: float | None = None) -> None:
        """So many steps; with `denoise` below 1 the last part of a longer run."""
        self.steps, self.denoise = steps, 1.0 if denoise is None else denoise
        solver, schedule = solver_in_graph(self.sampler), schedule_in_graph(self.scheduler)
        levels = self.model.get_model_object("model_sampling").parameterisation.levels
        found = run_sigmas(schedule, levels, steps, self.denoise, solver.drops_penultimate)
        self.sigmas = torch.tensor(found, dtype=torch.float32)

    def sample(
        self,
        noise: Tensor,
        positive: Any,
        negative: Any,
        cfg: float,
        latent_image: Tensor | None = None,
        start_step: int | None = None,
        last_step: int | None = None,
        force_full_denoise: bool = False,
        denoise_mask: Tensor | None = None,
        sigmas: Tensor | None = None,
        callback: Callback | None = None,
        disable_pbar: bool = False,
        seed: int | None = None,
    ) -> Tensor:
        """A latent sampled, or a part of the way from one step to another."""
        levels = [float(sigma) for sigma in (self.sigmas if sigmas is None else sigmas).tolist()]
        ends = (start_step or 0, 10_000 if last_step is None else last_step)
        part = torch.tensor(step_range(levels, *ends, not force_full_denoise), dtype=torch.float32)
        about = sampler_object(self.sampler), part, self.model_options, latent_image, denoise_mask
        return sample(self.model, noise, positive, negative, cfg, self.device, *about, callback, disable_pbar, seed)


def sample_by_name(
    model: ModelPatcher,
    noise: Tensor,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Any,
    negative: Any,
    latent_image: Tensor,
    denoise: float = 1.0,
    disable_noise: bool = False,
    start_step: int | None = None,
    last_step: int | None = None,
    force_full_denoise: bool = False,
    noise_mask: Tensor | None = None,
    sigmas: Tensor | None = None,
    callback: Callback | None = None,
    disable_pbar: bool = False,
    seed: int | None = None,
) -> Tensor:
    """`comfy.sample.sample`: a latent in the autoencoder's units."""
    sampler = KSampler(model, steps, None, sampler_name, scheduler, denoise, model.model_options)
    start = start_step, last_step, force_full_denoise, noise_mask, sigmas
    return sampler.sample(noise, positive, negative, cfg, latent_image, *start, callback, disable_pbar, seed)


def sample_custom(
    model: ModelPatcher,
    noise: Tensor,
    cfg: float,
    sampler: Any,
    sigmas: Tensor,
    positive: Any,
    negative: Any,
    latent_image: Tensor,
    noise_mask: Tensor | None = None,
    callback: Callback | None = None,
    disable_pbar: bool = False,
    seed: int | None = None,
) -> Tensor:
    """`comfy.sample.sample_custom`: the same with any sampler over any levels."""
    about = None, sampler, sigmas, model.model_options, latent_image, noise_mask, callback, disable_pbar, seed
    return sample(model, noise, positive, negative, cfg, *about)


class EmptyNoise(PackNoise):
    """No noise to start from; what a sampler draws on its way follows seed 0."""

    def __init__(self) -> None:
        super().__init__(NoNoise(ComfyNoise(0)))


class RandomNoise(PackNoise):
    """The noise of a seed."""

    def __init__(self, seed: int) -> None:
        super().__init__(ComfyNoise(seed))


class BasicGuider(CFGGuider):
    """One conditioning, no guidance."""

    def set_conds(self, positive: Any, negative: Any = None) -> None:
        """What the picture should show."""
        self.inner_set_conds({"positive": positive, "negative": positive})


def prepare_mask(noise_mask: Tensor, shape: Any, device: Any = None) -> Tensor:
    """A mask fitted to noise of a shape."""
    return reshape_mask(noise_mask, torch.Size(shape)).to(device)


def compile_wrapper(model: ModelPatcher, *_: Any, **__: Any) -> None:
    """The network's blocks are to run compiled."""
    model.compiles = True


def helpers() -> dict[str, Any]:
    """`comfy.sampler_helpers`: conditionings for guiders; models need no preparing here."""
    return {
        "cleanup_additional_models": lambda *_, **__: None,
        "cleanup_models": lambda *_, **__: None,
        "convert_cond": lambda cond: GuiderEntries(conditioning_of(cond)),
        "get_additional_models": lambda *_, **__: ([], 0),
        "get_models_from_cond": lambda *_, **__: [],
        "prepare_mask": prepare_mask,
    }


def report(step: float, steps: float, estimate: Any) -> None:
    """A step of a run inside a pack's node is progress of that node; a cancel is heard here."""
    ProgressBar(steps).update_absolute(step, preview=estimate)


def names() -> dict[str, dict[str, Any]]:
    """The names that do what they say."""
    Ears.hears = staticmethod(report)
    return {
        "comfy.model_base": {"BaseModel": BaseModel, "ModelType": ModelType, "SD3": BaseModel},
        "comfy.model_sampling": {"time_snr_shift": time_snr_shift, **{cls.__name__: cls for cls in CLASSES}},
        "comfy.supported_models": {"SD3": SD3},
        "comfy_api.torch_helpers": {"set_torch_compile_wrapper": compile_wrapper},
        "comfy.model_patcher": {
            "ModelPatcher": ModelPatcher,
            "create_model_options_clone": wrappers.copied,
            "set_model_options_patch_replace": set_model_options_patch_replace,
            "set_model_options_post_cfg_function": set_model_options_post_cfg_function,
        },
        "comfy.patcher_extension": {
            "CallbacksMP": wrappers.CallbacksMP,
            "WrapperExecutor": wrappers.WrapperExecutor,
            "WrappersMP": wrappers.WrappersMP,
            "add_wrapper_with_key": wrappers.add_wrapper_with_key,
            "get_all_wrappers": wrappers.all_wrappers,
            "get_wrappers_with_key": wrappers.get_wrappers_with_key,
        },
        "comfy.sample": {"prepare_mask": prepare_mask, "sample": sample_by_name, "sample_custom": sample_custom},
        "comfy.sampler_helpers": helpers(),
        "comfy_extras.nodes_custom_sampler": {
            "Guider_Basic": BasicGuider,
            "Noise_EmptyNoise": EmptyNoise,
            "Noise_RandomNoise": RandomNoise,
        },
        "comfy.samplers": {
            **{function: partial(by_schedule, name) for function, name in FUNCTIONS.items()},
            "linear_quadratic_schedule": linear_quadratic_schedule,
            "CFGGuider": CFGGuider,
            "KSAMPLER": KSAMPLER,
            "KSampler": KSampler,
            "KSamplerX0Inpaint": KSamplerX0Inpaint,
            "SCHEDULER_HANDLERS": HANDLERS,
            "Sampler": Sampler,
            "SchedulerHandler": SchedulerHandler,
            "calc_cond_batch": calc_cond_batch,
            "calculate_sigmas": calculate_sigmas,
            "ksampler": ksampler,
            "sample": sample,
            "sampler_object": sampler_object,
            "sampling_function": sampling_function,
        },
    }
