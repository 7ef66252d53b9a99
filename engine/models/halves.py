"""Guidance's two halves on two devices: what is asked at once is shared out, and both answer at the same time.

The second device has the same network by the recipe's `twin`. It is told by a thread of its own: on a fast card the
host's telling takes about half of a forward's time.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    import torch

    from sigmagraph.engine.models.value import Pass

Rows = Sequence["Pass"]
Forward = Callable[[Rows, Rows], Sequence[Tensor]]
"""Rows of one forward, and all that their network is asked beside them -> a velocity for each pass."""
_SECOND = ThreadPoolExecutor(1, thread_name_prefix="second-device")


def velocities(forward: Forward, groups: Sequence[Rows]) -> dict[int, Tensor]:
    """Every pass's velocity by its id, on the device that made it; a group is what one forward can make."""
    here, there = _shared_out(groups)
    moved = [[_on_second(one) for one in rows] for rows in there]
    answered = _SECOND.submit(copy_context().run, _in_turn, forward, moved) if moved else None
    try:
        found = _in_turn(forward, here)
    finally:
        others = answered.result() if answered is not None else []
    ids = [id(one) for rows in (*here, *there) for one in rows]
    return dict(zip(ids, (*found, *others), strict=True))


def _in_turn(forward: Forward, groups: Sequence[Rows]) -> list[Tensor]:
    found: list[Tensor] = []
    for rows in groups:
        key = rows[0].model.recipe.key
        found += forward(rows, [one for more in groups for one in more if one.model.recipe.key == key])
    return found


def _shared_out(groups: Sequence[Rows]) -> tuple[list[Rows], list[Rows]]:
    """What the first device makes, and the second: half of each group, and of groups of one pass every other.

    ControlNets are on the first device, so what they change is made there.
    """
    here: list[Rows] = []
    there: list[Rows] = []
    is_turn = True
    for rows in groups:
        if rows[0].model.recipe.second is None or rows[0].entry.controls or sum(map(len, groups)) == 1:
            here.append(rows)
        elif len(rows) == 1:
            (there if is_turn else here).append(rows)
            is_turn = not is_turn
        else:
            there.append(rows[: len(rows) // 2])
            here.append(rows[len(rows) // 2 :])
    return here, there


def _on_second(one: "Pass") -> "Pass":
    """The same pass of the same model on its second device."""
    recipe, text = one.model.recipe, one.text or one.entry
    twin = recipe.twin or recipe
    device: torch.device = twin.placement.device
    fed = one.fed.to(device)
    entry = text.for_batch(len(fed), device)
    return replace(one, model=replace(one.model, recipe=twin), fed=fed, timestep=one.timestep.to(device), entry=entry)
