"""What packs change within a network's forward: functions in the place of joint blocks, and round the whole forward.

Such a function is told `transformer_options`: what lies among the model's options, and of which side each part of the
batch is, at which level, and over which levels the run goes.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models.arch.mmdit import BlockCall
from sigmagraph.engine.models.conditioning import Conditioning
from sigmagraph.engine.models.controlnet import Asked
from sigmagraph.engine.models.value import Model, Pass
from sigmagraph.engine.sampling.fingerprint import fingerprint
from sigmagraph.nodes.support.packs.wrappers import WrappersMP, all_wrappers, surrounded

__all__ = ["RUN", "PackInside", "RunNow", "asks_inside", "network_options"]

Patch = Callable[[dict[str, Any], dict[str, Any]], Mapping[str, Any]]
KIND = "double_block"


@dataclass(frozen=True, eq=False)
class RunNow:
    """The run under way: its levels, and for options by their id those that its wrappers may still add to."""

    sigmas: Tensor
    options: dict[int, dict[str, Any]] = field(default_factory=dict)
    guider: Any = None


RUN: ContextVar[RunNow | None] = ContextVar("run with functions of packs", default=None)


def network_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The network's options: those of the run under way where there is one, with its levels."""
    run = RUN.get()
    known = options if run is None else run.options.get(id(options), options)
    found = dict(known.get("transformer_options", {}))
    return found if run is None else {**found, "sample_sigmas": run.sigmas}


def asks_inside(options: Mapping[str, Any]) -> bool:
    """Whether options hold something for within the network."""
    own = options.get("transformer_options", {})
    places = WrappersMP.OUTER_SAMPLE, WrappersMP.DIFFUSION_MODEL  # one round a whole run may add others
    patches = own.get("patches_replace", {}).get("dit")
    return bool(patches or any(all_wrappers(place, own) for place in places))


def patched_blocks(options: Mapping[str, Any], depth: int) -> dict[int, Patch]:
    """The functions for joint blocks. Raises `BadValue` for a place that SD3's transformer does not have."""
    found: dict[int, Patch] = {}
    for place, patch in options.get("patches_replace", {}).get("dit", {}).items():
        kind, number = (*place, None, None)[:2] if isinstance(place, tuple) else (place, None)
        if kind != KIND or not isinstance(number, int) or not 0 <= number < depth:
            allowed = f"('{KIND}', number) with a number from 0 to {depth - 1}: this model's joint blocks"
            raise BadValue("patches_replace of dit", place, allowed)
        found[number] = patch
    return found


@dataclass(frozen=True, eq=False)
class PackInside:
    """A pack's functions within the network. `negative` are texts of the side that guidance leads away from, by id."""

    options: dict[str, Any]
    negative: frozenset[int] = frozenset()

    def __str__(self) -> str:
        where = re.sub(r" at 0x[0-9a-f]+", "", str(self.options.get("transformer_options", {})))
        return f"PackInside({fingerprint(where)})"

    @classmethod
    def of(cls, options: dict[str, Any], depth: int) -> "PackInside":
        """For a model of so many blocks. Raises `BadValue` for a place that it does not have."""
        patched_blocks(options.get("transformer_options", {}), depth)
        return cls(options)

    def told_sides(self, positive: Conditioning, negative: Conditioning) -> "PackInside":
        """The same, which knows whose text is whose; a text of both counts as the positive's."""
        away = {id(one.context) for one in negative.entries} - {id(one.context) for one in positive.entries}
        return PackInside(self.options, frozenset(away))

    def velocity(
        self, network: Callable[..., Tensor], rows: Sequence[Pass], asked: Asked, more: Mapping[str, Any]
    ) -> Tensor:
        """What the network says, by way of the functions."""
        first = rows[0]
        told = network_options(self.options)
        told["cond_or_uncond"] = [int(id((one.text or one.entry).context) in self.negative) for one in rows]
        told["sigmas"] = torch.full((len(first.fed),), _level(first), device=asked.fed.device)
        forward = partial(_forward, network, first.model, more)
        executor = surrounded(WrappersMP.DIFFUSION_MODEL, told, forward, network)
        made: Any = executor(asked.fed, asked.timestep, asked.context, asked.pooled, more.get("control"), told)
        if not isinstance(made, Tensor) or made.shape != asked.fed.shape:
            found = list(made.shape) if isinstance(made, Tensor) else type(made).__qualname__
            raise BadValue("the result of a pack's diffusion_model wrapper", found, f"a tensor {list(asked.fed.shape)}")
        return made


def _level(one: Pass) -> float:
    """The noise level of a pass."""
    return float(one.model.parameterisation.levels.sigma(one.level))


def _forward(
    network: Callable[..., Tensor],
    model: Model,
    more: Mapping[str, Any],
    x: Tensor,
    timesteps: Tensor,
    context: Tensor,
    y: Tensor,
    control: Any = None,
    transformer_options: Mapping[str, Any] | None = None,
    **_: Any,
) -> Tensor:
    """The network's forward in the order packs call it, with functions in the place of blocks."""
    told = dict(transformer_options or {})
    patches = patched_blocks(told, model.spec.shape.depth)
    if not patches:
        return network(x, timesteps, y, context, **more)
    blocks = {number: partial(_replaced, patch, {**told, "block": (KIND, number)}) for number, patch in patches.items()}
    return network(x, timesteps, y, context, **more, blocks=blocks)


def _replaced(patch: Patch, told: dict[str, Any], call: BlockCall) -> BlockCall:
    """A block's call by way of a pack's function, which is given the block as a function of the same dict."""

    def called(block: Any, image: Tensor, context: Tensor, condition: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
        def original(given: Mapping[str, Any]) -> dict[str, Tensor]:
            made = call(block, given["img"], given["txt"], given["vec"], **more)
            return {"img": made[0], "txt": made[1]}

        given = {"img": image, "txt": context, "vec": condition, "transformer_options": told}
        made = patch(given, {"original_block": original, "transformer_options": told})
        given_back: Any = made
        parts = given_back.get("img") if isinstance(given_back, dict) else None
        if not isinstance(parts, Tensor) or parts.shape != image.shape:
            found = list(parts.shape) if isinstance(parts, Tensor) else type(given_back).__qualname__
            raise BadValue(f"the result of a pack's patch of {told['block']}", found, f"img {list(image.shape)}, txt")
        text = made.get("txt")
        return parts, context if text is None else text

    return called
