"""ControlNets as values: `ControlNet` is one that was loaded, `Control` one that acts on a conditioning's entry.

Both are immutable. A `Control` is asked at every evaluation for residuals, which are functions of the state, the noise
level, the text and the hint alone. So runs can be cut, resumed, interleaved and made together as without.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models.arch import ControlShape, JointControlNet, MMDiT, StreamControlNet
from sigmagraph.engine.models.arch.mmdit import MMDiTShape, padded, stretched_positions
from sigmagraph.engine.models.memory.recipe import Recipe
from sigmagraph.engine.models.spec import LatentFormat
from sigmagraph.engine.sampling.fingerprint import fingerprint
from sigmagraph.engine.sampling.precision import is_in_time
from sigmagraph.engine.sampling.resize import resized

Convention = Literal["comfyui", "official"]
HintKind = Literal["blur", "canny", "depth", "plain"]
HINT_KINDS: Mapping[int, HintKind] = {0: "blur", 1: "canny", 2: "depth"}  # by SD3.5's `control_type`
Residuals = Sequence[Sequence[Tensor]]
"""For each block of the transformer what is added after it, [B, N, D] each."""


class HintEncoder(Protocol):
    """Makes latents of pictures [B, H, W, 3] in 0..1: an autoencoder."""

    def encode(self, image: Tensor) -> Tensor:
        """[B, 16, H / 8, W / 8] in VAE units."""


class Asked(NamedTuple):
    """What residuals are functions of, beside the hint: states [B, C, h, w], timesteps [B], pooled [B, P], text."""

    fed: Tensor
    timestep: Tensor
    pooled: Tensor
    context: Tensor


@dataclass(frozen=True, eq=False)
class ControlNet:
    """A ControlNet: the recipe of its network and how hints are prepared for it.

    `convention`: "comfyui" makes the pictures that ComfyUI makes, "official" follows those who trained the network
    (docs/models.md has the differences). `takes_pooled`: under the latter a joint net gets the pooled text, not zeros.
    `options` is what nodes set for ControlNets of several types, which this family does not have.
    """

    recipe: Recipe[JointControlNet] | Recipe[StreamControlNet]
    shape: ControlShape
    hint_kind: HintKind = "plain"
    convention: Convention = "comfyui"
    takes_pooled: bool = False
    latent_format: LatentFormat = field(default_factory=LatentFormat)
    options: Mapping[str, Any] = field(default_factory=dict)

    needs_vae: ClassVar[bool] = True  # all of this family take latents

    @property
    def takes_mask(self) -> bool:
        """Whether hints have a further channel, a mask."""
        return self.shape.extra_channels > 0

    def following(self, convention: Convention) -> "ControlNet":
        """The same net, its hints prepared in this way."""
        return replace(self, convention=convention)

    def with_options(self, **options: Any) -> "ControlNet":
        """The same with these options set."""
        return replace(self, options={**self.options, **options})

    @property
    def key(self) -> Hashable:
        """Equal for nets that give equal residuals."""
        return self.recipe.key, self.hint_kind, self.convention, self.takes_pooled

    @property
    def fingerprint(self) -> str:
        """What a recorded run with it must have been made with."""
        return f"{self.recipe.what} {self.hint_kind} {self.convention} {self.takes_pooled}"

    def prepared(self, image: Tensor) -> Tensor:
        """A picture [B, H, W, 3] in 0..1 as the autoencoder is to be given it."""
        if self.hint_kind == "canny":  # twice stretched in ComfyUI: the node does, and then its autoencoder does
            stretched = image * (255 / 2) + 0.5
            return stretched if self.convention == "comfyui" else (stretched + 1) / 2
        if self.hint_kind == "depth" and self.convention == "comfyui":
            return 1.0 - image  # maps drawn near = white
        return image

    def in_model_space(self, latent: Tensor) -> Tensor:
        """A hint's latent as the network was trained with it: joint nets of the first kind know no shift."""
        shifts = not self.shape.is_joint or (self.convention == "official" and self.takes_pooled)
        return self.latent_format.to_model(latent) if shifts else latent * self.latent_format.scale

    def spread(self, residuals: Sequence[Tensor], depth: int) -> list[Tensor]:
        """A residual for each of the transformer's blocks, from the first on; a joint net leaves the last one out."""
        count = len(residuals)
        if self.convention == "official":
            ends = depth - 1 if self.shape.is_joint else depth
            return [residuals[i * count // depth] for i in range(ends)]
        repeats = depth // count if self.shape.is_joint else -(-depth // count)
        repeated = [residual for residual in residuals for _ in range(max(repeats, 1))]
        return repeated[: depth - 1] if self.shape.is_joint else repeated[:depth]


@dataclass(frozen=True, eq=False, slots=True)
class Control:
    """A ControlNet with its hint [B, H, W, 3], at a strength, from `start` to `end` of the way (0 noise, 1 picture).

    `mask` [B, 1, H, W] is the hint's further channel, 1 where the picture stays.
    """

    net: ControlNet
    hint: Tensor
    vae: HintEncoder | None = None
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0
    mask: Tensor | None = None
    _latents: dict[tuple[int, int], Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def acts(self, sigma: float, percent_to_sigma: Callable[[float], float]) -> bool:
        """Whether it has a say at a noise level."""
        return is_in_time(sigma, self.start, self.end, percent_to_sigma)

    @property
    def key(self) -> Hashable:
        """Equal for controls that give equal residuals at a noise level where both act."""
        mask = None if self.mask is None else id(self.mask)
        return self.net.key, id(self.hint), mask, id(self.vae), self.strength

    @property
    def fingerprint(self) -> str:
        """What a recorded run with it must have been made with: the net, the hint, the autoencoder, how it acts."""
        vae = getattr(getattr(self.vae, "recipe", None), "what", type(self.vae).__qualname__)
        drawn = fingerprint(self.hint, self.mask)
        return f"{self.net.fingerprint} {drawn} {vae} {self.strength} {self.start} {self.end}"

    def latent(self, rows: int, columns: int) -> Tensor:
        """The hint as the network takes it, for a state of this size: [B, 16 + extra, rows, columns], on the CPU.

        Made once for each size. Raises `BadValue` where there is no autoencoder, or no mask, and the net needs one.
        """
        known = self._latents.get((rows, columns))
        if known is None:
            known = self._latents[rows, columns] = self._encoded(rows, columns)
        return known

    @torch.no_grad()
    def _encoded(self, rows: int, columns: int) -> Tensor:
        if self.vae is None:
            raise BadValue("vae", None, NEEDS_VAE)
        if self.hint.ndim != 4 or not len(self.hint) or self.hint.shape[-1] < 3:
            raise BadValue("image", list(self.hint.shape), "one picture or more, [B, H, W, 3]")
        step = self.net.latent_format.downscale
        planes = resized(self.hint[..., :3].movedim(-1, 1), columns * step, rows * step, "nearest-exact", crop=True)
        latent = self.net.in_model_space(self.vae.encode(self.net.prepared(planes).movedim(1, -1)).float())
        expected = self.net.shape.of_blocks.in_channels, rows, columns
        if tuple(latent.shape[1:]) != expected:
            raise BadValue("vae", f"one that makes {list(latent.shape[1:])}", f"{list(expected)} of this picture")
        if not self.net.takes_mask:
            return latent
        if self.mask is None:
            raise BadValue("control_net", "one for inpainting", NEEDS_MASK)
        mask = resized(self.mask.to(latent), columns, rows, "nearest-exact", crop=True)
        extra = mask[:, :1].expand(-1, self.net.shape.extra_channels, -1, -1)
        return torch.cat([latent, in_turn(extra, len(latent))], dim=1)

    def residuals(self, network: MMDiT, asked: Asked, hint: Tensor) -> list[Tensor]:
        """What to add behind each block of `network`: [B, N, D] each. `hint` is a row of `latent` for each state."""
        made = self._joint(asked, hint) if self.net.shape.is_joint else self._stream(network, asked, hint)
        return self.net.spread([residual * self.strength for residual in made], network.shape.depth)

    def _joint(self, asked: Asked, hint: Tensor) -> list[Tensor]:
        gives_pooled = self.net.convention == "official" and self.net.takes_pooled
        pooled = asked.pooled if gives_pooled else torch.zeros_like(asked.pooled)
        with self.net.recipe.use() as joint:
            assert isinstance(joint, JointControlNet)
            made: list[Tensor] = joint(asked.fed, hint, asked.timestep, pooled, asked.context)
        return made

    def _stream(self, network: MMDiT, asked: Asked, hint: Tensor) -> list[Tensor]:
        patch = network.shape.patch
        fed = padded(asked.fed, patch).to(network.dtype)
        rows, columns = (side // patch for side in fed.shape[-2:])
        table = (
            network.positions(rows, columns)
            if self.net.convention == "official"
            else stretched_positions(rows, columns, network.shape.width, fed.device)
        )
        tokens = network.x_embedder(fed) + table.to(fed.device, network.dtype)
        with self.net.recipe.use() as stream:
            assert isinstance(stream, StreamControlNet)
            made: list[Tensor] = stream(tokens, hint, asked.timestep, asked.pooled)
        return made


def _require_fit(net: ControlNet, model: MMDiTShape, asked: Asked) -> None:
    """Raise `BadValue` where a net and a model, a text or a picture do not fit together, before torch finds out."""
    mine = net.shape.of_blocks
    sizes = {"width": (mine.width, model.width), "patch": (mine.patch, model.patch)}
    sizes["pooled width"] = mine.pooled_width, asked.pooled.shape[-1]
    if net.shape.is_joint:
        sizes["context width"] = mine.context_width, asked.context.shape[-1]
    for what, (found, expected) in sizes.items():
        if found != expected:
            told = f"{net.recipe.what}, of {what} {found}"
            raise BadValue("control_net", told, f"one of {what} {expected}, as this model has")
    tokens = max(-(-side // mine.patch) for side in asked.fed.shape[-2:])
    if net.shape.is_joint and tokens > mine.table_side:
        most, step = mine.table_side, mine.patch * net.latent_format.downscale
        told = f"a picture of {tokens * step} pixels a side"
        raise BadValue("control_net", told, f"at most {most * step}, where the positions of {net.recipe.what} end")


NEEDS_VAE = "an autoencoder: this ControlNet takes latents; use Apply ControlNet with its vae connected"
NEEDS_MASK = "a picture with a mask: ControlNetInpaintingAliMamaApply gives it both"


def in_turn(rows: Tensor, count: int) -> Tensor:
    """The rows in turn, `count` of them."""
    own = len(rows)
    return rows if own == count else torch.cat([rows] * -(-count // own))[:count]


def summed(nets: Sequence[Sequence[Tensor]]) -> Residuals:
    """The residuals of several nets, block by block."""
    depth = max(map(len, nets), default=0)
    return [[residuals[i] for residuals in nets if i < len(residuals)] for i in range(depth)]


def residuals_of(network: MMDiT, controls: Sequence[Control], asked: Asked, hints: Sequence[Tensor]) -> Residuals:
    """What to add behind each block of `network`. Raises `BadValue` for a net that is for another model."""
    for control in controls:
        _require_fit(control.net, network.shape, asked)
    return summed([control.residuals(network, asked, hint) for control, hint in zip(controls, hints, strict=True)])
