"""Guiders as node packs handle them: a model and conditionings, how they become one estimate, and a run of that.

A guider whose `predict_noise` is ours is our own classifier-free guidance. One that a pack changed is asked for each
estimate. The steps are the engine's either way.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import drain
from sigmagraph.engine.models.value import Model
from sigmagraph.engine.sampling import NoiseSource
from sigmagraph.engine.sampling.guidance import Cfg, PerpNeg
from sigmagraph.nodes.support.denoising import denoised_latent
from sigmagraph.nodes.support.packs.base_model import BaseModel, number
from sigmagraph.nodes.support.packs.conditioning import GuiderEntries, conditioning_of
from sigmagraph.nodes.support.packs.guidance import PackGuidance, known_options, with_inside
from sigmagraph.nodes.support.packs.inside import RUN
from sigmagraph.nodes.support.packs.models import ModelPatcher, bare_model_of, model_of
from sigmagraph.nodes.support.packs.noise import GivenNoise
from sigmagraph.nodes.support.packs.runs import Ears
from sigmagraph.nodes.support.packs.samplers import sampler_of
from sigmagraph.nodes.support.packs.wrappers import WrappersMP, surrounded
from sigmagraph.nodes.support.types import GuiderValue, LatentValue, SamplerValue

__all__ = ["CFGGuider", "Ears", "PerpNegGuider", "guider_of", "guider_out", "sampling_function"]

Callback = Callable[[int, Tensor, Tensor, int], None]


class CFGGuider:
    """Classifier-free guidance, which packs use as it is or derive from."""

    def __init__(self, model_patcher: ModelPatcher) -> None:
        self.model_patcher = model_patcher
        self.model_options = model_patcher.model_options
        self.original_conds: dict[str, Any] = {}
        self.conds: dict[str, Any] = {}
        self.cfg = 1.0
        self.inner_model: BaseModel | None = None

    def set_conds(self, positive: Any, negative: Any) -> None:
        """What the picture should show, and what it should not."""
        self.inner_set_conds({"positive": positive, "negative": negative})

    def set_cfg(self, cfg: float) -> None:
        """The scale of guidance."""
        self.cfg = cfg

    def inner_set_conds(self, conds: Mapping[str, Any]) -> None:
        """Conditionings by name, for rules that need others than two."""
        self.original_conds = {name: GuiderEntries(conditioning_of(conds[name])) for name in conds}

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.predict_noise(*args, **kwargs)

    def predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: Mapping[str, Any] | None = None, seed: int | None = None
    ) -> Tensor:
        """The guided estimate of the clean latent; called while a run is under way."""
        sides = self.conds.get("negative"), self.conds.get("positive")
        return sampling_function(self.inner_model, x, timestep, *sides, self.cfg, model_options, seed=seed)

    def sample(
        self,
        noise: Tensor,
        latent_image: Tensor,
        sampler: Any,
        sigmas: Tensor,
        denoise_mask: Tensor | None = None,
        callback: Callback | None = None,
        disable_pbar: bool = False,
        seed: int | None = None,
    ) -> Tensor:
        """A latent [B, C, h, w] in the autoencoder's units from noise and another one, over these levels."""
        value = guider_of(self)
        return run_guided(value, noise, latent_image, sampler, sigmas, denoise_mask, callback, seed)


class PerpNegGuider(CFGGuider):
    """`Guider_PerpNeg`: of the negative, what is perpendicular to the positive, both seen from the empty prompt."""

    neg_scale = 1.0

    def set_conds(self, positive: Any, negative: Any, empty_negative_prompt: Any) -> None:  # type: ignore[override]
        """What the picture should show, what it should not, and the empty prompt."""
        self.inner_set_conds(
            {"positive": positive, "empty_negative_prompt": empty_negative_prompt, "negative": negative}
        )

    def set_cfg(self, cfg: float, neg_scale: float = 1.0) -> None:
        """The scale of guidance, and of the negative within it."""
        self.cfg, self.neg_scale = cfg, neg_scale

    def predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: Mapping[str, Any] | None = None, seed: int | None = None
    ) -> Tensor:
        assert self.inner_model is not None
        options = known_options(model_options or {})
        if PackGuidance(options).changes:
            raise BadValue("Guider_PerpNeg", "functions of a pack among the model's options", "a model without them")
        value: Model = with_inside(self.inner_model.value, options)
        order = ("positive", "negative", "empty_negative_prompt")
        positive, negative, empty = (conditioning_of(self.conds[name]) for name in order)
        adjust = value.guided(positive, empty, self.cfg).adjust
        rule = PerpNeg(value.predictor, positive, negative, empty, self.cfg, self.neg_scale, adjust)
        return rule(x, number(timestep)).denoised


OURS = ("sample", "inner_sample", "outer_sample")


class FixedGuider(CFGGuider):
    """A guider of ours on a pack's side; once a pack sets something on it, it is plain guidance of its model."""

    def __init__(self, value: GuiderValue) -> None:
        super().__init__(ModelPatcher(value.model))
        self.value: GuiderValue | None = value
        if isinstance(value.denoiser, Cfg):
            self.cfg = value.denoiser.scale
            sides = {"positive": value.denoiser.positive, "negative": value.denoiser.negative}
            self.original_conds = {name: GuiderEntries(side) for name, side in sides.items()}
        self._came = self.cfg, self.original_conds

    @property
    def is_untouched(self) -> bool:
        """Whether a pack left it as it came."""
        is_same = self._came[0] == self.cfg and self._came[1] is self.original_conds
        return is_same and model_of(self.model_patcher) is self.value_model

    @property
    def value_model(self) -> Model | None:
        """The model it came with."""
        return self.value.model if self.value is not None else None


def guider_out(value: Any) -> Any:
    """A guider of ours as packs know it, a pack's own as it is."""
    if isinstance(value, GuiderValue) and isinstance(value.denoiser, PackDenoiser):
        return value.denoiser.guider
    return FixedGuider(value) if isinstance(value, GuiderValue) else value


def guider_of(guider: Any) -> Any:
    """The value of ours that a pack's guider means. Raises `BadValue` for one that drives the steps itself."""
    if not isinstance(guider, CFGGuider):
        return guider
    if isinstance(guider, FixedGuider) and guider.is_untouched:
        return guider.value
    cls = type(guider)
    own = [name for name in OURS if getattr(cls, name, None) is not getattr(CFGGuider, name, None)]
    if own:
        raise BadValue("guider", f"{cls.__qualname__} with {own[0]} of its own", "one that changes predict_noise alone")
    patcher = guider.model_patcher.clone()
    patcher.model_options = guider.model_options
    if cls.predict_noise is CFGGuider.predict_noise and {"positive", "negative"} <= guider.original_conds.keys():
        model = model_of(patcher)
        sides = (conditioning_of(guider.original_conds[name]) for name in ("positive", "negative"))
        return GuiderValue(model, model.guided(*sides, guider.cfg))
    return GuiderValue(model_of(patcher), PackDenoiser(guider, bare_model_of(patcher)))


@dataclass(frozen=True, eq=False)
class PackDenoiser:
    """A pack's guider, asked for each estimate."""

    guider: CFGGuider
    model: Model

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        guider = self.guider
        guider.inner_model = BaseModel(self.model)
        guider.conds = {name: GuiderEntries(conditioning_of(side)) for name, side in guider.original_conds.items()}
        run = RUN.get()
        own = guider.model_options if run is None else run.options.get(id(guider.model_options), guider.model_options)
        network = own.get("transformer_options", {})
        executor = surrounded(WrappersMP.PREDICT_NOISE, network, guider.predict_noise, guider)
        made: Any = executor(x, x.new_full((len(x),), sigma), guider.model_options, 0)
        if not isinstance(made, Tensor) or made.shape != x.shape:
            found = list(made.shape) if isinstance(made, Tensor) else type(made).__qualname__
            raise BadValue(f"the estimate of {type(guider).__qualname__}", found, f"a tensor {list(x.shape)}")
        return made


def sampling_function(
    model: Any,
    x: Tensor,
    timestep: Tensor,
    uncond: Any,
    cond: Any,
    cond_scale: float,
    model_options: Mapping[str, Any] | None = None,
    cond_model: Any = None,
    seed: int | None = None,
) -> Tensor:
    """The guided estimate of a state, by a model's own changes and then by the functions in `model_options`."""
    positive = conditioning_of(cond)
    negative = positive if uncond is None else conditioning_of(uncond)
    options = known_options(model_options or {})
    value: Model = with_inside(model.value, options)
    guided: Cfg = value.guided(positive, negative, 1.0 if uncond is None else cond_scale)
    change = PackGuidance(options)
    guided = change.estimating(value, guided) if change.changes else guided
    return guided(x, number(timestep)).denoised


def run_guided(
    guider: GuiderValue,
    noise: Tensor | NoiseSource,
    latent_image: Tensor,
    sampler: Any,
    sigmas: Tensor,
    denoise_mask: Tensor | None,
    callback: Callback | None,
    seed: int | None,
) -> Tensor:
    """A whole run inside a pack's node, with its progress told and a cancel heard after each step."""
    ours: SamplerValue = sampler_of(sampler)
    levels = [float(sigma) for sigma in sigmas.tolist()]
    mask = denoise_mask[:, 0] if denoise_mask is not None and denoise_mask.ndim == 4 else denoise_mask
    latent = LatentValue(latent_image, mask)
    if len(levels) < 2:
        return latent_image
    source = GivenNoise(noise, int(seed or 0)) if isinstance(noise, Tensor) else noise

    def after(tick: Any) -> None:
        if callback is not None:
            callback(max(tick.step - 1, 0), tick.denoised, tick.x, tick.steps)
        Ears.hears(tick.step, tick.steps, tick.denoised)

    way = denoised_latent(guider.model, guider.denoiser, latent, levels, ours.solver, source, ours.options, watch=after)
    with torch.inference_mode():
        made: Tensor = drain(way)[0].samples
    return made
