"""Conditionings are brought to a device once; the meta device stands in for a card."""

import gc
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sigmagraph.engine.models import Conditioning
from sigmagraph.engine.models.moved import MOVED, Moved

CARD = torch.device("meta")


class Copies(TorchDispatchMode):
    """Counts copies from the CPU to the card."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        source = args[0] if args and isinstance(args[0], Tensor) else None
        self.count += (
            source is not None and source.device.type == "cpu" and isinstance(out, Tensor) and out.device == CARD
        )
        return out


def test_a_conditioning_is_copied_once_for_all_steps_and_batches() -> None:
    MOVED.clear()
    conditioning = Conditioning(torch.randn(1, 7, 8), torch.randn(1, 4)).beside(
        Conditioning(torch.randn(1, 5, 8), torch.randn(1, 4))
    )
    with Copies() as copies:
        for _ in range(3):
            for entry in conditioning.entries:
                for batch in (1, 2):
                    moved = entry.for_batch(batch, CARD)
                    assert moved.context.device == CARD
                    assert moved.context.shape[0] == moved.pooled.shape[0] == batch  # type: ignore[union-attr]
    assert copies.count == 4


def test_rows_are_repeated_in_turn_and_cut() -> None:
    conditioning = Conditioning(torch.arange(6.0).reshape(3, 2, 1), torch.arange(2.0).reshape(2, 1))
    found = conditioning.for_batch(5, torch.device("cpu"))
    assert found.context[:, 0, 0].tolist() == [0.0, 2.0, 4.0, 0.0, 2.0]
    assert found.pooled is not None
    assert found.pooled[:, 0].tolist() == [0.0, 1.0, 0.0, 1.0, 0.0]


def test_what_changed_in_place_is_copied_again_and_the_oldest_leaves() -> None:
    moved, first = Moved(most=2), torch.zeros(3)
    copy = moved.to(first, CARD)
    assert moved.to(first, CARD) is copy
    first.add_(1)
    assert moved.to(first, CARD) is not copy
    others = [torch.zeros(3) for _ in range(2)]
    for other in others:
        moved.to(other, CARD)
    gone = weakref.ref(first)
    del first
    gc.collect()
    assert gone() is None
