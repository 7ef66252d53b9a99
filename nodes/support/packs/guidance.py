"""What node packs change about guidance: functions before, after and instead of the formula, and round the network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models.conditioning import Conditioning
from sigmagraph.engine.models.value import Model
from sigmagraph.engine.sampling.denoiser import Predict
from sigmagraph.engine.sampling.guidance import Cfg
from sigmagraph.engine.sampling.guidance.cfg import Estimates, Linear, has_uncond
from sigmagraph.nodes.support.packs.base_model import BaseModel, number
from sigmagraph.nodes.support.packs.conditioning import GuiderEntries, conditioning_of

__all__ = ["OF_UNETS", "Function", "Options", "PackGuidance", "calc_cond_batch", "known_options"]

Options = dict[str, Any]
Function = Callable[[dict[str, Any]], Any]
HOOKS = ("patches", "patches_replace", "wrappers", "callbacks")
OF_UNETS = frozenset(
    (
        *(f"attn{side}{what}" for side in (1, 2) for what in ("", "_patch", "_output_patch")),
        *("input_block_patch", "input_block_patch_after_skip", "middle_block_patch", "output_block_patch"),
    )
)
"""Places in the attention and blocks of U-Nets: SD3's transformer has none, so they change nothing, here or there."""
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
    beyond = [name for name in HOOKS if given.get(name) and not OF_UNETS.issuperset(given[name])]
    if beyond:
        allowed = "functions of guidance: this engine's networks have no place for others"
        raise BadValue("transformer_options", ", ".join(beyond), allowed)
    for name, value in options.items():
        if name not in HEARD and value and name.startswith(("sampler_", "model_")):
            raise BadValue("model_options", name, ", ".join(sorted(HEARD)))
    return dict(options)


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
        for name in ("sampler_calc_cond_batch_function", "model_function_wrapper"):
            if name in options and model.predictor != model.predict:
                raise BadValue(
                    name, "one on a model with a step cache", "a model without one: it asks a side at a time"
                )
        if (function := options.get("sampler_calc_cond_batch_function")) is not None:
            predict = InItsPlace(given, function)
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
    function: Callable[..., Any]
    predict: Predict

    def __call__(self, x: Tensor, sigma: float, conditionings: Sequence[Any]) -> list[Tensor]:
        return [self._one(x, sigma, conditioning) for conditioning in conditionings]

    def _one(self, x: Tensor, sigma: float, conditioning: Conditioning) -> Tensor:
        context, pooled = conditioning.context, conditioning.pooled

        def apply_model(
            state: Tensor, timestep: Tensor, c_crossattn: Any = context, y: Any = pooled, **_: Any
        ) -> Tensor:
            asked = conditioning
            if c_crossattn is not context or y is not pooled:
                asked = replace(conditioning, context=c_crossattn, pooled=y)
            return self.predict(state, number(timestep), [asked])[0]

        is_negative = conditioning is self.given.negative and conditioning is not self.given.positive
        side = 1 if is_negative else 0
        texts: dict[str, Any] = {"c_crossattn": context, "y": pooled, "transformer_options": {}}
        told = {"input": x, "timestep": x.new_full((len(x),), sigma), "c": texts, "cond_or_uncond": [side]}
        return _shaped(self.function(apply_model, told), x, "model_function_wrapper")


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


def calc_cond_batch(
    model: BaseModel, conds: Sequence[Any], x_in: Tensor, timestep: Tensor, model_options: Mapping[str, Any]
) -> list[Tensor]:
    """The model's estimates for conditionings, by the functions round the network; zeros for a missing one."""
    options = known_options(model_options)
    asked = [conditioning_of(cond) for cond in conds if cond is not None]
    predict: Predict = model.predict
    if asked and (wrapper := options.get("model_function_wrapper")) is not None:
        predict = Wrapped(Given(model, options, asked[0], asked[-1], 1.0), wrapper, model.predict)
    found = iter(predict(x_in, number(timestep), asked))
    return [torch.zeros_like(x_in) if cond is None else next(found) for cond in conds]


def _shaped(made: Any, like: Tensor, what: str) -> Tensor:
    """What a function of a pack returned, when it is of the state's size."""
    if not isinstance(made, Tensor) or made.shape != like.shape:
        found = list(made.shape) if isinstance(made, Tensor) else type(made).__qualname__
        raise BadValue(f"the result of a pack's {what}", found, f"a tensor {list(like.shape)}")
    return made
