"""`comfy.patcher_extension`: functions of packs that surround a part of sampling, kept by place and key.

They lie among a model's options, in `transformer_options`. The first of a place is the outermost; it is given an
executor, which calls the next one, and in the end what they surround.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sigmagraph.engine.errors import BadValue

__all__ = [
    "CallbacksMP",
    "WrapperExecutor",
    "WrappersMP",
    "add_callback",
    "add_wrapper",
    "add_wrapper_with_key",
    "all_wrappers",
    "copied",
    "get_wrappers_with_key",
    "surrounded",
]

Options = dict[str, Any]
Kept = dict[Any, list[Any]]


class WrappersMP:
    """Places that can be surrounded, from the whole run to the network's forward."""

    OUTER_SAMPLE = "outer_sample"
    PREPARE_SAMPLING = "prepare_sampling"
    SAMPLER_SAMPLE = "sampler_sample"
    PREDICT_NOISE = "predict_noise"
    CALC_COND_BATCH = "calc_cond_batch"
    APPLY_MODEL = "apply_model"
    DIFFUSION_MODEL = "diffusion_model"


class CallbacksMP:
    """Moments that can be heard of."""

    ON_CLONE = "on_clone"
    ON_LOAD = "on_load"
    ON_DETACH = "on_detach"
    ON_PRE_RUN = "on_pre_run"
    ON_CLEANUP = "on_cleanup"


PLACES = (
    *(WrappersMP.OUTER_SAMPLE, WrappersMP.PREPARE_SAMPLING, WrappersMP.PREDICT_NOISE, WrappersMP.CALC_COND_BATCH),
    *(WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL),
)
"""Not SAMPLER_SAMPLE: this engine drives the steps itself."""
MOMENTS = (CallbacksMP.ON_CLONE, CallbacksMP.ON_PRE_RUN, CallbacksMP.ON_CLEANUP)
"""Not those of loading: when weights come and go is the engine's business."""


def copied(options: Any) -> Any:
    """Dicts and lists anew, what is in them as it is."""
    if isinstance(options, dict):
        return {name: copied(part) for name, part in options.items()}
    return list(options) if isinstance(options, list) else options


def add_wrapper(options: Options, place: Any, key: Any, wrapper: Callable[..., Any]) -> None:
    """Surround a place from within those that do so already. Raises `BadValue` for one that is not here."""
    if place not in PLACES:
        raise BadValue("add_wrapper", place, ", ".join(PLACES))
    options.setdefault("wrappers", {}).setdefault(place, {}).setdefault(key, []).append(wrapper)


def add_callback(callbacks: dict[Any, Kept], moment: Any, key: Any, callback: Callable[..., Any]) -> None:
    """Have a function hear of a moment. Raises `BadValue` for one that does not come here."""
    if moment not in MOMENTS:
        raise BadValue("add_callback", moment, ", ".join(MOMENTS))
    callbacks.setdefault(moment, {}).setdefault(key, []).append(callback)


def _of_network(options: Options, is_model_options: bool) -> Options:
    """The network's options, where wrappers lie, in a model's or as they are."""
    found: Options = options.setdefault("transformer_options", {}) if is_model_options else options
    return found


def add_wrapper_with_key(
    wrapper_type: Any,
    key: Any,
    wrapper: Callable[..., Any],
    transformer_options: Options,
    is_model_options: bool = False,
) -> None:
    """The same for options that are not a patcher's yet."""
    add_wrapper(_of_network(transformer_options, is_model_options), wrapper_type, key, wrapper)


def get_wrappers_with_key(
    wrapper_type: Any, key: Any, transformer_options: Options, is_model_options: bool = False
) -> list[Any]:
    """What surrounds a place under a key."""
    found = _of_network(transformer_options, is_model_options).get("wrappers", {})
    return list(found.get(wrapper_type, {}).get(key, ()))


def all_wrappers(place: Any, transformer_options: Options, is_model_options: bool = False) -> list[Any]:
    """Everything that surrounds a place, the outermost first."""
    keys: Mapping[Any, Sequence[Any]] = (
        _of_network(transformer_options, is_model_options).get("wrappers", {}).get(place, {})
    )
    return [wrapper for wrappers in keys.values() for wrapper in wrappers]


class WrapperExecutor:
    """What a wrapper is given: called, it goes on with the next one within, or with what they surround."""

    def __init__(
        self, original: Callable[..., Any], class_obj: Any, wrappers: Sequence[Callable[..., Any]], idx: int = 0
    ) -> None:
        self.original, self.class_obj, self.wrappers, self.idx = original, class_obj, list(wrappers), idx

    @classmethod
    def new_class_executor(
        cls, original: Callable[..., Any], class_obj: Any, wrappers: Sequence[Callable[..., Any]], idx: int = 0
    ) -> "WrapperExecutor":
        """One round a method of an object."""
        return cls(original, class_obj, wrappers, idx)

    @classmethod
    def new_executor(
        cls, original: Callable[..., Any], wrappers: Sequence[Callable[..., Any]], idx: int = 0
    ) -> "WrapperExecutor":
        """One round a function."""
        return cls(original, None, wrappers, idx)

    def execute(self, *arguments: Any, **named: Any) -> Any:
        """Call the wrapper whose turn it is."""
        if self.idx == len(self.wrappers):
            return self.original(*arguments, **named)
        within = type(self)(self.original, self.class_obj, self.wrappers, self.idx + 1)
        return self.wrappers[self.idx](within, *arguments, **named)

    __call__ = execute


def surrounded(place: str, options: Options, original: Callable[..., Any], class_obj: Any = None) -> WrapperExecutor:
    """What is to be called in place of `original`, by the network's options."""
    return WrapperExecutor(original, class_obj, all_wrappers(place, options))
