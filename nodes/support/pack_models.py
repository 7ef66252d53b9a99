"""Models as node packs handle them: a patcher that is cloned, given functions and handed on.

Ours are immutable values. A patcher holds one and what a pack sets on it; when the pack returns the patcher it becomes
our value again, with the pack's functions as one more change to how it is guided.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any, NoReturn

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models.conditioning import Conditioning
from sigmagraph.engine.models.value import Model
from sigmagraph.engine.sampling import Parameterisation
from sigmagraph.engine.sampling.guidance import Cfg
from sigmagraph.engine.sampling.guidance.cfg import Estimates, Linear, has_uncond

__all__ = ["BaseModel", "ModelPatcher", "ModelSampling", "calc_cond_batch", "model_of"]

Options = dict[str, Any]
Function = Callable[[dict[str, Any]], Any]
HOOKS = ("patches", "patches_replace", "wrappers", "callbacks")


@dataclass(frozen=True)
class ModelSampling:
    """A model's noise levels, under the names packs ask for them."""

    parameterisation: Parameterisation

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.parameterisation.levels, name)  # sigma_min, sigma_max, shift, timestep, percent_to_sigma

    @property
    def sigmas(self) -> Tensor:
        """All trained levels, ascending."""
        return self.parameterisation.levels.table

    @property
    def sigma_data(self) -> float:
        """The standard deviation of the data."""
        return self.parameterisation.sigma_data

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        """A state as the network takes it."""
        return self.parameterisation.network_input(noise, _number(sigma))

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        """The estimate that an answer of the network means."""
        return self.parameterisation.denoised(model_input, _number(sigma), model_output)

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, max_denoise: bool = False) -> Tensor:
        """The state at a level of a latent and unit noise."""
        return self.parameterisation.noised(_number(sigma), noise, latent_image)

    def inverse_noise_scaling(self, sigma: Tensor, latent: Tensor) -> Tensor:
        """The latent of a state left at a level."""
        return self.parameterisation.released(_number(sigma), latent)


class BaseModel:
    """What a patcher has for its `model`: levels, the scale of latents, and predictions."""

    def __init__(self, value: Model) -> None:
        self._value = value
        self.model_sampling = ModelSampling(value.parameterisation)
        self.latent_format = value.spec.latent_format
        self.device = value.placement.device

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a model's {name} is not here for node packs; docs/packs.md lists what they can use")

    def process_latent_in(self, latent: Tensor) -> Tensor:
        """From the autoencoder's units to the model's."""
        return self.latent_format.to_model(latent)

    def process_latent_out(self, latent: Tensor) -> Tensor:
        """From the model's units to the autoencoder's."""
        return self.latent_format.to_vae(latent)

    def predict(self, x: Tensor, sigma: float, conditionings: Sequence[Conditioning]) -> list[Tensor]:
        """Denoised estimates, one for each conditioning."""
        return self._value.predict(x, sigma, conditionings)


class ModelPatcher:
    """A model of ours on a pack's side; what is set on a clone concerns nobody else."""

    def __init__(self, model: Model, *_: Any, **__: Any) -> None:
        if not isinstance(model, Model):
            raise BadValue("ModelPatcher", type(model).__qualname__, "a model that a loader of this engine gave")
        self._value = model
        self.model = BaseModel(model)
        self.model_options: Options = {"transformer_options": {}}
        self.object_patches: dict[str, Any] = {}
        self.load_device, self.offload_device = model.placement.device, torch.device("cpu")

    def clone(self, *_: Any, **__: Any) -> "ModelPatcher":
        """Another patcher of the same model, with what is set so far."""
        made = type(self)(self._value)
        made.model_options = _copied(self.model_options)
        made.object_patches = dict(self.object_patches)
        return made

    def is_clone(self, other: Any) -> bool:
        """Whether both are of one network."""
        return isinstance(other, ModelPatcher) and other._value.recipe is self._value.recipe

    def model_dtype(self) -> torch.dtype:
        """The precision the network computes in."""
        return self._value.placement.dtype

    def set_model_sampler_cfg_function(
        self, function: Callable[..., Any], disable_cfg1_optimization: bool = False
    ) -> None:
        """The function forms the guided estimate; one of three parameters is given cond, uncond and the scale."""
        if len(signature(function).parameters) == 3:
            three = function
            function = lambda args: three(args["cond"], args["uncond"], args["cond_scale"])  # noqa: E731
        self.model_options["sampler_cfg_function"] = function
        self._asks_both(disable_cfg1_optimization)

    def set_model_sampler_pre_cfg_function(self, function: Function, disable_cfg1_optimization: bool = False) -> None:
        """The function changes the estimates before they are combined."""
        self._add("sampler_pre_cfg_function", function)
        self._asks_both(disable_cfg1_optimization)

    def set_model_sampler_post_cfg_function(self, function: Function, disable_cfg1_optimization: bool = False) -> None:
        """The function changes the guided estimate."""
        self._add("sampler_post_cfg_function", function)
        self._asks_both(disable_cfg1_optimization)

    def set_model_unet_function_wrapper(self, function: Callable[..., Tensor]) -> None:
        """The function is asked in the network's place and may ask the network."""
        self.model_options["model_function_wrapper"] = function

    def get_model_object(self, name: str) -> Any:
        """`model_sampling` or `latent_format`."""
        if name in self.object_patches:
            return self.object_patches[name]
        if name in ("model_sampling", "latent_format"):
            return getattr(self.model, name)
        raise BadValue("get_model_object", name, "model_sampling or latent_format")

    def add_object_patch(self, name: str, part: Any) -> None:
        """Other noise levels, as another model of this engine has them; nothing else of a model can be exchanged."""
        if name != "model_sampling" or not isinstance(part, ModelSampling):
            raise BadValue("add_object_patch", f"{name}: {type(part).__qualname__}", "model_sampling of a model here")
        self.object_patches[name] = part

    def __getattr__(self, name: str) -> Any:
        if not name.startswith(("set_model_", "add_")):
            raise AttributeError(f"a model's {name} is not here for node packs; docs/packs.md lists what they can use")

        def refuse(*_: Any, **__: Any) -> NoReturn:
            raise BadValue(name, "a call", "functions of guidance: this engine's networks have no place for others")

        return refuse

    def _add(self, place: str, function: Function) -> None:
        self.model_options[place] = [*self.model_options.get(place, ()), function]

    def _asks_both(self, is_asked: bool) -> None:
        if is_asked:
            self.model_options["disable_cfg1_optimization"] = True


def model_of(patcher: Any) -> Any:
    """The model value that a patcher means; what is no patcher is handed back. Raises `BadValue` for other hooks."""
    if not isinstance(patcher, ModelPatcher):
        return patcher
    options = patcher.model_options
    beyond = [name for name in HOOKS if options.get("transformer_options", {}).get(name)]
    if beyond:
        allowed = "functions of guidance: this engine's networks have no place for others"
        raise BadValue("transformer_options", ", ".join(beyond), allowed)
    model = patcher._value
    if (sampling := patcher.object_patches.get("model_sampling")) is not None:
        model = model.with_parameterisation(sampling.parameterisation)
    change = PackGuidance(_copied(options))
    return model.with_guidance(change) if change.changes else model


@dataclass(frozen=True, eq=False)
class PackGuidance:
    """What a pack's functions change about guidance."""

    options: Options

    @property
    def changes(self) -> bool:
        """Whether there is anything but the empty place of the network's own options."""
        return any(name != "transformer_options" for name in self.options)

    def __call__(self, model: Model, guided: Cfg) -> Cfg:
        given = Given(BaseModel(model), self.options, guided.positive, guided.negative, guided.scale)
        options, combine = self.options, guided.combine
        if (function := options.get("sampler_cfg_function")) is not None:
            combine = PackCombination(guided.scale, given, function)
        elif options.get("disable_cfg1_optimization"):
            combine = combine or BothSides(guided.scale)
        predict = guided.predict
        if (wrapper := options.get("model_function_wrapper")) is not None:
            predict = Wrapped(given, wrapper, guided.predict)
        before, after = (options.get(f"sampler_{when}_cfg_function", ()) for when in ("pre", "post"))
        prepare = [*guided.prepare, *(PackPreparation(given, one) for one in before)]
        adjust = [*guided.adjust, *(PackAdjustment(given, one) for one in after)]
        return replace(guided, predict=predict, combine=combine, prepare=prepare, adjust=adjust)


@dataclass(frozen=True, eq=False)
class Given:
    """What every function of a pack is told beside the estimates."""

    model: BaseModel
    options: Options
    positive: Conditioning
    negative: Conditioning
    scale: float

    def told(self, known: Estimates, **more: Any) -> dict[str, Any]:
        """The arguments all kinds share; tensors are copies, since packs write into them."""
        level = known.x.new_full((len(known.x),), known.sigma)
        both = {"sigma": level, "timestep": level, "cond_scale": self.scale, "input": known.x}
        return {**both, "model": self.model, "model_options": self.options, **more}


def _sides(known: Estimates) -> tuple[Tensor, Tensor]:
    """Copies of both estimates; of a side that was not asked about there are zeros, as packs know it."""
    return known.cond.clone(), known.uncond.clone() if has_uncond(known) else torch.zeros_like(known.cond)


@dataclass(frozen=True)
class BothSides(Linear):
    """The plain formula, with both sides asked about at scale 1 too."""

    @property
    def is_neutral(self) -> bool:
        """Never."""
        return False


@dataclass(frozen=True)
class PackCombination:
    """A pack's formula, in noise times sigma: x minus what it returns is the estimate. Both sides are always asked."""

    scale: float
    given: Given
    function: Function

    @property
    def is_neutral(self) -> bool:
        """Never: what the function does at scale 1 is its own affair."""
        return False

    def __call__(self, known: Estimates) -> Tensor:
        cond, uncond = _sides(known)
        noises = {"cond": known.x - cond, "uncond": known.x - uncond, "cond_denoised": cond, "uncond_denoised": uncond}
        texts = {"input_cond": self.given.positive, "input_uncond": self.given.negative}
        told = self.given.told(known, **noises, **texts)
        return known.x - _shaped(self.function(told | {"cond_scale": self.scale}), known.x, "sampler_cfg_function")


@dataclass(frozen=True)
class PackPreparation:
    """A pack's change of both estimates."""

    given: Given
    function: Function

    def __call__(self, known: Estimates) -> Estimates:
        conds = [self.given.positive, self.given.negative]
        told = self.given.told(known, conds=conds, conds_out=list(_sides(known)))
        cond, uncond, *_ = self.function(told)
        cond = _shaped(cond, known.x, "sampler_pre_cfg_function")
        return replace(known, cond=cond, uncond=uncond if has_uncond(known) else cond)


@dataclass(frozen=True)
class PackAdjustment:
    """A pack's change of the guided estimate."""

    given: Given
    function: Function

    def __call__(self, guided: Tensor, known: Estimates) -> Tensor:
        cond, uncond = _sides(known)
        sides = {"denoised": guided.clone(), "cond_denoised": cond, "uncond_denoised": uncond}
        told = self.given.told(known, cond=self.given.positive, uncond=self.given.negative, **sides)
        return _shaped(self.function(told), known.x, "sampler_post_cfg_function")


@dataclass(frozen=True)
class Wrapped:
    """Predictions by way of a pack's function, one side after the other."""

    given: Given
    function: Callable[..., Any]
    predict: Callable[[Tensor, float, Sequence[Any]], Sequence[Tensor]]

    def __call__(self, x: Tensor, sigma: float, conditionings: Sequence[Any]) -> list[Tensor]:
        return [self._one(x, sigma, conditioning) for conditioning in conditionings]

    def _one(self, x: Tensor, sigma: float, conditioning: Conditioning) -> Tensor:
        def apply_model(state: Tensor, timestep: Tensor, **_: Any) -> Tensor:
            return self.predict(state, _number(timestep), [conditioning])[0]

        side = 1 if conditioning is self.given.negative else 0
        texts: dict[str, Any] = {
            "c_crossattn": conditioning.context,
            "y": conditioning.pooled,
            "transformer_options": {},
        }
        told = {"input": x, "timestep": x.new_full((len(x),), sigma), "c": texts, "cond_or_uncond": [side]}
        return _shaped(self.function(apply_model, told), x, "model_function_wrapper")


def calc_cond_batch(
    model: BaseModel, conds: Sequence[Any], x_in: Tensor, timestep: Tensor, model_options: Mapping[str, Any]
) -> list[Tensor]:
    """The model's estimates for conditionings that a function of guidance was given; zeros for a missing one."""
    beyond = [name for name in HOOKS if model_options.get("transformer_options", {}).get(name)]
    if beyond:
        raise BadValue("transformer_options", ", ".join(beyond), "none: this engine's networks have no place for them")
    asked = [cond for cond in conds if cond is not None]
    found = iter(model.predict(x_in, _number(timestep), asked))
    return [torch.zeros_like(x_in) if cond is None else next(found) for cond in conds]


def _shaped(made: Any, like: Tensor, what: str) -> Tensor:
    """What a function of a pack returned, when it is of the state's size."""
    if not isinstance(made, Tensor) or made.shape != like.shape:
        found = list(made.shape) if isinstance(made, Tensor) else type(made).__qualname__
        raise BadValue(f"the result of a pack's {what}", found, f"a tensor {list(like.shape)}")
    return made


def _number(level: Any) -> float:
    return float(level.flatten()[0]) if isinstance(level, Tensor) else float(level)


def _copied(options: Any) -> Any:
    """Dicts and lists anew, what is in them as it is."""
    if isinstance(options, dict):
        return {name: _copied(part) for name, part in options.items()}
    return list(options) if isinstance(options, list) else options
