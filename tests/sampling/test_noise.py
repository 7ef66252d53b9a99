"""Noise sources: the recorded numbers bit for bit, the counter's known answers, the Brownian tree's law."""

import math
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling import ComfyNoise, NoNoise, PhiloxNoise, exact
from sigmagraph.engine.sampling.brownian import BrownianTree, SeedWords
from sigmagraph.engine.sampling.counter import (
    PHILOX_M,
    PHILOX_W,
    WORD,
    counter_normal,
    natural_log,
    normal_quantile,
    philox_words,
)
from sigmagraph.engine.sampling.noise import NoiseSpec, Seeding
from tests.sampling.mixture import SEED, arrays, facts

pytestmark = pytest.mark.quick

SOURCES = [ComfyNoise(7), PhiloxNoise(7)]
BATCH = torch.zeros(4, 16, 8, 8)


@pytest.mark.parametrize("key", sorted(key for key in facts("noise") if key.startswith("seed")))
def test_initial_noise_is_the_recorded_one_bit_for_bit(key: str) -> None:
    info = facts("noise")[key]
    noise = ComfyNoise(info["seed"]).initial(torch.zeros(info["shape"]), info["noise_inds"])
    assert torch.equal(noise, arrays("noise")[key])


@pytest.mark.parametrize("key", sorted(key for key in arrays("noise") if key.startswith("dtype")))
def test_other_precisions_draw_what_was_recorded(key: str) -> None:
    recorded = arrays("noise")[key]
    assert torch.equal(ComfyNoise(42).initial(torch.zeros(1, 4, 4, 4, dtype=recorded.dtype)), recorded)


def test_the_recorded_sequence_begins_with_the_initial_noise_and_ours_does_not() -> None:
    like = torch.zeros_like(arrays("noise")["sequential/0"])
    literal = ComfyNoise(SEED).streams(like, NoiseSpec(0.1, 1.0, seeding=Seeding.SAME))
    for draw in range(3):
        assert torch.equal(literal.draw(), arrays("noise")[f"sequential/{draw}"])
    assert torch.equal(arrays("noise")["initial"], arrays("noise")["sequential/0"])
    first = ComfyNoise(SEED).streams(like, NoiseSpec(0.1, 1.0)).draw()
    assert abs(float((first * ComfyNoise(SEED).initial(like)).mean())) < 4 / math.sqrt(like.numel())


def test_brownian_noise_is_the_recorded_one_bit_for_bit_in_any_order() -> None:
    data = arrays("noise")
    sigmas = data["brownian/sigmas"].tolist()
    queries = [(sigmas[i], sigmas[i + 1], f"brownian/{i}") for i in range(len(sigmas) - 1)]
    queries.append((0.9, 0.8123457, "brownian/sub"))
    spec = NoiseSpec(min(sigmas), max(sigmas))
    for order in (queries, queries[::-1]):
        tree = ComfyNoise(SEED).streams(torch.zeros(2, 16, 6, 4), spec)
        for sigma, sigma_next, key in order:
            assert torch.equal(tree.brownian(sigma, sigma_next), data[key])


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**40 + 3, 2**64 - 1])
def test_seed_words_are_numpys(seed: int) -> None:
    words = SeedWords(seed)
    for key in ((), (0, 0), (5, 3), (2**33 + 1, 20)):
        theirs = numpy.random.SeedSequence(entropy=seed, spawn_key=key, pool_size=24).generate_state(4)
        assert words(key, 4) == theirs.tolist()


def test_brownian_increments_add_up_and_have_their_variance() -> None:
    def draw(node: tuple[int, int] | None) -> torch.Tensor:
        key = 1 if node is None else 2 + node[0] + 2 ** node[1]
        return torch.randn(20_000, generator=torch.Generator().manual_seed(key), dtype=torch.float64)

    tree = BrownianTree(0.1, 1.7, draw)
    parts = [tree.increment(a, b) for a, b in ((0.1, 0.33), (0.33, 0.9), (0.9, 1.7))]
    assert torch.allclose(sum(parts[1:], parts[0]), tree.increment(0.1, 1.7), atol=1e-12)
    for part, width in zip(parts, (0.23, 0.57, 0.8), strict=True):
        assert float(part.var()) == pytest.approx(width, rel=0.04)
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert abs(float((parts[one] * parts[other]).mean())) < 0.03


def test_philox_gives_its_published_words() -> None:
    # Random123's known answers for philox4x32-10
    assert PHILOX_M == (0xD2511F53, 0xCD9E8D57)
    assert PHILOX_W == (0x9E3779B9, 0xBB67AE85)
    zero = [torch.zeros(1, dtype=torch.int64)] * 4
    assert [int(word) for word in philox_words(*zero, (0, 0))] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = [torch.full((1,), WORD, dtype=torch.int64)] * 4
    assert [int(word) for word in philox_words(*ones, (WORD, WORD))] == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def test_the_logarithm_and_the_quantile_function_agree_with_torchs() -> None:
    u = torch.cat([torch.logspace(-300, -1, 400, dtype=torch.float64), torch.linspace(0.1, 0.999999, 500).double()])
    assert (natural_log(u) - u.log()).abs().max() < 1e-12
    assert ((natural_log(u) - u.log()) / u.log()).abs().max() < 1e-15
    assert (normal_quantile(u) - torch.special.ndtri(u)).abs().max() < 1e-11


def test_counter_noise_is_normal_and_its_uses_and_images_are_unrelated() -> None:
    noise = counter_normal(3, 0, 0, range(4), (50_000,), torch.device("cpu"))
    assert abs(float(noise.mean())) < 4 / math.sqrt(noise.numel())
    assert float(noise.var()) == pytest.approx(1.0, abs=0.012)
    assert float((noise**4).mean()) == pytest.approx(3.0, abs=0.12)
    others = [
        counter_normal(seed, purpose, draw, [0], (50_000,), torch.device("cpu"))
        for seed, purpose, draw in ((3, 1, 0), (3, 0, 1), (3, 0, 2**24), (4, 0, 0), (3 + 2**32, 0, 0))
    ]
    for other in (noise[1:2], *others):
        assert abs(float((noise[:1] * other).mean())) < 4 / math.sqrt(50_000)


@pytest.mark.parametrize("source", SOURCES, ids=["comfy", "counter"])
def test_every_stream_has_unit_variance(source: ComfyNoise | PhiloxNoise) -> None:
    streams = source.streams(BATCH, NoiseSpec(0.01, 1.0))
    for noise in (source.initial(BATCH), streams.draw(), streams.churn(), streams.brownian(0.8, 0.3)):
        assert float(noise.var()) == pytest.approx(1.0, abs=0.1)
        assert abs(float(noise.mean())) < 4 / math.sqrt(noise.numel())


@pytest.mark.parametrize("source", SOURCES, ids=["comfy", "counter"])
def test_initial_noise_of_an_image_is_the_same_for_every_batch_size(source: ComfyNoise | PhiloxNoise) -> None:
    whole = source.initial(BATCH)
    assert torch.equal(source.initial(BATCH[:1]), whole[:1])
    assert torch.equal(source.initial(BATCH[:2], [2, 0]), whole[[2, 0]])


def test_silence_is_only_at_the_start() -> None:
    source = NoNoise(ComfyNoise(7))
    assert not source.initial(BATCH).any()
    spec = NoiseSpec(0.01, 1.0)
    assert torch.equal(source.streams(BATCH, spec).draw(), ComfyNoise(7).streams(BATCH, spec).draw())


@pytest.mark.parametrize("kind", [ComfyNoise, PhiloxNoise])
def test_seeds_outside_64_bits_are_refused(kind: type[ComfyNoise] | type[PhiloxNoise]) -> None:
    for seed in (-1, 2**64):
        with pytest.raises(BadValue, match="2\\^64"):
            kind(seed)


@pytest.mark.gpu
def test_counter_noise_is_equal_on_cpu_and_gpu_bit_for_bit() -> None:
    here = PhiloxNoise(123).streams(BATCH, NoiseSpec(0.01, 1.0))
    there = PhiloxNoise(123).streams(BATCH.cuda(), NoiseSpec(0.01, 1.0))
    assert torch.equal(PhiloxNoise(123).initial(BATCH), PhiloxNoise(123).initial(BATCH.cuda()).cpu())
    for _ in range(3):
        assert torch.equal(here.draw(), there.draw().cpu())
    assert torch.equal(here.brownian(0.9, 0.2), there.brownian(0.9, 0.2).cpu())


class _No64(TorchDispatchMode):
    """Fails where a float64 value would be made on a device that has none."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and made.device.type == "meta":
            assert made.dtype != torch.float64, func
        return made


def test_noise_by_counter_needs_no_float64_on_a_device_that_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "HAVE_FLOAT64", frozenset(("cpu",)))
    like = torch.zeros(2, 3, 4, 4, device="meta")
    spec = NoiseSpec(0.1, 1.0, Seeding.DERIVED)
    with _No64():
        streams = PhiloxNoise(5).streams(like, spec)
        drawn = [PhiloxNoise(5).initial(like), streams.draw(), streams.brownian(1.0, 0.5)]
    assert all((one.device.type, one.dtype, one.shape) == ("meta", torch.float32, like.shape) for one in drawn)


@pytest.mark.parametrize("source", SOURCES)
def test_between_levels_that_are_one_in_single_precision_nothing_moves(source: ComfyNoise | PhiloxNoise) -> None:
    brownian = source.streams(BATCH, NoiseSpec(0.1, 1.0)).brownian
    assert torch.equal(brownian(0.9, 0.9 * (1 - 1e-9)), torch.zeros_like(BATCH))  # it was 0/0
