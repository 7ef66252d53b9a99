"""What is made once for a run: the numbers of a forward that makes its own, once for every level and text."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sigmagraph.engine.models import Conditioning, Model, load_diffusion_model
from sigmagraph.engine.models.arch import MMDiT, MMDiTShape
from sigmagraph.engine.models.memory import modulation_tables
from sigmagraph.engine.models.memory import recipe as recipes
from sigmagraph.engine.models.memory.choices import MemoryChoices
from sigmagraph.engine.models.memory.device import Placement
from sigmagraph.engine.models.memory.modulation_tables import MODULATION, Tables
from sigmagraph.engine.models.memory.residency import RESIDENCY, ready
from sigmagraph.engine.models.value import predict_together
from sigmagraph.engine.sampling import ComfyNoise, Sampling, find_schedule, run_sigmas
from tests.weights import drawn_weights

SHAPE = MMDiTShape(4, 128, 64, 96, 24, dual_attention_blocks=frozenset({0}))
CLOSE = 1e-5  # of the norm: a product of many rows sums in another order than one of two


@pytest.fixture(autouse=True)
def own_choices() -> Iterator[None]:
    before = RESIDENCY.choices
    RESIDENCY.choices = MemoryChoices.parse("fp32", "resident", "cpu")
    modulation_tables._AHEAD.clear()
    yield
    RESIDENCY.choices = before
    RESIDENCY.free()


@pytest.fixture
def model(tmp_path: Path) -> Model:
    save_file(drawn_weights(SHAPE), tmp_path / "model.safetensors")
    return load_diffusion_model(tmp_path / "model.safetensors")


def text(seed: int, rows: int = 1) -> Conditioning:
    generator = torch.Generator().manual_seed(seed)
    pooled = torch.randn(rows, 64, generator=generator)
    return Conditioning(torch.randn(rows, 7 + seed % 2, 96, generator=generator), pooled)


def tabulated(model: Model, *, leaves: bool = False) -> Model:
    """The same network with tables, its modulation weights outside of it if they leave."""
    weights = model.recipe.weights
    network = MMDiT(SHAPE).requires_grad_(False).eval()
    network.load_state_dict({name: weight.read() for name, weight in weights.items()})
    network.tables = Tables(
        {name: weight for name, weight in weights.items() if MODULATION in name} if leaves else None
    )
    for name, parameter in network.named_parameters():
        if leaves and MODULATION in name:
            parameter.fill_(float("nan"))
    return replace(model, recipe=ready(network, model.placement))


def near(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).norm() <= CLOSE * expected.norm())


class Counted(nn.Module):
    """A layer that counts the rows it is asked about."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.rows = inner, list[int]()

    def forward(self, given: Tensor) -> Tensor:
        self.rows.append(len(given))
        result: Tensor = self.inner(given)
        return result


@pytest.mark.parametrize("leaves", [False, True], ids=["weights stay", "weights leave"])
@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2s_ancestral", "heun", "dpm_adaptive"])
def test_a_run_is_that_of_a_network_that_makes_its_own(model: Model, sampler: str, leaves: bool) -> None:
    sigmas = run_sigmas(find_schedule("normal"), model.parameterisation.levels, 5, 1.0, False)

    def sampled(made: Model) -> Tensor:
        denoiser = made.guided(text(1), text(2), 3.0)
        x = torch.zeros(2, 16, 8, 10)
        return Sampling(denoiser, x, sigmas, made.parameterisation, sampler, noise=ComfyNoise(4)).run()

    other = tabulated(model, leaves=leaves)
    other.expect(sigmas)
    assert near(sampled(other), sampled(model))


def test_weights_are_used_once_for_all_levels_that_a_run_announced(model: Model) -> None:
    made = tabulated(model)
    block = made.network.joint_blocks[2].x_block
    block.adaLN_modulation = counted = Counted(block.adaLN_modulation)
    made.network.context_embedder = tokens = Counted(made.network.context_embedder)
    sides, sigmas = [text(1), text(2)], [0.9, 0.7, 0.5, 0.3, 0.0]
    made.expect(sigmas)
    for _ in range(2):  # another seed, the same prompt and schedule
        for sigma in sigmas[:-1]:
            made.predict(torch.ones(1, 16, 8, 8), sigma, sides)
    assert counted.rows == [64], "once, filled up"
    assert tokens.rows == [1, 1]
    made.predict(torch.ones(1, 16, 8, 8), 0.6, sides)
    assert counted.rows == [64, 64], "a level that nobody announced is made when it is asked about"


def test_no_step_after_the_first_copies_anything_to_the_device(model: Model) -> None:
    """The meta device stands in for a card: conditionings, levels and tables are there after the first step."""
    card, count = torch.device("meta"), [0]

    class Copies(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = function(*args, **(kwargs or {}))
            is_here = bool(args) and isinstance(args[0], Tensor) and args[0].device.type == "cpu"
            count[0] += is_here and isinstance(found, Tensor) and found.device == card
            return found

    with card:
        network = MMDiT(SHAPE).requires_grad_(False).eval()
    network.tables = Tables({name: weight for name, weight in model.recipe.weights.items() if MODULATION in name})
    made = replace(model, recipe=ready(network, Placement(card, torch.float32)))
    sigmas, sides = [0.9, 0.7, 0.5, 0.3], [text(1), text(3)]
    made.expect(sigmas)
    copies = []
    for sigma in sigmas:
        with Copies():
            made.predict(torch.empty(1, 16, 8, 8, device=card), sigma, sides)
        copies.append(count[0])
    assert copies[0] > 4, "conditionings and the modulations' weights"
    assert set(copies) == {copies[0]}


def test_interleaved_runs_of_several_texts_sizes_and_levels_keep_their_own(model: Model) -> None:
    made = tabulated(model)
    asks = [(0.9, text(1)), (0.4, text(2)), (0.9, text(3, rows=3)), (0.2, text(1).beside(text(5)))]
    questions = [(torch.full((3, 16, 8, 8), float(at)), sigma, [one]) for at, (sigma, one) in enumerate(asks)]
    expected = [result[0] for result in predict_together([(model, *question) for question in questions])]
    for _ in range(2):
        together = predict_together([(made, *question) for question in questions])
        for alone, joined, there in zip(
            [made.predict(*question) for question in questions], together, expected, strict=True
        ):
            assert near(alone[0], there)
            assert near(joined[0], there)


def test_no_number_depends_on_what_was_made_before_or_beside_it(model: Model) -> None:
    """As after a resumed run, another prompt with the same negative one, or another schedule."""
    x, sides, found = torch.ones(1, 16, 8, 8), [text(1), text(3)], []
    for announced, before in (([0.9, 0.6, 0.3], []), ([], [sides[1]]), ([0.6, 0.3], [text(5)]), ([0.95, 0.6], sides)):
        modulation_tables._AHEAD.clear()
        made = tabulated(model)
        if before:
            made.predict(x, 0.8, before)
        made.expect(announced)
        found.append(torch.cat(made.predict(x, 0.6, sides)))
    assert all(torch.equal(one, found[0]) for one in found)


def test_what_is_kept_is_bounded_and_the_oldest_goes(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modulation_tables, "MOST_COLUMNS", 6)
    monkeypatch.setattr(modulation_tables, "MOST_AT_ONCE", 4)
    made, x = tabulated(model), torch.ones(1, 16, 8, 8)
    made.expect([1 - at / 40 for at in range(40)])
    for at in range(0, 40, 3):
        one = [text(at), text(at + 1)]
        assert near(made.predict(x, 1 - at / 40, one)[0], model.predict(x, 1 - at / 40, one)[0])
        assert len(made.network.tables._columns) <= 6


def test_a_stored_network_streams_and_stays_with_the_same_tables(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the CPU for a card: resident and streamed networks are told the same, so their numbers are equal."""
    monkeypatch.setattr(recipes, "tabulates", lambda _: True)
    monkeypatch.setattr("sigmagraph.engine.models.memory.streamed.STREAMED_FROM_BYTES", 4096)
    x, sides, found = torch.ones(1, 16, 8, 8), [text(1), text(2)], []
    for memory in ("resident", "stream"):
        RESIDENCY.free()
        RESIDENCY.choices = MemoryChoices.parse("fp32", memory, "cpu")
        one = load_diffusion_model(tmp_path / "model.safetensors")
        one.expect([0.8, 0.4])
        with one.recipe.use() as network:
            assert isinstance(network.tables, Tables)
            assert network.joint_blocks[0].x_block.adaLN_modulation[1].weight.is_meta == (memory == "stream")
            found.append(torch.cat([*one.predict(x, 0.8, sides), *one.predict(x, 0.4, sides)]))
    assert torch.equal(*found)
    assert near(found[0], torch.cat([*model.predict(x, 0.8, sides), *model.predict(x, 0.4, sides)]))
