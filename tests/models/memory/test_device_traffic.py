"""What goes over the bus while a sampler runs, counted over every sampler of the registry; meta stands for a card."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sigmagraph.engine.models import Conditioning, Model, load_diffusion_model
from sigmagraph.engine.models.arch import MMDiT, MMDiTShape
from sigmagraph.engine.models.memory.device import Placement
from sigmagraph.engine.models.memory.modulation_tables import Tables
from sigmagraph.engine.models.memory.residency import RESIDENCY, ready
from sigmagraph.engine.models.moved import MOVED
from sigmagraph.engine.sampling import (
    SOLVERS,
    Cfg,
    ComfyNoise,
    PhiloxNoise,
    Sampling,
    find_schedule,
    find_solver,
    noise,
    run_sigmas,
    sd3,
)
from sigmagraph.engine.sampling.denoiser import Denoiser
from sigmagraph.engine.sampling.noise import NoiseSource, NoiseSpec, Streams, Tree
from sigmagraph.engine.sampling.rehearsal import rehearsed
from tests.weights import drawn_weights

CARD, CPU = torch.device("meta"), torch.device("cpu")
SHAPE = MMDiTShape(1, 64, 64, 96, 24)
READS = ("aten::_local_scalar_dense", "aten::item")
MOVES = ("aten::_to_copy", "aten::to", "aten::copy_")
MAKERS = (torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy)


class Bus(TorchDispatchMode):
    """Counts what goes to the card, what comes back, and each time the host asks for a number; a half is what it reads.

    A number in host memory may stand in a product as it is: kernels take it along. All that is larger is a copy.
    """

    def __init__(self) -> None:
        super().__init__()
        self.there, self.back, self.waits = Counter[str](), Counter[tuple[int, ...]](), Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, source, rest = func._schema.name, args[0] if args else None, (*args[1:], *(kwargs or {}).values())
        if isinstance(source, Tensor) and source.is_meta:
            if name in READS:
                self.waits[name] += 1
                return True if source.dtype == torch.bool else 0.5
            if name in MOVES and CPU in rest:
                self.back[tuple(source.shape)] += 1
                return torch.full(source.shape, 0.5, dtype=source.dtype)
        out = func(*args, **(kwargs or {}))
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        made = [one for one in tree_leaves(out) if isinstance(one, Tensor)]
        is_there = any(one.is_meta for one in (*given, *made))
        if is_there and any(not one.is_meta and (one.ndim > 0 or name in MOVES) for one in given):
            self.there[name] += 1
        return out


class Makers(TorchFunctionMode):
    """Tensors made on the card of the host's numbers go over the bus too, below what `Bus` sees."""

    def __init__(self, bus: Bus) -> None:
        super().__init__()
        self._bus = bus

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in MAKERS and out.is_meta and not any(isinstance(one, Tensor) for one in args):
            self._bus.there[func.__name__] += 1
        return out


class OnCard:
    """Noise that the card makes, as torch's generators of a CUDA device do."""

    def initial(self, like: Tensor, batch_index: Sequence[int] | None = None) -> Tensor:
        return torch.empty_like(like)

    def streams(self, like: Tensor, spec: NoiseSpec) -> Streams:
        return Streams(
            lambda: torch.empty_like(like),
            lambda: torch.empty_like(like),
            Tree(spec, lambda _: torch.empty_like(like)),
        )

    def mask_noise(self, like: Tensor) -> Tensor:
        return torch.empty_like(like)


def halves(x: Tensor, sigma: float, conditionings: Sequence[str]) -> list[Tensor]:
    return [x * 0.5 for _ in conditionings]


SIGMAS = run_sigmas(find_schedule("normal"), sd3().levels, 4, 1.0, False)


def watched(name: str, denoiser: Denoiser, source: NoiseSource | None = None) -> tuple[Bus, int]:
    """What went over the bus after a run's first evaluation, and how many evaluations that were."""
    latent = torch.zeros(1, 16, 4, 4, device=CARD)
    sampling = Sampling(denoiser, latent, SIGMAS, sd3(), find_solver(name), noise=source or OnCard())
    bus, evaluations = Bus(), 0
    with bus, Makers(bus):
        ticks = sampling.ticks()
        next(ticks)
        for kept in (bus.there, bus.back, bus.waits):
            kept.clear()
        for _ in ticks:
            evaluations += 1
    return bus, evaluations


def broken(name: str, bus: Bus, evaluations: int) -> str:
    """What breaks the law: nothing goes there; one number an evaluation comes back, and nobody waits for one.

    Rules that choose their steps by what they computed do look, once for every step they try.
    """
    most_waits = evaluations if find_solver(name).is_adaptive else 0
    if bus.there or bus.back != Counter({(): evaluations}) or bus.waits.total() > most_waits:
        return f"{name}: there {dict(bus.there)}, back {dict(bus.back)} in {evaluations}, waits {dict(bus.waits)}"
    return ""


def test_no_sampler_copies_to_the_device_after_the_first_evaluation_and_one_number_returns() -> None:
    found = [broken(name, *watched(name, Cfg(halves, "a", "b", 3.0))) for name in SOLVERS]
    assert len(found) >= 80
    assert not any(found), [line for line in found if line]


def moved(x: Tensor) -> Tensor:
    return x * torch.ones(4).to(CARD)


def made(x: Tensor) -> Tensor:
    return x * torch.tensor([0.5], device=CARD)


def indexed(x: Tensor) -> Tensor:
    return x[torch.tensor([0])]


def asked(x: Tensor) -> Tensor:
    return x * float(x.sum())


def fetched(x: Tensor) -> Tensor:
    return x + 0 * float(x.cpu().sum())


@pytest.mark.parametrize("planted", [moved, made, indexed, asked, fetched])
def test_a_copy_or_a_question_that_was_planted_is_found(planted: Callable[[Tensor], Tensor]) -> None:
    def predict(x: Tensor, sigma: float, conditionings: Sequence[str]) -> list[Tensor]:
        return [planted(x) for _ in conditionings]

    assert broken("euler", *watched("euler", Cfg(predict, "a", "b", 3.0)))


@pytest.mark.parametrize("name", ["euler_ancestral", "seeds_2", "restart"])
def test_noise_by_counter_is_made_on_the_device(name: str) -> None:
    assert not broken(name, *watched(name, Cfg(halves, "a", "b", 3.0), PhiloxNoise(3)))


@pytest.mark.parametrize(("name", "draws"), [("dpmpp_sde", 6), ("dpmpp_2m_sde", 3), ("dpmpp_2m_sde_gpu", 0)])
def test_noise_of_the_cpus_tree_goes_over_once_for_each_draw(
    monkeypatch: pytest.MonkeyPatch, name: str, draws: int
) -> None:
    """Its numbers exist on a CPU alone. All go by way of `_sent`, which lets no CUDA device wait; nothing else goes."""
    sent, word = list[str](), noise._word_noise

    def noted(drawn: Tensor, device: torch.device) -> Tensor:
        sent.append(drawn.device.type)
        return torch.empty(drawn.shape, dtype=drawn.dtype, device=device)

    monkeypatch.setattr(noise, "_sent", noted)
    monkeypatch.setattr(
        noise, "_word_noise", lambda seed, like, device: word(seed, like, CPU) if device == CPU else like * 0
    )
    assert not broken(name, *watched(name, Cfg(halves, "a", "b", 3.0), ComfyNoise(3)))
    assert sent.count("cpu") == 1 + draws, "the noise it starts from, and what it drew"


@pytest.fixture
def on_card(tmp_path: Path) -> Iterator[Model]:
    """A network on the card, with tables, and conditionings in host memory."""
    save_file(drawn_weights(SHAPE), tmp_path / "model.safetensors")
    model = load_diffusion_model(tmp_path / "model.safetensors")
    with CARD:
        network = MMDiT(SHAPE).requires_grad_(False).eval()
    network.tables = Tables()
    yield replace(model, recipe=ready(network, Placement(CARD, torch.float32)))
    MOVED.clear()
    RESIDENCY.free()


def guided(model: Model, name: str) -> Denoiser:
    """As a node has it: conditionings in host memory, levels announced."""
    positive, negative = (Conditioning(torch.ones(1, rows, 96), torch.ones(1, 64)) for rows in (7, 5))
    model.expect(rehearsed(find_solver(name), SIGMAS, model.parameterisation))
    return model.guided(positive, negative, 3.0)


def test_a_guided_network_brings_its_text_once(on_card: Model) -> None:
    for name in ("euler", "dpmpp_2m_cfg_pp", "seeds_2"):
        assert not broken(name, *watched(name, guided(on_card, name)))


@pytest.mark.slow
def test_no_sampler_copies_to_the_device_with_a_guided_network_either(on_card: Model) -> None:
    found = [broken(name, *watched(name, guided(on_card, name))) for name in SOLVERS]
    assert not any(found), [line for line in found if line]
