"""What is owed to a job's webhook, and what came of each try: plain records."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Attempt", "Delivery"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try: when, and the status or the reason there was none."""

    at: float
    status: int | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is owed for one job; `id` is the same in every try. `next_at` None: delivered, or given up."""

    id: str
    job_id: str
    url: str
    attempts: int
    next_at: float | None
    delivered_at: float | None
    log: Sequence[Attempt]
