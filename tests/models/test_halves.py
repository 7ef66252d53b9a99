"""Guidance's halves on two devices: `cpu:0` stands in for a second one, as it is another place to torch than `cpu`."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models import Conditioning, Model, load_diffusion_model
from sigmagraph.engine.models.arch import MMDiTShape
from sigmagraph.engine.models.memory import choices
from sigmagraph.engine.models.memory.choices import MemoryChoices
from sigmagraph.engine.models.memory.residency import RESIDENCY
from sigmagraph.engine.sampling import ComfyNoise, Sampling, find_schedule, run_sigmas
from tests.weights import drawn_weights

SHAPE = MMDiTShape(3, 128, 64, 96, 24)
SECOND = torch.device("cpu", 0)


@pytest.fixture(autouse=True)
def own_choices() -> Iterator[None]:
    before = RESIDENCY.choices
    RESIDENCY.choices = MemoryChoices.parse("fp32", "resident", "cpu")
    yield
    RESIDENCY.choices = before
    RESIDENCY.free()


@pytest.fixture
def model(tmp_path: Path) -> Model:
    save_file(drawn_weights(SHAPE), tmp_path / "model.safetensors")
    return load_diffusion_model(tmp_path / "model.safetensors")


def on_two(model: Model) -> Model:
    return replace(model, recipe=replace(model.recipe, second=SECOND))


def text(seed: int, tokens: int = 7) -> Conditioning:
    generator = torch.Generator().manual_seed(seed)
    return Conditioning(torch.randn(1, tokens, 96, generator=generator), torch.randn(1, 64, generator=generator))


def rows_of(network: nn.Module) -> list[tuple[int, str]]:
    """Rows and thread of every forward from now on."""
    seen: list[tuple[int, str]] = []

    def note(_: nn.Module, given: tuple[Tensor, ...], __: Any) -> None:
        seen.append((len(given[0]), threading.current_thread().name))

    network.register_forward_hook(note)
    return seen


@pytest.mark.parametrize("lengths", [(7, 7), (7, 9), (7, 7, 7), (7, 8, 9)])
def test_both_devices_make_a_share_and_the_estimates_are_those_of_one(model: Model, lengths: tuple[int, ...]) -> None:
    x, sides = torch.randn(2, 16, 8, 10), [text(at, length) for at, length in enumerate(lengths)]
    pair = on_two(model)
    first, second = pair.recipe, pair.recipe.twin
    assert second is not None
    with first.use() as here, second.use() as there:
        assert here is not there
        seen_here, seen_there = rows_of(here), rows_of(there)
        found = pair.predict(x, 0.6, sides)
        shares = [sum(rows for rows, _ in seen) for seen in (seen_here, seen_there)]
    for one, expected in zip(found, model.predict(x, 0.6, sides), strict=True):
        assert (one - expected).norm() <= 1e-5 * expected.norm()
    assert sum(shares) == 2 * len(lengths)
    assert 2 in shares
    assert all(name.startswith("second-device") for _, name in seen_there)


def test_a_guided_run_is_that_of_one_device_and_an_unguided_one_stays_on_the_first(model: Model) -> None:
    pair = on_two(model)
    sigmas = run_sigmas(find_schedule("normal"), model.parameterisation.levels, 5, 1.0, False)

    def sampled(made: Model, scale: float) -> Tensor:
        denoiser = made.guided(text(1), text(2), scale)
        return Sampling(
            denoiser, torch.zeros(1, 16, 8, 8), sigmas, made.parameterisation, "dpmpp_2m", noise=ComfyNoise(4)
        ).run()

    expected = sampled(model, 3.0)
    assert (sampled(pair, 3.0) - expected).norm() <= 1e-5 * expected.norm()
    twin = pair.recipe.twin
    assert twin is not None
    with twin.use() as there:
        seen = rows_of(there)
        assert torch.equal(sampled(pair, 1.0), sampled(model, 1.0))
    assert not seen


def test_an_error_on_either_device_is_told_and_the_next_step_works(model: Model) -> None:
    pair, x, sides = on_two(model), torch.randn(1, 16, 8, 8), [text(1), text(2)]
    expected = pair.predict(x, 0.5, sides)
    for recipe in (pair.recipe, pair.recipe.twin):
        assert recipe is not None
        with recipe.use() as network:
            handle = network.register_forward_pre_hook(_fail)
            with pytest.raises(RuntimeError, match="a card fell off the bus"):
                pair.predict(x, 0.5, sides)
            handle.remove()
        assert all(map(torch.equal, pair.predict(x, 0.5, sides), expected))


def _fail(*_: object) -> None:
    raise RuntimeError("a card fell off the bus")


def test_an_adapter_is_on_both(model: Model) -> None:
    from sigmagraph.engine.models import Adapter

    base = "diffusion_model.joint_blocks.1.x_block.mlp.fc1"
    adapter = Adapter(Path("a.safetensors"), {base: {"up": torch.randn(512, 4), "down": torch.randn(4, 128)}})
    given = torch.randn(1, 16, 8, 8), 0.5, [text(1), text(2)]
    found, expected = (made.with_adapter(adapter, 0.7).predict(*given) for made in (on_two(model), model))
    for one, there in zip(found, expected, strict=True):
        assert (one - there).norm() <= 1e-5 * there.norm()


def test_two_devices_are_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = {f"cuda:{at}": torch.device("cuda", at) for at in range(2)} | {"cpu": torch.device("cpu")}

    def named(name: str) -> torch.device:
        if name not in cards:
            raise BadValue("--device", name, ", ".join(cards))
        return cards[name]

    monkeypatch.setattr(choices, "named_device", named)
    both = MemoryChoices.parse(device="cuda:0+cuda:1")
    assert (both.on, both.second, both.named) == (cards["cuda:0"], cards["cuda:1"], "guidance in halves")
    assert MemoryChoices.parse(device="cuda:1").second is None
    for wrong in ("cuda:0+cuda:0", "cuda:0+cpu", "cuda:0+cuda:7"):
        with pytest.raises(BadValue, match="--device"):
            MemoryChoices.parse(device=wrong)
