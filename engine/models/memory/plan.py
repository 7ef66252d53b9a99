"""What goes where: a pure function of sizes and budgets, so that it can be printed, tested and refused before a run.

Knows no file, no tensor, no device: `Part` has the sizes of one network, `Budget` what there is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sigmagraph.engine.errors import OutOfMemory
from sigmagraph.engine.units import bytes_in_words

Mode = Literal["mapped", "resident", "packed", "streamed"]
Memory = Literal["auto", "resident", "stream"]

SMALL_BYTES = 64 * 1024 * 1024  # below this a network is copied whatever there is: nothing is won by less
# What a network needs beside its weights, bytes: measured at 1024 x 1024 with guidance (text: 77 tokens, float32).
WORKING_BYTES = {"text": 300_000_000, "model": 600_000_000, "control": 600_000_000, "vae": 800_000_000}
ENCODER_SHARE = 1 / 3  # an encoder runs once per prompt: it may stay where it takes at most this share
TABLE_BYTES = 450_000_000  # columns of modulations for three jobs under way, of SD3.5 Large (modulation_tables.py)
LARGE_SHARE = 1 / 2  # float8 weights stay float8 where they would take more of a card as 16 bits
WHEN = {
    "text": "while a prompt is encoded",
    "model": "at every step",
    "control": "at every step, beside the model",
    "vae": "while pictures are encoded or decoded",
}
EVERY_STEP = ("model", "control")


@dataclass(frozen=True, slots=True)
class Part:
    """The sizes of one network, bytes.

    `dense_bytes` in the precision it computes in, `stored_bytes` in its files, of which `mapped_bytes` can be computed
    with as they lie there. `largest_bytes` is its largest tensor but for tables, `kept_bytes` all that are
    too small to be streamed, `block_bytes` its largest block twice as stored and once dense, `outside_bytes` what is in
    no block, `packed_bytes` all of it with float8 and quantised tensors kept small. `is_rounded`: kept small on
    purpose. `is_quantised`: stored in blocks of small integers, which grow when they are used.
    `ahead_bytes` is what computes before a run, dense and packed, and may leave then; `has_products`: what is kept
    small is multiplied with as it is.
    """

    name: str
    kind: str
    precision: str
    dense_bytes: int
    stored_bytes: int
    mapped_bytes: int = 0
    largest_bytes: int = 0
    kept_bytes: int = 0
    block_bytes: int = 0
    outside_bytes: int = 0
    packed_bytes: int = 0
    is_rounded: bool = False
    is_quantised: bool = False
    ahead_bytes: tuple[int, int] = (0, 0)
    has_products: bool = False

    @property
    def small_bytes(self) -> int:
        """What it takes with float8 and quantised tensors kept small; all of it where there are none."""
        return min(self.packed_bytes or self.dense_bytes, self.dense_bytes)

    @property
    def working_bytes(self) -> int:
        """What it needs beside its weights while it computes."""
        tables = TABLE_BYTES if self.ahead_bytes[0] else 0
        return WORKING_BYTES[self.kind] + tables if self.dense_bytes >= SMALL_BYTES else 0

    @property
    def streamed_bytes(self) -> int:
        """What it takes of its device while it is streamed: what stays, and room for what comes."""
        return self.kept_bytes + self.largest_bytes

    @property
    def carried_bytes(self) -> int:
        """The same on a device that blocks are carried to: two on their way, one that computes, what is outside."""
        return self.outside_bytes + self.block_bytes if self.block_bytes else self.streamed_bytes


@dataclass(frozen=True, slots=True)
class Budget:
    """A device and what may be taken of it. `is_host`: weights on disk can be used where they are mapped."""

    device: str
    limit_bytes: int
    is_host: bool = True
    memory: Memory = "auto"


@dataclass(frozen=True, slots=True)
class Placed:
    """One part and what becomes of it: `bytes_` of the device, and `paged_bytes` of file pages that want to stay.

    `leaves`: what computes before a run is not on the device.
    """

    part: Part
    mode: Mode
    bytes_: int
    paged_bytes: int = 0
    leaves: bool = False

    @property
    def need_bytes(self) -> int:
        """What has to be there while it computes. Pages of what runs once may go again as it runs."""
        return self.bytes_ + self.part.working_bytes + (self.paged_bytes if self.part.kind in EVERY_STEP else 0)

    def __str__(self) -> str:
        how = {
            "mapped": "used as it lies in the file",
            "resident": "resident",
            "packed": "resident as small as it is stored, a layer at a time made large",
            "streamed": "streamed from its file",
        }[self.mode]
        paged = f", {bytes_in_words(self.paged_bytes)} of file pages" if self.paged_bytes else ""
        how += ", modulations computed before each run from the file" if self.leaves else ""
        beside = f", {bytes_in_words(self.part.working_bytes)} beside" if self.part.working_bytes else ""
        part = self.part
        return f"{part.name} ({part.precision}): {how}, {bytes_in_words(self.bytes_)}{paged}{beside}, {WHEN[part.kind]}"


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Every part in its place. Parts compute one after another, so the need is that of the neediest.

    Only ControlNets compute beside a model.
    """

    budget: Budget
    placed: tuple[Placed, ...]

    @property
    def peak_bytes(self) -> int:
        """The most that is needed at once."""
        beside = sum(network.need_bytes for network in self.placed if network.part.kind == "control")
        needs = [network.need_bytes + (beside if network.part.kind == "model" else 0) for network in self.placed]
        return max(needs, default=0)

    @property
    def refused(self) -> tuple[Placed, ...]:
        """Parts for which there is no room, however they are placed."""
        return tuple(network for network in self.placed if network.need_bytes > self.budget.limit_bytes)

    def lines(self) -> list[str]:
        """In words, a part a line."""
        peak = f"{self.budget.device} has {bytes_in_words(self.budget.limit_bytes)} left; the most needed at once: "
        return [*map(str, self.placed), peak + bytes_in_words(self.peak_bytes)]

    def require(self) -> None:
        """Raise `OutOfMemory`, with the plan and what would work, if a part has no room."""
        if self.refused:
            raise OutOfMemory("; ".join([*map(self._refusal, self.refused), "the plan: " + " | ".join(self.lines())]))

    def _refusal(self, placed: Placed) -> str:
        part, limit = placed.part, bytes_in_words(self.budget.limit_bytes)
        needs = f"{part.name} takes {bytes_in_words(placed.need_bytes)} on {self.budget.device}, which has {limit} left"
        takes = part.streamed_bytes if self.budget.is_host else part.carried_bytes
        streamed = takes + part.working_bytes
        if self.budget.memory != "stream" and streamed <= self.budget.limit_bytes:
            return f"{needs}; --memory stream takes {bytes_in_words(streamed)} and reads the file at every step"
        return f"{needs}, and streamed it would take {bytes_in_words(streamed)}, the least that works"


def plan(parts: Sequence[Part], budget: Budget) -> MemoryPlan:
    """Everything in its place. A part that fits stays; one that does not is streamed."""
    return MemoryPlan(budget, tuple(place(part, budget) for part in parts))


def place(part: Part, budget: Budget) -> Placed:
    """One part alone: others leave when it needs their room."""
    takes = part.streamed_bytes if budget.is_host else part.carried_bytes
    leaves = bool(part.ahead_bytes[0])
    streamed = Placed(part, "streamed", takes, part.stored_bytes if budget.is_host else 0, leaves)
    if part.dense_bytes < SMALL_BYTES and budget.memory != "stream":
        return Placed(part, "resident", part.dense_bytes)
    if budget.memory == "stream" and part.kind != "vae":
        return Placed(part, "streamed", takes, leaves=leaves)
    packed = Placed(part, "packed", part.small_bytes + part.largest_bytes)
    if part.is_rounded:
        return packed if packed.need_bytes <= budget.limit_bytes else _lighter(packed, packed)
    if part.is_quantised and budget.memory != "resident":  # whoever has such a file has no room for it grown
        return packed if not budget.is_host and packed.need_bytes <= budget.limit_bytes else streamed
    copied = part.dense_bytes - (part.mapped_bytes if budget.is_host else 0)
    mode: Mode = "mapped" if copied < part.dense_bytes else "resident"
    whole = Placed(part, mode, copied, part.dense_bytes - copied)
    is_packable = packed.bytes_ < part.dense_bytes * 0.75
    if part.has_products and is_packable and packed.need_bytes <= budget.limit_bytes:
        return packed
    if budget.memory == "resident" or part.kind == "vae":
        return whole if whole.need_bytes <= budget.limit_bytes else _lighter(whole, whole)
    share = ENCODER_SHARE if part.kind == "text" else 1.0
    if whole.need_bytes <= budget.limit_bytes and copied <= share * budget.limit_bytes:
        is_large = not budget.is_host and whole.bytes_ > LARGE_SHARE * budget.limit_bytes
        return packed if is_large and packed.bytes_ < whole.bytes_ * 0.75 else whole
    if not budget.is_host and packed.need_bytes <= budget.limit_bytes and is_packable:
        return packed
    for placed in (whole, packed) if leaves else ():
        lighter = _lighter(placed, streamed)
        if lighter.need_bytes <= budget.limit_bytes:
            return lighter
    return streamed


def _lighter(placed: Placed, otherwise: Placed) -> Placed:
    """The same without what computes before a run; where there is no such thing, another."""
    dense, small = placed.part.ahead_bytes
    less = small if placed.mode == "packed" else dense
    return replace(placed, bytes_=placed.bytes_ - less, leaves=True) if less else otherwise
