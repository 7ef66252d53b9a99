"""Models as node packs handle them: a patcher that is cloned, given functions and handed on.

Ours are immutable values. A patcher holds one and what a pack sets on it; when the pack returns the patcher it becomes
our value again: changes of weights are patches of its recipe, functions one more change to how it is guided.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from types import SimpleNamespace
from typing import Any, NoReturn

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models.value import Model
from sigmagraph.engine.sampling.mask import MaskRule
from sigmagraph.nodes.support.packs.base_model import BaseModel, ModelSampling
from sigmagraph.nodes.support.packs.guidance import Function, Options, PackGuidance, known_options
from sigmagraph.nodes.support.packs.weights import PREFIX, OtherWeight, WeightChange, weight_change

__all__ = ["ModelPatcher", "bare_model_of", "model_of"]


class ModelPatcher:
    """A model of ours on a pack's side; what is set on a clone concerns nobody else."""

    def __init__(self, model: Model, *_: Any, **__: Any) -> None:
        if not isinstance(model, Model):
            raise BadValue("ModelPatcher", type(model).__qualname__, "a model that a loader of this engine gave")
        self.value = model
        self.model = BaseModel(model)
        self.changes: tuple[WeightChange, ...] = ()
        self.model_options: Options = {"transformer_options": {}}
        self.object_patches: dict[str, Any] = {}
        self.load_device, self.offload_device = model.placement.device, torch.device("cpu")

    def clone(self, *_: Any, **__: Any) -> "ModelPatcher":
        """Another patcher of the same model, with what is set so far."""
        made = type(self)(self.value)
        made.model_options = _copied(self.model_options)
        made.object_patches = dict(self.object_patches)
        made.changes = self.changes
        return made

    def is_clone(self, other: Any) -> bool:
        """Whether both are of one network."""
        return isinstance(other, ModelPatcher) and other.value.recipe is self.value.recipe

    clone_has_same_weights = is_clone

    @property
    def patches(self) -> dict[str, list[Any]]:
        """The weights that are changed, by name, with what changes them."""
        found: dict[str, list[Any]] = {}
        for change in self.changes:
            for name in change.names:
                found.setdefault(PREFIX + name, []).append(change)
        return found

    def add_patches(
        self, patches: Mapping[Any, Any], strength_patch: float = 1.0, strength_model: float = 1.0
    ) -> list[Any]:
        """Change weights: so much of each is kept, so much of its patch is added. The names that are weights here."""
        change, taken = weight_change(self.value, patches, strength_patch, strength_model)
        self.changes = (*self.changes, *change)
        return taken

    def get_key_patches(self, filter_prefix: str | None = None) -> dict[str, Any]:
        """The weights by name, as patches for another model; they are read when a network is made of them."""
        model = bare_model_of(self)
        names = [PREFIX + name for name in model.recipe.weights]
        return {name: [OtherWeight(model, name)] for name in names if name.startswith(filter_prefix or "")}

    def model_dtype(self) -> torch.dtype:
        """The precision the network computes in."""
        return self.value.placement.dtype

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

    def set_model_sampler_calc_cond_batch_function(self, function: Function) -> None:
        """The function gives the estimates of all sides."""
        self.model_options["sampler_calc_cond_batch_function"] = function

    def set_model_denoise_mask_function(self, function: Callable[..., Tensor]) -> None:
        """The function says what an inpainting mask is at a noise level."""
        self.model_options["denoise_mask_function"] = function

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


def bare_model_of(patcher: ModelPatcher) -> Model:
    """The model with changed weights and levels, and without the functions round it."""
    model = patcher.value
    for change in patcher.changes:
        model = change(model)
    if (sampling := patcher.object_patches.get("model_sampling")) is not None:
        model = model.with_parameterisation(sampling.parameterisation)
    return model


def model_of(patcher: Any) -> Any:
    """The model value that a patcher means; what is no patcher is handed back. Raises `BadValue` for other hooks."""
    if not isinstance(patcher, ModelPatcher):
        return patcher
    options = known_options(_copied(patcher.model_options))
    model = bare_model_of(patcher)
    if (rule := options.pop("denoise_mask_function", None)) is not None:
        model = replace(model, mask_change=PackMask(rule))
    change = PackGuidance(options)
    return model.with_guidance(change) if change.changes else model


@dataclass(frozen=True)
class PackMask:
    """How a pack's function changes the mask of inpainting with the noise level."""

    function: Callable[..., Tensor]

    def __call__(self, model: Model, sigmas: Sequence[float]) -> MaskRule:
        about = {"model": SimpleNamespace(inner_model=BaseModel(model)), "sigmas": torch.tensor(sigmas)}

        def rule(mask: Tensor, sigma: float) -> Tensor:
            return self.function(mask.new_full((1,), sigma), mask, extra_options=about)

        return rule


def _copied(options: Any) -> Any:
    """Dicts and lists anew, what is in them as it is."""
    if isinstance(options, dict):
        return {name: _copied(part) for name, part in options.items()}
    return list(options) if isinstance(options, list) else options
