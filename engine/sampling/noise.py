"""Noise sources: what a seed means. `ComfyNoise` gives the numbers existing graphs and seeds expect.

A source is a value; `streams` opens what one run draws from. Nothing here knows a solver or a schedule.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from itertools import count
from numbers import Integral
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling.brownian import BrownianTree, SeedWords
from sigmagraph.engine.sampling.counter import counter_normal
from sigmagraph.engine.sampling.exact import exact_device

SEEDS = 2**64


class Seeding(Enum):
    """Where the noise that a run draws on its way begins, for the seed of its initial noise."""

    DERIVED = "a seed far from it"
    SAME = "the seed again: on a CPU the first draw repeats the initial noise (ComfyUI before 0.7)"
    NEXT = "the seed after it on a CPU, the seed itself elsewhere (ComfyUI from 0.7)"


PURPOSES = ("initial", "sequence", "churn", "brownian", "mask")  # of one seed's counters; never reorder


@dataclass(frozen=True)
class NoiseSpec:
    """What a run says about itself when it opens its streams.

    `low`, `high`: its lowest level above 0 and its highest. `seeding`: where its own noise begins.
    `on_device`: grow a Brownian tree on the state's device, not on the CPU.
    """

    low: float
    high: float
    seeding: Seeding = Seeding.DERIVED
    on_device: bool = False
    batch_index: Sequence[int] | None = None


@dataclass(frozen=True)
class Streams:
    """What one run draws from: each call gives unit noise of the run's shape, dtype and device."""

    draw: Callable[[], Tensor]
    churn: Callable[[], Tensor]
    brownian: Callable[[float, float], Tensor]


@runtime_checkable
class NoiseSource(Protocol):
    """Where a run's noise comes from."""

    def initial(self, like: Tensor, batch_index: Sequence[int] | None = None) -> Tensor:
        """The noise a run starts from, shaped like `like`; `batch_index` says which image of a batch each one is."""

    def streams(self, like: Tensor, spec: NoiseSpec) -> Streams:
        """The run's own noise, shaped like `like`."""

    def mask_noise(self, like: Tensor) -> Tensor:
        """Noise of the next seed, for masked runs that keep it apart from the initial noise."""


@dataclass(frozen=True)
class ComfyNoise:
    """torch's generators, seeded as ComfyUI seeds them: initial noise on the CPU, the rest on the state's device."""

    seed: int

    def __post_init__(self) -> None:
        _check_seed(self.seed)

    def initial(self, like: Tensor, batch_index: Sequence[int] | None = None) -> Tensor:
        generator = _generator(self.seed)
        if batch_index is None:
            return _sent(_normal(like.shape, like.dtype, generator), like.device)
        one = (1, *like.shape[1:])
        draws = [_normal(one, like.dtype, generator) for _ in range(max(batch_index) + 1)]
        return _sent(torch.cat([draws[index] for index in batch_index]), like.device)

    def streams(self, like: Tensor, spec: NoiseSpec) -> Streams:
        device = like.device if spec.on_device else torch.device("cpu")

        @cache  # what a run never draws from is never opened
        def own() -> torch.Generator:
            return _generator(self._own_seed(spec.seeding, like.device), like.device)

        @cache
        def churn() -> torch.Generator:
            generator = _generator(self.seed, like.device)
            if like.device.type == "cpu":
                _normal(like.shape, like.dtype, generator)  # it goes on behind the initial noise, in one stream with it
            return generator

        @cache
        def words() -> SeedWords:
            return SeedWords(self.seed)

        brownian = Tree(spec, lambda node: _word_noise(words().of_node(node), like, device))
        return Streams(
            lambda: _normal(like.shape, like.dtype, own()),
            lambda: _normal(like.shape, like.dtype, churn()),
            lambda sigma, sigma_next: _sent(brownian(sigma, sigma_next), like.device),
        )

    def _own_seed(self, seeding: Seeding, device: torch.device) -> int:
        if seeding is Seeding.DERIVED:
            return derived(self.seed)
        return (self.seed + 1) % SEEDS if seeding is Seeding.NEXT and device.type == "cpu" else self.seed

    def mask_noise(self, like: Tensor) -> Tensor:
        return _sent(_normal(like.shape, like.dtype, _generator((self.seed + 1) % SEEDS)), like.device)


@dataclass(frozen=True)
class PhiloxNoise:
    """Noise by counter: equal on every device, and image k of a batch draws what it would draw alone."""

    seed: int

    def __post_init__(self) -> None:
        _check_seed(self.seed)

    def initial(self, like: Tensor, batch_index: Sequence[int] | None = None) -> Tensor:
        return self._noise("initial", 0, like, batch_index)

    def streams(self, like: Tensor, spec: NoiseSpec) -> Streams:
        draws, churns = count(), count()
        images = spec.batch_index

        def of_node(node: tuple[int, int] | None) -> Tensor:
            return self._noise("brownian", 0 if node is None else node[0] + 2 ** node[1], like, images)

        return Streams(
            lambda: self._noise("sequence", next(draws), like, images),
            lambda: self._noise("churn", next(churns), like, images),
            Tree(spec, of_node),
        )

    def mask_noise(self, like: Tensor) -> Tensor:
        return self._noise("mask", 0, like, None)

    def _noise(self, purpose: str, draw: int, like: Tensor, batch_index: Sequence[int] | None) -> Tensor:
        images = range(like.shape[0]) if batch_index is None else batch_index
        where = exact_device(like.device)
        noise = counter_normal(self.seed, PURPOSES.index(purpose), draw, images, like.shape[1:], where)
        return _sent(noise.to(like.dtype), like.device)


class Tree:
    """A Brownian tree that is grown at the first query."""

    def __init__(self, spec: NoiseSpec, draw: Callable[[tuple[int, int] | None], Tensor]) -> None:
        self._spec, self._draw = spec, draw
        self._tree: BrownianTree | None = None

    def __call__(self, sigma: float, sigma_next: float) -> Tensor:
        """Unit-variance noise of the way from `sigma` down to `sigma_next`."""
        if self._tree is None:
            self._tree = BrownianTree(self._spec.low, self._spec.high, self._draw)
        return self._tree.unit_noise(sigma, sigma_next)


@dataclass(frozen=True)
class OneImage:
    """What image `place` of a batch draws from `source`; `whole` is the batch's latent."""

    source: NoiseSource
    whole: Tensor
    place: int
    batch_index: Sequence[int] | None

    def initial(self, like: Tensor, batch_index: Sequence[int] | None = None) -> Tensor:
        return self.source.initial(self.whole, self.batch_index)[self.place : self.place + 1]

    def streams(self, like: Tensor, spec: NoiseSpec) -> Streams:
        index = self.place if self.batch_index is None else self.batch_index[self.place]
        return self.source.streams(like, replace(spec, batch_index=[index]))

    def mask_noise(self, like: Tensor) -> Tensor:
        return self.source.mask_noise(self.whole)[self.place : self.place + 1]


@dataclass(frozen=True)
class NoNoise:
    """No initial noise; what the run itself draws still follows the source within."""

    source: NoiseSource

    def initial(self, like: Tensor, batch_index: Sequence[int] | None = None) -> Tensor:
        return torch.zeros_like(like)

    def streams(self, like: Tensor, spec: NoiseSpec) -> Streams:
        return self.source.streams(like, spec)

    def mask_noise(self, like: Tensor) -> Tensor:
        return self.source.mask_noise(like)


def _check_seed(seed: object) -> None:
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= int(seed) < SEEDS:
        raise BadValue("seed", seed, "a whole number from 0 to 2^64 - 1")


def derived(seed: int) -> int:
    """Another seed, far from this one: a run's own draws must not repeat the noise it starts from (SplitMix64)."""
    mixed = (seed + 0x9E3779B97F4A7C15) % SEEDS
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % SEEDS
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % SEEDS
    return mixed ^ (mixed >> 31)


def _generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    # manual_seed takes the 64 bits as a signed number too
    return torch.Generator(device).manual_seed(seed if seed < SEEDS // 2 else seed - SEEDS)


def _normal(shape: Sequence[int], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    return torch.randn(tuple(shape), dtype=dtype, generator=generator, device=generator.device)


def _word_noise(word: int, like: Tensor, device: torch.device) -> Tensor:
    return _normal(like.shape, like.dtype, _generator(word, device))


def _sent(noise: Tensor, device: torch.device) -> Tensor:
    """The noise on `device`. Page-locked memory goes to a CUDA device behind its work, with nobody waiting."""
    if noise.device.type == "cpu" and device.type == "cuda":
        return noise.pin_memory().to(device, non_blocking=True)
    return noise.to(device)
