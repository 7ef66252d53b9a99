"""What node packs change about guidance: functions before, after and instead of the formula, and round the network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models.cached import CachedPredict
from sigmagraph.engine.models.conditioning import Conditioning
from sigmagraph.engine.models.value import Model
from sigmagraph.engine.sampling.denoiser import Predict, Requests, self_answered
from sigmagraph.engine.sampling.guidance import Cfg
from sigmagraph.engine.sampling.guidance.cfg import Estimates, Linear, has_uncond
from sigmagraph.engine.sampling.solver import Prediction
from sigmagraph.nodes.support.denoising import LatentRun, Outcome
from sigmagraph.nodes.support.packs.base_model import BaseModel, number
from sigmagraph.nodes.support.packs.conditioning import GuiderEntries, conditioning_of
from sigmagraph.nodes.support.packs.hooks import OF_UNETS
from sigmagraph.nodes.support.packs.inside import RUN, PackInside, asks_inside, network_options
from sigmagraph.nodes.support.packs.runs import surround
from sigmagraph.nodes.support.packs.wrappers import PLACES, WrappersMP, all_wrappers, surrounded

__all__ = ["OF_UNETS", "Function", "Options", "PackGuidance", "calc_cond_batch", "known_options"]

Options = dict[str, Any]
Function = Callable[[dict[str, Any]], Any]
HOOKS = ("patches", "patches_replace", "callbacks")
HEARD = frozenset(
    (
        *("transformer_options", "sampler_cfg_function", "sampler_pre_cfg_function", "sampler_post_cfg_function"),
        *("sampler_calc_cond_batch_function", "model_function_wrapper", "denoise_mask_function"),
        "disable_cfg1_optimization",
    )
)
"""Of what packs put among a model's options; others of these kinds would change the picture and are refused."""


def known_options(options: Mapping[str, Any]) -> Options:
    """The options, when this engine has a place for each of them. Raises `BadValue`."""
    given = options.get("transformer_options", {})
    for hook in HOOKS:
        allowed = (OF_UNETS | {"dit"}) if hook == "patches_replace" else OF_UNETS
        if beyond := [str(place) for place, what in (given.get(hook) or {}).items() if what and place not in allowed]:
            raise BadValue(f"transformer_options {hook}", ", ".join(beyond), ", ".join(sorted(allowed)))
    if beyond := [str(place) for place in given.get("wrappers", {}) if place not in PLACES]:
        raise BadValue("transformer_options wrappers", ", ".join(beyond), ", ".join(PLACES))
    for name, value in options.items():
        if name not in HEARD and value and name.startswith(("sampler_", "model_")):
            raise BadValue("model_options", name, ", ".join(sorted(HEARD)))
    return dict(options) if not isinstance(options, dict) else options


@dataclass(frozen=True, eq=False)
class PackGuidance:
    """What a pack's functions change about guidance, and what surrounds a run of it."""

    options: Options
    callbacks: dict[Any, dict[Any, list[Any]]] = field(default_factory=dict)

    @property
    def changes(self) -> bool:
        """Whether there is anything but the empty place of the network's own options."""
        return bool(self.callbacks or self.options.get("transformer_options")) or any(
            name != "transformer_options" for name in self.options
        )

    @property
    def surrounds(self) -> bool:
        """Whether a run of the model is to be told of, or is surrounded by functions."""
        own = self.options.get("transformer_options", {})
        asks = own.get("wrappers") or own.get("patches_replace", {}).get("dit")
        return bool(self.callbacks or asks or "model_function_wrapper" in self.options)

    def surround(self, run: LatentRun) -> Outcome:
        """The run by way of the functions."""
        return surround(self.options, self.callbacks, run)

    def estimating(self, model: Model, guided: Cfg) -> Cfg:
        """The same without what surrounds the guided estimate: for guiders that make one of their own."""
        return self._changed(model, guided)

    def __call__(self, model: Model, guided: Cfg) -> Cfg:
        changed = self._changed(model, guided)
        if not all_wrappers(WrappersMP.PREDICT_NOISE, self.options.get("transformer_options", {})):
            return changed
        return Surrounded(**{one.name: getattr(changed, one.name) for one in fields(Cfg)}, options=self.options)

    def _changed(self, model: Model, guided: Cfg) -> Cfg:
        given = Given(BaseModel(model), self.options, guided.positive, guided.negative, guided.scale)
        options, combine = self.options, guided.combine
        if (function := options.get("sampler_cfg_function")) is not None:
            combine = PackCombination(guided.scale, given, function)
        elif options.get("disable_cfg1_optimization"):
            combine = combine or BothSides(guided.scale)
        predict = guided.predict
        if isinstance(model.inside, PackInside):
            told = replace(model, inside=model.inside.told_sides(guided.positive, guided.negative))
            if predict == model.predict:
                predict = told.predict
            elif isinstance(predict, CachedPredict) and predict.model is model:
                predict = replace(predict, model=told)
        for name in ("sampler_calc_cond_batch_function", "model_function_wrapper"):
            if name in options and model.predictor != model.predict:
                raise BadValue(
                    name, "one on a model with a step cache", "a model without one: it asks a side at a time"
                )
        if (function := options.get("sampler_calc_cond_batch_function")) is not None:
            predict = InItsPlace(given, function)
        elif surrounds_answers(options):
            predict = Wrapped(given, options.get("model_function_wrapper"), predict)
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
        texts = {"input_cond": GuiderEntries(self.given.positive), "input_uncond": GuiderEntries(self.given.negative)}
        told = self.given.told(known, **noises, **texts)
        return known.x - _shaped(self.function(told | {"cond_scale": self.scale}), known.x, "sampler_cfg_function")


@dataclass(frozen=True)
class PackPreparation:
    """A pack's change of both estimates."""

    given: Given
    function: Function

    def __call__(self, known: Estimates) -> Estimates:
        conds = [GuiderEntries(self.given.positive), GuiderEntries(self.given.negative)]
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
        texts = {"cond": GuiderEntries(self.given.positive), "uncond": GuiderEntries(self.given.negative)}
        told = self.given.told(known, **texts, **sides)
        return _shaped(self.function(told), known.x, "sampler_post_cfg_function")


@dataclass(frozen=True)
class Wrapped:
    """Predictions by way of a pack's function, one side after the other."""

    given: Given
    function: Callable[..., Any] | None
    predict: Predict

    def __call__(self, x: Tensor, sigma: float, conditionings: Sequence[Any]) -> list[Tensor]:
        told = network_options(self.given.options)
        if not all_wrappers(WrappersMP.CALC_COND_BATCH, told):
            return [self._one(x, sigma, conditioning) for conditioning in conditionings]

        def original(_model: Any, conds: Any, x_in: Tensor, timestep: Any, _options: Any = None) -> list[Tensor]:
            return [self._one(x_in, number(timestep), conditioning_of(cond)) for cond in conds]

        executor = surrounded(WrappersMP.CALC_COND_BATCH, told, original)
        conds = [GuiderEntries(conditioning) for conditioning in conditionings]
        level = x.new_full((len(x),), sigma)
        made = executor(self.given.model, conds, x, level, self.given.options)
        return [_shaped(one, x, "calc_cond_batch wrapper") for one in made]

    def _one(self, x: Tensor, sigma: float, conditioning: Conditioning) -> Tensor:
        context, pooled = conditioning.context, conditioning.pooled

        level = x.new_full((len(x),), sigma)
        is_negative = conditioning is self.given.negative and conditioning is not self.given.positive
        side = [1 if is_negative else 0]
        told = {**network_options(self.given.options), "cond_or_uncond": side, "sigmas": level}

        def answer(
            state: Tensor,
            timestep: Tensor,
            c_concat: Any = None,
            c_crossattn: Any = context,
            control: Any = None,
            transformer_options: Any = None,
            y: Any = pooled,
            **_: Any,
        ) -> Tensor:
            asked = conditioning
            if c_crossattn is not context or y is not pooled:
                asked = replace(conditioning, context=c_crossattn, pooled=y)
            return self.predict(state, number(timestep), [asked])[0]

        def apply_model(
            state: Tensor,
            timestep: Tensor,
            c_concat: Any = None,
            c_crossattn: Any = context,
            control: Any = None,
            transformer_options: Any = None,
            y: Any = pooled,
            **more: Any,
        ) -> Tensor:
            executor = surrounded(WrappersMP.APPLY_MODEL, told, answer, self.given.model)
            options = told if transformer_options is None else transformer_options
            made = executor(state, timestep, c_concat, c_crossattn, control, options, y=y, **more)
            return _shaped(made, state, "apply_model wrapper")

        if self.function is None:
            return apply_model(x, level)
        texts: dict[str, Any] = {"c_crossattn": context, "y": pooled, "transformer_options": told}
        asks = {"input": x, "timestep": level, "c": texts, "cond_or_uncond": side}
        return _shaped(self.function(apply_model, asks), x, "model_function_wrapper")


def surrounds_answers(options: Mapping[str, Any]) -> bool:
    """Whether functions surround what the network is asked; those of a whole run may add some on their way."""
    own = options.get("transformer_options", {})
    places = WrappersMP.OUTER_SAMPLE, WrappersMP.APPLY_MODEL, WrappersMP.CALC_COND_BATCH
    return "model_function_wrapper" in options or any(all_wrappers(place, own) for place in places)


@dataclass(frozen=True)
class Surrounded(Cfg):
    """Guidance whose estimate is asked for by way of packs' functions."""

    options: Options = field(default_factory=dict)

    def requests(self, x: Tensor, sigma: float, needs_uncond: bool = False) -> Requests:
        """The functions ask for themselves, so nothing is left to be answered together with other runs."""
        yield from ()
        made: list[Prediction] = []

        def original(state: Tensor, timestep: Any, _options: Any = None, _seed: Any = None, **_: Any) -> Tensor:
            made.append(self_answered(Cfg.requests(self, state, number(timestep), needs_uncond)))
            return made[-1].denoised

        run = RUN.get()
        told = self.options.get("transformer_options", {})
        executor = surrounded(WrappersMP.PREDICT_NOISE, told, original, run.guider if run is not None else None)
        denoised = _shaped(executor(x, x.new_full((len(x),), sigma), self.options, None), x, "predict_noise wrapper")
        last = made[-1] if made else Prediction(denoised, denoised if needs_uncond else None)
        return last._replace(denoised=denoised)


@dataclass(frozen=True)
class InItsPlace:
    """Predictions by a pack's function alone, which is given all sides at once."""

    given: Given
    function: Callable[[dict[str, Any]], Sequence[Tensor]]

    def __call__(self, x: Tensor, sigma: float, conditionings: Sequence[Any]) -> list[Tensor]:
        beside = "sampler_calc_cond_batch_function"
        options = {name: part for name, part in self.given.options.items() if name != beside}
        conds = [GuiderEntries(conditioning) for conditioning in conditionings]
        told = {"conds": conds, "input": x, "sigma": x.new_full((len(x),), sigma), "model": self.given.model}
        made = self.function({**told, "model_options": options})
        return [_shaped(one, x, "sampler_calc_cond_batch_function") for one in made]


def with_inside(model: Model, options: Options) -> Model:
    """The model with what options hold for within its network, in the place of what it has."""
    if not asks_inside(options):
        return model
    return replace(model, inside=PackInside.of(options, model.spec.shape.depth))


def calc_cond_batch(
    model: BaseModel, conds: Sequence[Any], x_in: Tensor, timestep: Tensor, model_options: Mapping[str, Any]
) -> list[Tensor]:
    """The model's estimates for conditionings, by the functions round the network; zeros for a missing one."""
    options = known_options(model_options)
    asked = [conditioning_of(cond) for cond in conds if cond is not None]
    value = with_inside(model.value, options)
    predict: Predict = value.predict
    if asked and surrounds_answers(options):
        wrapper = options.get("model_function_wrapper")
        predict = Wrapped(Given(model, options, asked[0], asked[-1], 1.0), wrapper, predict)
    found = iter(predict(x_in, number(timestep), asked))
    return [torch.zeros_like(x_in) if cond is None else next(found) for cond in conds]


def _shaped(made: Any, like: Tensor, what: str) -> Tensor:
    """What a function of a pack returned, when it is of the state's size."""
    if not isinstance(made, Tensor) or made.shape != like.shape:
        found = list(made.shape) if isinstance(made, Tensor) else type(made).__qualname__
        raise BadValue(f"the result of a pack's {what}", found, f"a tensor {list(like.shape)}")
    return made
