"""Captured forwards: what is replayed reads its own places and gives the numbers of a plain forward."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.models.arch import MMDiT, MMDiTShape
from sigmagraph.engine.models.captured import MOST_KEPT, CapturedForwards
from sigmagraph.engine.models.conditioning import Conditioning
from sigmagraph.engine.models.memory.device import Placement
from sigmagraph.engine.models.memory.modulation_tables import Tables
from sigmagraph.engine.models.memory.residency import ready
from sigmagraph.engine.models.spec import sd3_spec
from sigmagraph.engine.models.value import Model

SHAPE = MMDiTShape(3, 128, 64, 96, 80)
CPU = torch.device("cpu")


def rerun(forward: Callable[[], Tensor], device: torch.device) -> tuple[Callable[[], None], Tensor]:
    """A graph's stand-in: what was captured runs again on the tensors it was captured with, into its one result."""
    result = forward().clone()

    def replay() -> None:
        result.copy_(forward())

    return replay, result


def model(captured: CapturedForwards | None) -> Model:
    torch.manual_seed(0)
    network = MMDiT(SHAPE).requires_grad_(False).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    network.tables, network.captured = Tables(), captured
    spec = sd3_spec(SHAPE)
    return Model(ready(network, Placement(CPU, torch.float32)), spec, spec.parameterisation)


def text(seed: int, tokens: int = 7) -> Conditioning:
    generator = torch.Generator().manual_seed(seed)
    return Conditioning(torch.randn(1, tokens, 96, generator=generator), torch.randn(1, 64, generator=generator))


def test_replayed_forwards_of_new_states_levels_and_texts_are_plain_ones() -> None:
    captured = CapturedForwards(rerun)
    plain, made = model(None), model(captured)
    kept = []
    for step in range(6):
        for tokens, skipped in ((7, ()), (9, ()), (7, (1,))):
            x = torch.full((1, 16, 8, 8), step / 6)
            given = x, 0.9 - step / 10, [text(step, tokens), text(step + 20, tokens)]
            found = made.with_skipped_layers(skipped).predict(*given)
            kept.append((found, plain.with_skipped_layers(skipped).predict(*given)))
    assert captured.replays == 3 * 4, "two of each kind are plain"
    for found, expected in kept:
        assert all(map(torch.equal, found, expected)), "a later replay writes over nothing that was handed out"


def test_large_forwards_and_those_of_many_sizes_are_bounded() -> None:
    captured = CapturedForwards(rerun)
    made = model(captured)
    for side in (8, 10, 12, 14, 16, 18):
        for _ in range(3):
            made.predict(torch.ones(1, 16, side, side), 0.5, [text(1)])
    assert captured.replays == 6
    assert len(captured._graphs) == MOST_KEPT
    for _ in range(4):
        made.predict(torch.ones(2, 16, 66, 66), 0.5, [text(1)])
    assert captured.replays == 6, "2178 tokens"


def test_where_capturing_fails_forwards_stay_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object) -> tuple[Callable[[], None], Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing")

    captured = CapturedForwards(broken)
    made, plain = model(captured), model(None)
    given = torch.ones(1, 16, 8, 8), 0.5, [text(1)]
    for _ in range(5):
        assert torch.equal(made.predict(*given)[0], plain.predict(*given)[0])
    assert len([message for message in caplog.messages if "not permitted" in message]) == 1
    assert captured.replays == 0


def test_a_forward_that_makes_its_own_modulations_is_not_captured() -> None:
    captured = CapturedForwards(rerun)
    made = model(captured)
    made.network.tables = None
    other = replace(made)
    for _ in range(4):
        other.predict(torch.ones(1, 16, 8, 8), 0.5, [text(1)])
    assert captured.replays == 0
