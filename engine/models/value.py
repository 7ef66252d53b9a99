"""The values on graph edges: `Model` and `Vae` (`Clip` is in text/). Immutable: a change makes a new one."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.errors import BadValue
from engine.models.arch import Autoencoder, MMDiT
from engine.models.conditioning import Conditioning
from engine.models.files.adapter_keys import mmdit_keys
from engine.models.files.lora import Adapter, Patch, merged
from engine.models.files.rename import Slot
from engine.models.memory.device import Placement
from engine.models.memory.resident import replaced
from engine.models.spec import LatentFormat, ModelSpec
from engine.sampling.guidance import Cfg
from engine.sampling.parameterisation import Parameterisation


@dataclass(frozen=True, eq=False)
class Model:
    """A diffusion model: shared network, its spec, and what this value changes about it.

    `network` has the base weights; `patches` are merged into copies of what they change when the value first predicts.
    `parameterisation` starts as the spec's; `skip_layers` are blocks left out (skip-layer guidance); `guidance`
    changes how `guided` combines its predictions.
    """

    network: MMDiT
    spec: ModelSpec
    placement: Placement
    parameterisation: Parameterisation
    skip_layers: frozenset[int] = frozenset()
    patches: tuple[Patch, ...] = ()
    guidance: tuple["GuidanceChange", ...] = ()

    def with_guidance(self, change: "GuidanceChange") -> "Model":
        """The same model with one more change to how it is guided, after those it has already."""
        return replace(self, guidance=(*self.guidance, change))

    def guided(self, positive: Conditioning, negative: Conditioning, scale: float) -> Cfg:
        """Classifier-free guidance of this model, with every change that it carries."""
        guided = Cfg(self.predict, positive, negative, scale)
        for change in self.guidance:
            guided = change(self, guided)
        return guided

    def with_parameterisation(self, parameterisation: Parameterisation) -> "Model":
        """The same weights under another schedule of noise levels (a different shift, say)."""
        return replace(self, parameterisation=parameterisation)

    def with_skipped_layers(self, layers: Iterable[int]) -> "Model":
        """The same weights with exactly these blocks bypassed. Raises `BadValue` for a block that is not there."""
        chosen, depth = frozenset(layers), self.spec.shape.depth
        for layer in sorted(chosen):
            if not 0 <= layer < depth:
                raise BadValue("skip_layers", layer, f"block numbers from 0 to {depth - 1}")
        return replace(self, skip_layers=chosen)

    def with_adapter(self, adapter: Adapter, strength: float) -> "Model":
        """The same model with an adapter at this strength (negative allowed), after those it has already."""
        slots = self.fitting(adapter)
        return replace(self, patches=(*self.patches, Patch(adapter, slots, strength))) if slots and strength else self

    def fitting(self, adapter: Adapter) -> dict[str, Slot]:
        """The adapter's base keys that have a place in this model."""
        return adapter.fitting(mmdit_keys(self.network.state_dict(), self.spec.shape.depth))

    @cached_property
    def patched(self) -> MMDiT:
        """The network that predicts: the base network, or its twin with every patch merged in."""
        if not self.patches:
            return self.network
        return replaced(self.network, merged(self.network.state_dict(), self.patches))

    def predict(self, x: Tensor, sigma: float, conditionings: Sequence[Conditioning]) -> list[Tensor]:
        """The denoised estimate per conditioning: x [B, 16, h, w] float32 in model space at noise level `sigma`.

        That of a conditioning of several entries is the mean over those that act at this level; zeros where none does.
        Entries of the same length share one forward, stacked in the order given; others get their own.
        """
        state, level = x.to(self.placement.device), self.parameterisation.levels.percent_to_sigma
        acting = [[one for one in each.entries if one.acts(sigma, level)] for each in conditionings]
        entries = [one.for_batch(x.shape[0], state.device) for each in acting for one in each]
        self._check(entries)
        together: dict[int, list[int]] = {}
        for index, entry in enumerate(entries):
            together.setdefault(entry.context.shape[1], []).append(index)
        outputs: dict[int, Tensor] = {}
        for indices in together.values():
            velocities = self._forward(state, sigma, [entries[index] for index in indices])
            outputs |= dict(zip(indices, velocities, strict=True))
        estimates = iter(
            [self.parameterisation.denoised(x, sigma, outputs[i].to(x.device)) for i in range(len(entries))]
        )
        return [_mean(x, list(islice(estimates, len(each)))) for each in acting]

    @torch.no_grad()
    def _forward(self, state: Tensor, sigma: float, entries: Sequence[Conditioning]) -> tuple[Tensor, ...]:
        """One forward for entries of one length -> float32 velocity per entry. The timestep stays float32."""
        count = len(entries)
        timestep = torch.full((count * state.shape[0],), self.parameterisation.timestep(sigma), device=state.device)
        velocity: Tensor = self.patched(
            self.parameterisation.network_input(state, sigma).repeat(count, 1, 1, 1),
            timestep,
            torch.cat([entry.pooled for entry in entries]),
            torch.cat([entry.context for entry in entries]),
            skip_layers=self.skip_layers,
        )
        return velocity.float().chunk(count)

    def _check(self, entries: Sequence[Conditioning]) -> None:
        expected = self.spec.shape.context_width, self.spec.shape.pooled_width
        for entry in entries:
            found = entry.context.shape[-1], entry.pooled.shape[-1]
            if found != expected:
                raise BadValue("conditioning (context width, pooled width)", found, f"{expected}, as this model needs")


GuidanceChange = Callable[[Model, Cfg], Cfg]


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

    network: Autoencoder
    placement: Placement
    latent_format: LatentFormat = field(default_factory=LatentFormat)

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """The mean of the latent distribution, float32, on the CPU; sides are cropped centrally to multiples of 8."""
        pixels = _centred(image, self.network.downscale)[..., :3].movedim(-1, 1) * 2.0 - 1.0
        means = [self.network.encode(one)[0] for one in self._singly(pixels)]
        return torch.cat([mean.float().cpu() for mean in means])

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """The image, clamped to 0..1, float32, on the CPU. One image at a time: that bounds the memory."""
        expected = self.network.shape.latent_channels
        if latent.ndim != 4 or latent.shape[1] != expected:
            raise BadValue("latent", list(latent.shape), f"[batch, {expected}, height / 8, width / 8]")
        images = [self.network.decode(one) for one in self._singly(latent)]
        return torch.cat([((one.float() + 1.0) / 2.0).clamp(0.0, 1.0).cpu().movedim(1, -1) for one in images])

    def _singly(self, batch: Tensor) -> Iterator[Tensor]:
        return (one.to(self.placement.device, self.placement.dtype) for one in torch.split(batch, 1))


def _centred(image: Tensor, grid: int) -> Tensor:
    """Crop [B, H, W, C] around its centre to sides that are multiples of `grid`. Raises `BadValue` below one `grid`."""
    height, width = image.shape[1:3]
    if min(height, width) < grid:
        raise BadValue("image size", f"{width} x {height}", f"at least {grid} x {grid} pixels")
    top, left = height % grid // 2, width % grid // 2
    return F.pad(image, (0, 0, -left, left - width % grid, -top, top - height % grid))
