"""Everything about the job layer that an operator may choose, with the value that holds when nobody chose."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sigmagraph.engine.units import DAY_S

__all__ = ["JobSettings", "ProcessSettings", "StoreSettings"]


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Where jobs are kept: `sqlite:///path` or any SQLAlchemy URL of PostgreSQL.

    `lock_wait_s` is how long a locked database is waited for before a submission is refused. With `survives_power_cut`
    SQLite waits for the disk at every commit; without it a killed process still loses nothing. With `is_shared` the
    database is not taken for oneself: for accounts beside a running server, never for jobs. With `has_peers` other
    servers work on it too (fronts.py), which PostgreSQL alone allows.
    """

    url: str = "sqlite:///jobs.sqlite"
    lock_wait_s: float = 15.0
    survives_power_cut: bool = True
    readers: int = 4
    is_shared: bool = False
    has_peers: bool = False


@dataclass(frozen=True, slots=True)
class JobSettings:
    """How jobs are queued, watched, kept and forgotten.

    `artifacts_url` (a folder or any fsspec URL) gets a copy of every output file before its job ends, and deletes it
    after `keep_files_s`; without it files stay where nodes wrote them, and are never deleted.

    `step_deadline_s`: a worker from which nothing is heard for so long during a job is killed. `max_deaths`: a job
    under which so many workers in a row died at the furthest place it reached fails. `keep_s`: ended jobs are
    forgotten after that; the newest `keep_jobs` at most are kept, beside those that were promised a time of their own.
    `takes_every_slot`: jobs begin as long as a worker has slots; without it a second one begins beside the first only
    where that helps (placement/colocation.py).
    """

    store: StoreSettings = field(default_factory=StoreSettings)
    takes_every_slot: bool = False
    max_queued: int = 10_000
    max_queued_per_owner: int = 10_000
    step_deadline_s: float = 900.0
    cancel_deadline_s: float = 30.0
    max_deaths: int = 3
    check_deadline_s: float = 10.0
    ready_wait_s: float = 60.0
    keep_s: float = 30 * DAY_S
    keep_jobs: int = 10_000
    artifacts_url: str | None = None
    keep_files_s: float | None = None
    idempotency_s: float = DAY_S
    sweep_every_s: float = 30.0


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """One worker process. `factory` is `package.module:function`, called there with `options`.

    `slots` jobs are under way at once; every `beat_s` seconds it tells which of them only wait for their turn.
    """

    factory: str
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = "worker"
    slots: int = 1
    start_deadline_s: float = 300.0
    max_restart_wait_s: float = 30.0
    beat_s: float = 5.0
    environment: Mapping[str, str] = field(default_factory=dict)
