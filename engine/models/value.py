"""The values on graph edges: `Model` and `Vae` (`Clip` is in text/). Immutable: a change makes a new one."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial, reduce
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models import autoencoding
from sigmagraph.engine.models.arch import Autoencoder, MMDiT, VaeShape
from sigmagraph.engine.models.arch.mmdit import AttentionChange, TextAt
from sigmagraph.engine.models.arch.tiles import Tiling
from sigmagraph.engine.models.arch.tiny_vae import PixelSpace, TinyAutoencoder
from sigmagraph.engine.models.cached import Cached, CachedPredict, cached_forward
from sigmagraph.engine.models.conditioning import Conditioning, with_windows_answered
from sigmagraph.engine.models.controlnet import Asked, Control, in_turn, residuals_of
from sigmagraph.engine.models.files.adapter_keys import mmdit_keys
from sigmagraph.engine.models.files.fp8 import roundings
from sigmagraph.engine.models.files.lora import Adapter, Adapting
from sigmagraph.engine.models.files.read import files_of
from sigmagraph.engine.models.files.rename import ParameterSlot
from sigmagraph.engine.models.halves import velocities
from sigmagraph.engine.models.hooks import Hook
from sigmagraph.engine.models.memory.device import Placement
from sigmagraph.engine.models.memory.modulation_tables import expect
from sigmagraph.engine.models.memory.recipe import Recipe
from sigmagraph.engine.models.moved import MOVED
from sigmagraph.engine.models.regions import Region, Window, weighted_mean
from sigmagraph.engine.models.spec import LatentFormat, ModelSpec
from sigmagraph.engine.sampling.caches import BlockCache
from sigmagraph.engine.sampling.guidance import Cfg, Predict, ReuseRule
from sigmagraph.engine.sampling.mask import MaskRule
from sigmagraph.engine.sampling.parameterisation import Parameterisation
from sigmagraph.engine.sampling.solver_run import tracking

KEPT_HOOKED = 2  # a positive's and a negative's


@dataclass(frozen=True, eq=False)
class Model:
    """A diffusion model: the recipe of its network, its spec, and what this value changes about it.

    Adapters are patches of the recipe: they are merged tensor by tensor when the network is made.
    `parameterisation` starts as the spec's; `skip_layers` are blocks left out (skip-layer guidance); `attention` takes
    the place of attention in some blocks; `inside` changes what the network computes, `guidance` how `guided` combines
    its predictions, `mask_change` how the mask of inpainting depends on the noise level. `step_cache` lets runs leave
    evaluations out; with `measures_drift` they also run without it, and say how far off they were.
    """

    recipe: Recipe[MMDiT]
    spec: ModelSpec
    parameterisation: Parameterisation
    skip_layers: frozenset[int] = frozenset()
    attention: AttentionChange | None = None
    guidance: tuple["GuidanceChange", ...] = ()
    mask_change: "MaskChange | None" = None
    inside: "InsideChange | None" = None
    step_cache: "StepCache | None" = None
    measures_drift: bool = False

    def with_guidance(self, change: "GuidanceChange") -> "Model":
        """The same model with one more change to how it is guided, after those it has already."""
        return replace(self, guidance=(*self.guidance, change))

    def guided(self, positive: Conditioning, negative: Conditioning, scale: float) -> Cfg:
        """Classifier-free guidance of this model, with every change that it carries."""
        guided = Cfg(self.predictor, positive, negative.with_shared_controls(positive), scale)
        for change in self.guidance:
            guided = change(self, guided)
        if isinstance(self.step_cache, ReuseRule):
            return self.step_cache.on(guided, self.parameterisation)
        return guided

    @property
    def predictor(self) -> Predict:
        """`predict`, by way of the step cache where there is one that looks into the network."""
        return CachedPredict(self, self.step_cache) if isinstance(self.step_cache, BlockCache) else self.predict

    def with_step_cache(self, cache: "StepCache | None") -> "Model":
        """The same model with this step cache; of one kind the last counts, and two kinds do not go together.

        Raises `BadValue` for a second kind, and for a model of too few blocks to leave any out.
        """
        if cache is not None and self.step_cache is not None and self.step_cache.label != cache.label:
            raise BadValue(
                "step cache", f"{cache.label} on a model with {self.step_cache.label}", "one kind on a model"
            )
        if isinstance(cache, BlockCache) and self.spec.shape.depth < 2:
            raise BadValue(f"step cache {cache.label}", "a model of one block", "a model of two blocks or more")
        return replace(self, step_cache=cache)

    def with_parameterisation(self, parameterisation: Parameterisation) -> "Model":
        """The same weights under another schedule of noise levels (a different shift, say)."""
        return replace(self, parameterisation=parameterisation)

    def with_attention(self, change: AttentionChange) -> "Model":
        """The same weights with attention changed in some blocks. Raises `BadValue` for a block that is not there."""
        depth = self.spec.shape.depth
        for block in sorted(change.blocks):
            if not 0 <= block < depth:
                raise BadValue("attention of block", block, f"block numbers from 0 to {depth - 1}")
        return replace(self, attention=change)

    def with_skipped_layers(self, layers: Iterable[int], single: Iterable[int] = ()) -> "Model":
        """The same weights with exactly these blocks bypassed. Raises `BadValue` for a block that is not there.

        `single` are blocks of one stream, which this family does not have: those are left out already.
        """
        chosen, depth = frozenset(layers), self.spec.shape.depth
        for layer in sorted(chosen):
            if not 0 <= layer < depth:
                raise BadValue("skip_layers", layer, f"block numbers from 0 to {depth - 1}")
        return replace(self, skip_layers=chosen)

    def compiled(self) -> "Model":
        """The same model, its blocks run through torch.compile wherever they stay on the device."""
        return replace(self, recipe=replace(self.recipe, compiles=True))

    def with_adapter(self, adapter: Adapting, strength: float) -> "Model":
        """The same model with an adapter at this strength (negative allowed), after those it has already."""
        patch = adapter.of_model(self.recipe.base, self.spec.shape.depth, strength)
        if patch is None:
            return self
        return replace(self, recipe=self.recipe.with_patches([*self.recipe.patches, patch]))

    def fitting(self, adapter: Adapter) -> dict[str, ParameterSlot]:
        """The adapter's base keys that have a place in this model."""
        return adapter.fitting(mmdit_keys(self.recipe.base, self.spec.shape.depth))

    @property
    def fingerprint(self) -> str:
        """What a recorded run must have been made with: the network's recipe and what of it runs."""
        patches = [str(patch.identity) for patch in self.recipe.patches]
        changed = "".join(
            f" {part}"
            for part in (self.attention, self.step_cache, self.placement.dtype, self.inside)
            if part is not None
        )
        changed += "".join(f" {rounded}" for rounded in sorted(map(str, roundings(self.recipe.base))))
        return f"{self.recipe.what} {patches} {sorted(self.skip_layers)} {self.parameterisation}{changed}"

    @property
    def placement(self) -> Placement:
        """Where the network computes, and in which precision."""
        return self.recipe.placement

    @property
    def network(self) -> MMDiT:
        """The network with every adapter in it, to look at; `predict` computes with it."""
        return self.recipe.network

    @property
    def file(self) -> Path | None:
        """The weight file that the network comes from, the first of several."""
        return next((file.state.path for file in files_of(self.recipe.base)), None)

    def predict(self, x: Tensor, sigma: float, conditionings: Sequence[Conditioning]) -> list[Tensor]:
        """The denoised estimate per conditioning: x [B, 16, h, w] float32 in model space at noise level `sigma`.

        That of a conditioning of several entries is the mean over those that act at this level, weighed by their
        regions; zeros where none acts.
        Entries of the same length share one forward, stacked in the order given; others get their own.
        """
        return predict_together([(self, x, sigma, conditionings)])[0]

    def expect(self, sigmas: Sequence[float]) -> None:
        """A run is going to ask about these noise levels: what depends on level and text alone is made for all."""
        expect(self.parameterisation.timestep(sigma) for sigma in sigmas if sigma > 0)

    def joins(self, x: Tensor) -> Hashable:
        """What predictions that one forward can make have in common: the network, what of it runs, the state's size."""
        return self.recipe.key, self.skip_layers, self.attention, self.inside, tuple(x.shape[1:]), x.dtype

    def passes(self, x: Tensor, sigma: float, conditionings: Sequence[Conditioning]) -> list[list["Pass"]]:
        """What the network is asked per conditioning: one pass for each of its entries that acts at this level."""
        state, to_sigma = x.to(self.placement.device), self.parameterisation.levels.percent_to_sigma
        fed = self.parameterisation.network_input(state, sigma)
        level = self.parameterisation.timestep(sigma)
        timestep = torch.full((x.shape[0],), level, device=state.device)
        asked = with_windows_answered([conditioning.entries for conditioning in conditionings], x)
        acting = [[_controlled(one, sigma, to_sigma) for one in rows if one.acts(sigma, to_sigma)] for rows in asked]
        self._check([one for entries in acting for one in entries])
        return [
            [_pass(self.hooked(one.hooks, sigma), fed, timestep, level, one, state) for one in entries]
            for entries in acting
        ]

    def hooked(self, hooks: Sequence[Hook], sigma: float) -> "Model":
        """The model with the adapters of an entry's hooks, as strong as they are at this level."""
        level = self.parameterisation.levels.percent_to_sigma
        asked = tuple((hook.adapter, hook.strength_model * hook.factor(sigma, level)) for hook in hooks)
        if not asked:
            return self
        model = self._hooked.pop(asked, None)
        if model is None:
            model = reduce(lambda model, one: model.with_adapter(*one), asked, self)
        self._hooked[asked] = model
        for oldest in list(self._hooked)[:-KEPT_HOOKED]:
            self._hooked.pop(oldest, None)
        return model

    @cached_property
    def _hooked(self) -> dict[tuple[tuple[Adapting, float], ...], "Model"]:
        """The last few models under hooks: the steps to come ask for them again, so their networks are to stay."""
        return {}

    def _check(self, entries: Sequence[Conditioning]) -> None:
        expected = self.spec.shape.context_width, self.spec.shape.pooled_width
        for entry in entries:
            if entry.pooled is None:
                raise BadValue("conditioning", "no pooled vector", "one, as this model needs")
            found = entry.context.shape[-1], entry.pooled.shape[-1]
            if found != expected:
                raise BadValue("conditioning (context width, pooled width)", found, f"{expected}, as this model needs")


GuidanceChange = Callable[[Model, Cfg], Cfg]
StepCache = BlockCache | ReuseRule
MaskChange = Callable[[Model, Sequence[float]], MaskRule]
"""A model and the run's noise levels to how the mask of inpainting changes with them."""
Question = tuple[Model, Tensor, float, Sequence[Conditioning]]


class InsideChange(Protocol):
    """What surrounds a network's forwards, and takes the place of blocks. Two are one only if they are the same."""

    def velocity(
        self, network: Callable[..., Tensor], rows: Sequence["Pass"], asked: Asked, more: Mapping[str, Any]
    ) -> Tensor:
        """What the network says about these passes, where it would be asked `network(*asked, **more)`."""


@dataclass(frozen=True, eq=False, slots=True)
class Pass:
    """Rows of one forward of `model`: states as the network takes them, timesteps (float32), an entry for each.

    `window` is the part of the state they are. `hints` are what the entry's ControlNets are given, for each row, and
    `read` is the text as they read it.
    """

    model: Model
    fed: Tensor
    timestep: Tensor
    entry: Conditioning
    window: Window | None = None
    hints: tuple[Tensor, ...] = ()
    read: Conditioning | None = None
    level: float = 0.0
    text: Conditioning | None = None
    cached: Cached | None = None

    @property
    def alike(self) -> Hashable:
        """Equal for passes that one forward can make."""
        controls = tuple(control.key for control in self.entry.controls)
        read = self.read.context.shape[1] if self.read is not None else 0
        return self.model.recipe.key, self.entry.context.shape[1], self.fed.shape[-2:], controls, read

    @property
    def told_of(self) -> TextAt:
        """What tables of the network answer: the timestep as a number, the text before its rows were repeated."""
        text = (self.text or self.entry).on(self.fed.device)
        assert text.pooled is not None
        return TextAt(self.level, text.pooled, text.context, len(self.fed))


def _controlled(entry: Conditioning, sigma: float, percent_to_sigma: Callable[[float], float]) -> Conditioning:
    """The entry with those of its controls that act at a noise level."""
    if not entry.controls:
        return entry
    return replace(entry, controls=tuple(one for one in entry.controls if one.acts(sigma, percent_to_sigma)))


def _pass(model: Model, fed: Tensor, timestep: Tensor, level: float, entry: Conditioning, state: Tensor) -> Pass:
    """What the network is asked about one entry: the whole state, or the window of its region."""
    window = entry.region.window(state) if entry.region is not None else None
    part = fed if window is None else window.of(fed).contiguous()
    rows = entry.for_batch(len(fed), state.device)
    if not entry.controls:
        return Pass(model, part, timestep, rows, window, level=level, text=entry)
    hints = tuple(_hint(control, state, window) for control in entry.controls)
    read = entry.as_controls_read_it().for_batch(len(fed), fed.device)
    return Pass(model, part, timestep, rows, window, hints, read, level, entry)


def _hint(control: Control, state: Tensor, window: Window | None) -> Tensor:
    """The hint for each row of a state, or for that part of it: what a hint shows of a place belongs there."""
    latent = in_turn(MOVED.to(control.latent(*state.shape[-2:]), state.device), len(state))
    return latent if window is None else window.of(latent)


def predict_together(questions: Sequence[Question]) -> list[list[Tensor]]:
    """`Model.predict` of several models, states and levels that share `Model.joins`: the estimates of each.

    Entries of one length and size share a forward, whichever question they belong to, unless hooks or ControlNets part
    them. ControlNets are asked once for each forward, beside it.
    """
    asked = [model.passes(x, sigma, conditionings) for model, x, sigma, conditionings in questions]
    found = answered([entries for passes in asked for entries in passes])
    return [
        [combined(model.parameterisation, x, sigma, [(one, found[id(one)]) for one in entries]) for entries in passes]
        for (model, x, sigma, _), passes in zip(questions, asked, strict=True)
    ]


def answered(asked: Sequence[Sequence[Pass]]) -> dict[int, Tensor]:
    """What the network says about each pass, by its id; `asked` are those of each conditioning."""
    together: dict[Hashable, list[Pass]] = {}
    for single in (one for entries in asked for one in entries):
        together.setdefault(single.alike, []).append(single)
    return velocities(_forward, list(together.values()))


def combined(
    parameterisation: Parameterisation, x: Tensor, sigma: float, parts: Sequence[tuple[Pass, Tensor]]
) -> Tensor:
    """One estimate of the whole state from what the network said about each entry."""
    estimates = []
    for one, velocity in parts:
        state = x if one.window is None else one.window.of(x)
        estimates.append(parameterisation.denoised(state, sigma, velocity.to(x.device)))
    regions = [one.entry.region for one, _ in parts]
    if all(region is None for region in regions):
        return _mean(x, estimates)
    windows = [one.window for one, _ in parts]
    placed = [
        (estimate, region or Region(), window)
        for estimate, region, window in zip(estimates, regions, windows, strict=True)
    ]
    return weighted_mean(x, placed)


def _forward(rows: Sequence[Pass], beside: Sequence[Pass]) -> tuple[Tensor, ...]:
    """One forward for entries of one length -> float32 velocity per pass. `beside`: all that the network is asked.

    In inference mode, but for a network that is trained: that is in the caller's.
    """
    model = rows[0].model
    with model.recipe.use() as network, tracking(getattr(network, "trains", False)):
        controls = rows[0].entry.controls
        asked = _asked(rows, [one.entry for one in rows])
        more: dict[str, Any] = {}
        inside = model.inside  # it is shown the condition itself, so no table is made
        if inside is None and (tables := getattr(network, "tables", None)) is not None:
            more["beforehand"] = tables.told(network, [one.told_of for one in rows], [one.told_of for one in beside])
        if controls:
            read = _asked(rows, [one.read or one.entry for one in rows])
            hints = [torch.cat(hint) for hint in zip(*(one.hints for one in rows), strict=True)]
            more["control"] = residuals_of(network, controls, read, hints)
        more["skip_layers"] = model.skip_layers
        if model.attention is not None:
            more["attention"] = model.attention
        if (cached := cached_forward(rows, network)) is not None:
            more["cached"] = cached
        is_fixed = model.attention is None and cached is None and inside is None  # a graph decides nothing
        captured = getattr(network, "captured", None) if is_fixed else None
        call = network if captured is None else partial(captured, network, model.spec.shape.patch)
        velocity: Tensor = call(*asked, **more) if inside is None else inside.velocity(network, rows, asked, more)
    parts: tuple[Tensor, ...] = velocity.float().split([len(one.fed) for one in rows])
    return parts


def _asked(rows: Sequence[Pass], entries: Sequence[Conditioning]) -> Asked:
    """What a network is given for passes with these texts, rows of all in turn."""
    return Asked(
        torch.cat([one.fed for one in rows]),
        torch.cat([one.timestep for one in rows]),
        torch.cat([entry.pooled for entry in entries if entry.pooled is not None]),
        torch.cat([entry.context for entry in entries]),
    )


def _mean(x: Tensor, estimates: Sequence[Tensor]) -> Tensor:
    """The mean of estimates shaped like `x`; zeros where there are none."""
    if not estimates:
        return torch.zeros_like(x)
    total = estimates[0]
    for estimate in estimates[1:]:
        total = total + estimate
    return total / len(estimates) if len(estimates) > 1 else total


@dataclass(frozen=True, eq=False)
class Vae:
    """An autoencoder between images [B, H, W, 3] in 0..1 and latents [B, 16, h, w] in VAE units."""

    recipe: Recipe[Autoencoder] | Recipe[TinyAutoencoder] | Recipe[PixelSpace]
    shape: VaeShape = field(default_factory=VaeShape)
    latent_format: LatentFormat = field(default_factory=LatentFormat)

    @property
    def placement(self) -> Placement:
        """Where the network computes, and in which precision."""
        return self.recipe.placement

    @property
    def network(self) -> autoencoding.Coder:
        """The network, to look at; `encode` and `decode` compute with it."""
        return self.recipe.network

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """The mean of the latent distribution, float32, on the CPU; sides are cropped centrally to multiples of 8."""
        with self.recipe.use() as network:
            means = [autoencoding.encoded(network, one) for one in self._singly(self._pixels(image))]
        return torch.cat([mean.float().cpu() for mean in means])

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """The image, clamped to 0..1, float32, on the CPU. One image at a time: that bounds the memory."""
        self._require_latent(latent)
        with self.recipe.use() as network:
            return torch.cat([_shown(autoencoding.decoded(network, one)) for one in self._singly(latent)])

    @torch.no_grad()
    def encode_in_tiles(self, image: Tensor, tiling: Tiling) -> Tensor:
        """As `encode`, tile by tile; sizes in pixels, multiples of 8."""
        with self.recipe.use() as network:
            means = [autoencoding.encoded_in_tiles(network, one, tiling) for one in self._singly(self._pixels(image))]
        return torch.cat([mean.cpu() for mean in means])

    @torch.no_grad()
    def decode_in_tiles(self, latent: Tensor, tiling: Tiling) -> Tensor:
        """As `decode`, tile by tile; sizes in latent positions."""
        self._require_latent(latent)
        with self.recipe.use() as network:
            tiles = [autoencoding.decoded_in_tiles(network, one, tiling) for one in self._singly(latent)]
        return torch.cat([_shown(one) for one in tiles])

    def _pixels(self, image: Tensor) -> Tensor:
        return _centred(image, self.shape.downscale)[..., :3].movedim(-1, 1) * 2.0 - 1.0

    def _require_latent(self, latent: Tensor) -> None:
        expected = self.shape.latent_channels
        if latent.ndim != 4 or latent.shape[1] != expected:
            raise BadValue("latent", list(latent.shape), f"[batch, {expected}, height / 8, width / 8]")

    def _singly(self, batch: Tensor) -> Iterator[Tensor]:
        return (one.to(self.placement.device, self.placement.dtype) for one in torch.split(batch, 1))


def _shown(image: Tensor) -> Tensor:
    """[1, 3, H, W] in [-1, 1] -> [1, H, W, 3] in 0..1, float32, on the CPU."""
    return ((image.float() + 1.0) / 2.0).clamp(0.0, 1.0).cpu().movedim(1, -1)


def _centred(image: Tensor, grid: int) -> Tensor:
    """Crop [B, H, W, C] around its centre to sides that are multiples of `grid`. Raises `BadValue` below one `grid`."""
    height, width = image.shape[1:3]
    if min(height, width) < grid:
        raise BadValue("image size", f"{width} x {height}", f"at least {grid} x {grid} pixels")
    top, left = height % grid // 2, width % grid // 2
    return F.pad(image, (0, 0, -left, left - width % grid, -top, top - height % grid))
