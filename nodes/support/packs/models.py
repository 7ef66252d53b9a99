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
from sigmagraph.nodes.support.packs.guidance import (
    Function,
    Options,
    PackGuidance,
    known_options,
    with_inside,
)
from sigmagraph.nodes.support.packs.hooks import OF_UNETS
from sigmagraph.nodes.support.packs.inside import patched_blocks
from sigmagraph.nodes.support.packs.model_sampling import parameterisation_of
from sigmagraph.nodes.support.packs.weights import (
    PREFIX,
    OtherWeight,
    WeightChange,
    checkpoint_tensors,
    model_weights,
    weight_change,
)
from sigmagraph.nodes.support.packs.wrappers import (
    CallbacksMP,
    Kept,
    add_callback,
    add_wrapper,
    all_wrappers,
    copied,
)

__all__ = ["ModelPatcher", "bare_model_of", "model_of"]

LOG = logging.getLogger("sigmagraph.packs")
NETWORK = PREFIX.removesuffix(".")
UNET_METHODS = {f"set_model_{place}" for place in OF_UNETS} | {"set_model_attn1_replace", "set_model_attn2_replace"}


class ModelPatcher:
    """A model of ours on a pack's side; what is set on a clone concerns nobody else."""

    def __init__(self, model: Model, *_: Any, **__: Any) -> None:
        if not isinstance(model, Model):
            raise BadValue("ModelPatcher", type(model).__qualname__, "a model that a loader of this engine gave")
        last = model.guidance[-1] if model.guidance else None
        known = last if isinstance(last, PackGuidance) else None  # what packs set before is seen, and set again
        self.came = model, known
        self.value = model if known is None else replace(model, guidance=model.guidance[:-1], inside=None)
        self.model = BaseModel(self.value)
        self.changes: tuple[WeightChange, ...] = ()
        self.compiles = False
        self.model_options: Options = {"transformer_options": {}, **(copied(known.options) if known else {})}
        self.callbacks: dict[Any, Kept] = copied(known.callbacks) if known else {}
        self.object_patches: dict[str, Any] = {}
        self.load_device, self.offload_device = model.placement.device, torch.device("cpu")

    def clone(self, *_: Any, **__: Any) -> "ModelPatcher":
        """Another patcher of the same model, with what is set so far."""
        made = type(self)(self.value)
        made.came, made.callbacks = self.came, copied(self.callbacks)
        made.model_options = copied(self.model_options)
        made.object_patches = dict(self.object_patches)
        made.changes, made.compiles = self.changes, self.compiles
        for callback in self._heard(CallbacksMP.ON_CLONE):
            callback(self, made)
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

    def model_state_dict(self, filter_prefix: str | None = None) -> Mapping[str, Tensor]:
        """The weights with every patch by name, each read when it is asked for."""
        found = model_weights(bare_model_of(self))
        return (
            found if filter_prefix is None else {name: found[name] for name in found if name.startswith(filter_prefix)}
        )

    def state_dict_for_saving(
        self,
        clip_state_dict: Mapping[str, Tensor] | None = None,
        vae_state_dict: Mapping[str, Tensor] | None = None,
        clip_vision_state_dict: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """The weights as a checkpoint has them, and those of other parts that are given, under their prefixes there."""
        return checkpoint_tensors(bare_model_of(self), clip_state_dict, vae_state_dict, clip_vision_state_dict)

    def memory_required(self, input_shape: Any) -> int:
        """Nothing a pack has to see to: the engine counts memory itself."""
        return 0

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
        if not name.startswith(("set_model_", "add_", "set_injections")):
            raise AttributeError(f"a model's {name} is not here for node packs; docs/packs.md lists what they can use")

        def refuse(*_: Any, **__: Any) -> NoReturn:
            raise BadValue(name, "a call", "functions of guidance: this engine's networks have no place for others")

        return refuse

    def set_model_patch(self, patch: Any, name: str) -> None:
        """A patch by the name of its place. Raises `BadValue` for places that would change the picture."""
        if name not in OF_UNETS:
            raise BadValue("set_model_patch", name, f"{', '.join(sorted(OF_UNETS))}, which change nothing")
        self._leave(name)

    def set_model_patch_replace(
        self, patch: Any, name: str, block_name: str = "", number: int = 0, transformer_index: int | None = None
    ) -> None:
        """A function in the place of a joint block (`dit`, `double_block`, number). Raises `BadValue` elsewhere."""
        if name != "dit":
            self.set_model_patch(patch, name)
            return
        made = set_model_options_patch_replace(self.model_options, patch, name, block_name, number, transformer_index)
        patched_blocks(made["transformer_options"], self.value.spec.shape.depth)  # refuses what is not there
        self.model_options = made

    @property
    def wrappers(self) -> dict[Any, Kept]:
        """What surrounds the model's runs and answers: by place and key."""
        found: dict[Any, Kept] = self.model_options.get("transformer_options", {}).get("wrappers", {})
        return found

    def add_wrapper(self, wrapper_type: Any, wrapper: Callable[..., Any]) -> None:
        """Surround a place. Raises `BadValue` for one that is not here."""
        self.add_wrapper_with_key(wrapper_type, None, wrapper)

    def add_wrapper_with_key(self, wrapper_type: Any, key: Any, wrapper: Callable[..., Any]) -> None:
        """The same under a key, by which it can be found and removed."""
        add_wrapper(self.model_options.setdefault("transformer_options", {}), wrapper_type, key, wrapper)

    def get_wrappers(self, wrapper_type: Any, key: Any) -> list[Any]:
        """What surrounds a place under a key."""
        return list(self.wrappers.get(wrapper_type, {}).get(key, ()))

    def get_all_wrappers(self, wrapper_type: Any) -> list[Any]:
        """Everything that surrounds a place."""
        return all_wrappers(wrapper_type, self.model_options, is_model_options=True)

    def remove_wrappers_with_key(self, wrapper_type: Any, key: Any) -> None:
        """Take away what surrounds a place under a key, if anything does."""
        self.wrappers.get(wrapper_type, {}).pop(key, None)

    def add_callback(self, call_type: Any, callback: Callable[..., Any]) -> None:
        """Have a function hear of clones, or of runs as they begin and end. Raises `BadValue` for other moments."""
        self.add_callback_with_key(call_type, None, callback)

    def add_callback_with_key(self, call_type: Any, key: Any, callback: Callable[..., Any]) -> None:
        """The same under a key, by which it can be removed."""
        add_callback(self.callbacks, call_type, key, callback)

    def remove_callbacks_with_key(self, call_type: Any, key: Any) -> None:
        """Take away what hears of a moment under a key, if anything does."""
        self.callbacks.get(call_type, {}).pop(key, None)

    def get_all_callbacks(self, call_type: Any) -> list[Any]:
        """Everything that hears of a moment."""
        return self._heard(call_type)

    def get_attachment(self, key: str) -> None:
        """What a pack attached: nothing stays attached to a model here."""

    def _heard(self, moment: Any) -> list[Any]:
        return [callback for told in self.callbacks.get(moment, {}).values() for callback in told]

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
    came, known = patcher.came
    model = bare_model_of(patcher)
    is_same = known is not None and model is patcher.value and _same(patcher.callbacks, known.callbacks)
    if known is not None and is_same and _same(patcher.model_options, known.options):
        return came
    options = known_options(copied(patcher.model_options))
    network = options.setdefault("transformer_options", {})
    network["wrappers"] = {place: keys for place, keys in network.get("wrappers", {}).items() if any(keys.values())}
    if not network["wrappers"]:
        del network["wrappers"]
    if (rule := options.pop("denoise_mask_function", None)) is not None:
        model = replace(model, mask_change=PackMask(rule))
    change = PackGuidance(options, {moment: told for moment, told in copied(patcher.callbacks).items() if told})
    return with_inside(model, options).with_guidance(change) if change.changes else model


def _same(some: Any, other: Any) -> bool:
    """Whether options hold the same objects at the same places."""
    if isinstance(some, dict) and isinstance(other, dict):
        return some.keys() == other.keys() and all(_same(some[name], other[name]) for name in some)
    if isinstance(some, list) and isinstance(other, list):
        return len(some) == len(other) and all(map(_same, some, other))
    return some is other


def set_model_options_patch_replace(
    model_options: Options,
    patch: Any,
    name: str,
    block_name: str,
    number: int,
    transformer_index: int | None = None,
) -> Options:
    """Options with a function in the place of a part of the network; those given are left as they are."""
    made = copied(model_options)
    place = (block_name, number) if transformer_index is None else (block_name, number, transformer_index)
    network = made.setdefault("transformer_options", {})
    network.setdefault("patches_replace", {}).setdefault(name, {})[place] = patch
    return dict(made)


def set_model_options_post_cfg_function(
    model_options: Options, post_cfg_function: Function, disable_cfg1_optimization: bool = False
) -> Options:
    """Options with one more function after guidance; they are changed in place too, as packs expect."""
    place = "sampler_post_cfg_function"
    model_options[place] = [*model_options.get(place, ()), post_cfg_function]
    if disable_cfg1_optimization:
        model_options["disable_cfg1_optimization"] = True
    return model_options


@dataclass(frozen=True)
class PackMask:
    """How a pack's function changes the mask of inpainting with the noise level."""

    function: Callable[..., Tensor]

    def __call__(self, model: Model, sigmas: Sequence[float]) -> MaskRule:
        about = {"model": SimpleNamespace(inner_model=BaseModel(model)), "sigmas": torch.tensor(sigmas)}

        def rule(mask: Tensor, sigma: float) -> Tensor:
            return self.function(mask.new_full((1,), sigma), mask, extra_options=about)

        return rule
