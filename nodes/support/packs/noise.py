"""Noise as node packs handle it: an object with a seed that makes noise for a latent, theirs or ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling import ComfyNoise, NoiseSource
from sigmagraph.engine.sampling.noise import NoiseSpec, Streams

__all__ = ["GivenNoise", "PackNoise", "noise_of", "noise_out"]


class PackNoise:
    """A noise source of ours on a pack's side."""

    def __init__(self, source: NoiseSource) -> None:
        self.source = source
        self.seed = _seed(source)

    def generate_noise(self, input_latent: dict[str, Any]) -> Tensor:
        """The noise a run over this latent starts from, on the CPU."""
        places = input_latent.get("batch_index")
        index = [int(place) for place in places] if places is not None else None
        return self.source.initial(input_latent["samples"].to("cpu"), index)


@dataclass(frozen=True)
class GivenNoise:
    """Noise to start from that somebody made already; what a run draws on its way follows a seed."""

    first: Tensor
    seed: int

    def initial(self, like: Tensor, batch_index: Sequence[int] | None = None) -> Tensor:
        if self.first.shape[0] != like.shape[0] or self.first.shape[2:] != like.shape[2:]:
            raise BadValue("noise", list(self.first.shape), f"noise shaped as the latent, {list(like.shape)}")
        return self.first.expand(like.shape).to(like)

    def streams(self, like: Tensor, spec: NoiseSpec) -> Streams:
        return ComfyNoise(self.seed).streams(like, spec)

    def mask_noise(self, like: Tensor) -> Tensor:
        return ComfyNoise(self.seed).mask_noise(like)


@dataclass(frozen=True, eq=False)
class PacksOwn:
    """A pack's object as a source of ours."""

    noise: Any

    def initial(self, like: Tensor, batch_index: Sequence[int] | None = None) -> Tensor:
        latent: dict[str, Any] = {"samples": like.to("cpu")}
        if batch_index is not None:
            latent["batch_index"] = list(batch_index)
        return GivenNoise(self.noise.generate_noise(latent), self.seed).initial(like)

    @property
    def seed(self) -> int:
        """What the run's own draws follow."""
        return int(getattr(self.noise, "seed", None) or 0)

    def streams(self, like: Tensor, spec: NoiseSpec) -> Streams:
        return ComfyNoise(self.seed).streams(like, spec)

    def mask_noise(self, like: Tensor) -> Tensor:
        return ComfyNoise(self.seed).mask_noise(like)


def noise_out(source: Any) -> Any:
    """A source of ours as packs know it, a pack's own as it is."""
    return source.noise if isinstance(source, PacksOwn) else PackNoise(source)


def noise_of(noise: Any) -> Any:
    """The source of ours that a pack's object means."""
    if isinstance(noise, PackNoise):
        return noise.source
    return PacksOwn(noise) if callable(getattr(noise, "generate_noise", None)) else noise


def _seed(source: Any) -> int:
    """The seed of a source, or of the one within it; 0 for one without."""
    own = getattr(source, "seed", None)
    within = getattr(getattr(source, "source", None), "seed", 0)
    return int(own if own is not None else within)
