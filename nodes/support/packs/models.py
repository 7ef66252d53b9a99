"""Models as node packs handle them: a patcher that is cloned, given functions and handed on.

Ours are immutable values. A patcher holds one and what a pack sets on it; when the pack returns the patcher it becomes
our value again: changes of weights are patches of its recipe, functions one more change to how it is guided.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from operator import attrgetter
from types import SimpleNamespace
from typing import Any, NoReturn

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models.value import Model
from sigmagraph.engine.sampling.mask import MaskRule
from sigmagraph.nodes.support.packs.base_model import BaseModel, Part
from sigmagraph.nodes.support.packs.guidance import OF_UNETS, Function, Options, PackGuidance, known_options
from sigmagraph.nodes.support.packs.model_sampling import parameterisation_of
from sigmagraph.nodes.support.packs.weights import PREFIX, OtherWeight, WeightChange, weight_change

__all__ = ["ModelPatcher", "bare_model_of", "model_of"]

LOG = logging.getLogger("sigmagraph.packs")
NETWORK = PREFIX.removesuffix(".")
UNET_METHODS = {f"set_model_{place}" for place in OF_UNETS} | {"set_model_attn1_replace", "set_model_attn2_replace"}


class ModelPatcher:
    """A model of ours on a pack's side; what is set on a clone concerns nobody else."""

    def __init__(self, model: Model, *_: Any, **__: Any) -> None:
        if not isinstance(model, Model):
            raise BadValue("ModelPatcher", type(model).__qualname__, "a model that a loader of this engine gave")
        self.value = model
        self.model = BaseModel(model)
        self.changes: tuple[WeightChange, ...] = ()
        self.compiles = False
        self.model_options: Options = {"transformer_options": {}}
        self.object_patches: dict[str, Any] = {}
        self.load_device, self.offload_device = model.placement.device, torch.device("cpu")

    def clone(self, *_: Any, **__: Any) -> "ModelPatcher":
        """Another patcher of the same model, with what is set so far."""
        made = type(self)(self.value)
        made.model_options = _copied(self.model_options)
        made.object_patches = dict(self.object_patches)
        made.changes, made.compiles = self.changes, self.compiles
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
        """`model_sampling`, `latent_format`, or what stands for the network or a block of it."""
        if name in self.object_patches:
            return self.object_patches[name]
        if name in ("model_sampling", "latent_format"):
            return getattr(self.model, name)
        if name == NETWORK or name.startswith(PREFIX):
            return attrgetter(name)(self.model)
        raise BadValue("get_model_object", name, "model_sampling, latent_format or diffusion_model")

    def add_object_patch(self, name: str, part: Any) -> None:
        """Other noise levels, or the network or its blocks compiled; nothing else of a model can be exchanged."""
        if (name == NETWORK or name.startswith(PREFIX)) and isinstance(getattr(part, "_orig_mod", None), Part):
            self.compiles = True
            return
        if name != "model_sampling":
            allowed = "model_sampling, or a compiled diffusion_model"
            raise BadValue("add_object_patch", f"{name}: {type(part).__qualname__}", allowed)
        parameterisation_of(part)  # refuses what says too little
        self.object_patches[name] = part

    def __deepcopy__(self, memo: Any) -> "ModelPatcher":
        return self.clone()

    def __getattr__(self, name: str) -> Any:
        if name in UNET_METHODS:
            return partial(self._leave, name)
        if not name.startswith(("set_model_", "add_")):
            raise AttributeError(f"a model's {name} is not here for node packs; docs/packs.md lists what they can use")

        def refuse(*_: Any, **__: Any) -> NoReturn:
            raise BadValue(name, "a call", "functions of guidance: this engine's networks have no place for others")

        return refuse

    def set_model_patch(self, patch: Any, name: str) -> None:
        """A patch by the name of its place. Raises `BadValue` for places that would change the picture."""
        if name not in OF_UNETS:
            raise BadValue("set_model_patch", name, f"{', '.join(sorted(OF_UNETS))}, which change nothing")
        self._leave(name)

    def set_model_patch_replace(self, patch: Any, name: str, *_: Any, **__: Any) -> None:
        """The same for what takes a part's place."""
        self.set_model_patch(patch, name)

    def _leave(self, name: str, *_: Any, **__: Any) -> None:
        """A transformer of this family has no such place, in ComfyUI either: the picture stays as it is."""
        LOG.warning("%s acts in a U-Net's blocks, which an SD3 model does not have; it changes nothing", name)

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
        model = model.with_parameterisation(parameterisation_of(sampling))
    return model.compiled() if patcher.compiles else model


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
