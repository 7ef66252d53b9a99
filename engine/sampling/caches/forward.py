"""One forward of a transformer under a step cache: which rows' blocks run, and what the others get instead."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sigmagraph.engine.sampling.caches.rules import BlockCache, relative_change
from sigmagraph.engine.sampling.caches.slot import CacheSlot, SlotVerdict

__all__ = ["CachedForward", "SlotRows", "Stack"]

Streams = tuple[Tensor, Tensor]
"""Image tokens [R, N, D] and text tokens [R, L, D]."""


class Stack(Protocol):
    """The blocks of one forward, which rows may go through; `entering` is what its embedders made."""

    entering: Streams
    first: int

    def run(self, streams: Streams, begin: int, end: int | None = None, rows: Tensor | None = None) -> Streams:
        """Blocks from `begin` to `end` for these tokens; `rows` are their places among all, None for all of them."""

    def modulated(self) -> Tensor:
        """What the first block's attention reads: image tokens, normalised, scaled and shifted."""

    def leave(self, image: Tensor, rows: Tensor | None = None) -> Tensor:
        """The output [R, C, h, w] for tokens that went through all blocks."""


@dataclass(frozen=True, slots=True)
class SlotRows:
    """Consecutive rows of a forward that one slot knows."""

    slot: CacheSlot
    begin: int

    @property
    def rows(self) -> range:
        """Their places in the forward."""
        return range(self.begin, self.begin + self.slot.rows)

    def of(self, tensor: Tensor) -> Tensor:
        """Its rows of a tensor of the forward."""
        return tensor[self.begin : self.begin + self.slot.rows]


@dataclass(frozen=True, slots=True)
class CachedForward:
    """Answers for the blocks of one forward at level `sigma`: `rule` decides row by row; `parts` are all its rows."""

    rule: BlockCache
    parts: Sequence[SlotRows]
    sigma: float
    is_acting: bool

    @classmethod
    def over(cls, rule: BlockCache, slots: Sequence[CacheSlot], sigma: float, is_acting: bool) -> "CachedForward":
        """The rows of these slots, one behind another."""
        parts, begin = [], 0
        for slot in slots:
            parts.append(SlotRows(slot, begin))
            begin += slot.rows
        return cls(rule, parts, sigma, is_acting)

    def output(self, stack: Stack) -> Tensor:
        """What the network answers. Every slot is told the verdict on its rows."""
        image, context = stack.entering
        begin = 0
        if self.rule.first_runs:
            image, context = stack.run((image, context), 0, stack.first + 1)
            begin = stack.first + 1
        signal = self._signal(stack, image)
        hits = self._hits(signal)
        full = [row for row, is_hit in enumerate(hits) if not is_hit]
        foretold = self._foretold(image)
        if len(full) == len(hits):
            left, _ = stack.run((image, context), begin)
        elif full:
            places = torch.tensor(full, device=image.device)
            computed, _ = stack.run((image[places], context[places]), begin, rows=places)
            left = _sum(image, foretold).index_copy(0, places, computed)
        else:
            left = _sum(image, foretold)
        output = stack.leave(left)
        self._judge(stack, full, image, foretold, output)
        self._learn(full, left - image, signal)
        return output

    def _signal(self, stack: Stack, image: Tensor) -> Tensor | None:
        """[R, ...]: what the rule compares."""
        if not self.rule.compares:
            return None
        return image - stack.entering[0] if self.rule.first_runs else stack.modulated()

    def _hits(self, signal: Tensor | None) -> list[bool]:
        """The decisions. A rule that compares waits for the device here, once a forward."""
        changes = [0.0] * sum(part.slot.rows for part in self.parts)
        measured: list[Tensor] = []
        rows: list[int] = []
        for part in self.parts:
            if signal is not None and (before := part.slot.signal) is not None:
                measured.append(relative_change(part.of(signal), before.to(signal.device)))
                rows += part.rows
        if measured:
            for row, change in zip(rows, torch.cat(measured).tolist(), strict=True):
                changes[row] = change
        return [
            is_hit
            for part in self.parts
            for is_hit in self.rule.hits(part.slot, [changes[row] for row in part.rows], self.sigma, self.is_acting)
        ]

    def _foretold(self, image: Tensor) -> Tensor | None:
        """Foretold residuals of all rows, zeros of those never seen; None where nothing was seen."""
        if self.rule.is_neutral or not any(part.slot.known for part in self.parts):
            return None
        found = [
            self.rule.forecast(part.slot, self.sigma).to(image.device)
            if part.slot.known
            else torch.zeros_like(part.of(image))
            for part in self.parts
        ]
        return torch.cat(found) if len(found) > 1 else found[0]

    def _judge(self, stack: Stack, full: list[int], image: Tensor, foretold: Tensor | None, output: Tensor) -> None:
        """Tell the slots which rows ran, and what the cache would have answered for those it knew."""
        ran = set(full)
        checked = [
            row for part in self.parts for row in part.rows if row in ran and part.slot.is_known(row - part.begin)
        ]
        answers = output
        if checked and foretold is not None:
            places = torch.tensor(checked, device=image.device)
            forecast = stack.leave(_sum(image, foretold)[places], places)
            answers = output.index_copy(0, places, forecast)
        for part in self.parts:
            is_checked = [foretold is not None and row in checked for row in part.rows]
            forecast_here = part.of(answers) if any(is_checked) else None
            reach = [self.rule.reach(part.slot, row, self.sigma) for row in range(part.slot.rows)]
            part.slot.verdict = SlotVerdict([row in ran for row in part.rows], is_checked, reach, forecast_here)

    def _learn(self, full: list[int], residual: Tensor, signal: Tensor | None) -> None:
        lengths = residual.float().norm(dim=-1).mean(dim=1).tolist() if full and self.rule.measures else []
        for part in self.parts:
            slot, ran = part.slot, [row - part.begin for row in full if row in part.rows]
            slot.forwards += 1
            if signal is not None and (self.rule.follows or ran):
                slot.signal = part.of(signal) if self.rule.follows else _updated(slot.signal, part.of(signal), ran)
            if ran:
                kept = part.of(residual)
                rows = kept if len(ran) == slot.rows else kept[torch.tensor(ran, device=kept.device)]
                slot.learn(ran, rows, self.sigma, self.rule.keeps)
            for row in ran if lengths else ():
                slot.norms[row] = [*slot.norms[row], (self.sigma, lengths[part.begin + row])]


def _sum(image: Tensor, foretold: Tensor | None) -> Tensor:
    assert foretold is not None  # a row is left out only where its residual is known
    return image + foretold


def _updated(before: Tensor | None, now: Tensor, rows: list[int]) -> Tensor:
    """`before` with these rows as they are now."""
    if before is None or len(rows) == len(now):
        return now
    places = torch.tensor(rows, device=now.device)
    return before.to(now.device).index_copy(0, places, now[places])
