"""What an operator may choose about workers on a cluster."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ActorSettings", "FleetSettings"]


@dataclass(frozen=True, slots=True)
class ActorSettings:
    """One actor. `front` tells servers apart that share a machine.

    The lease is `lease_s` of silence long: then its jobs are given to others. It says something every `beat_s`.
    """

    factory: str
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = "actor"
    front: str = ""
    slots: int = 1
    beat_s: float = 5.0
    lease_s: float = 60.0
    start_deadline_s: float = 300.0
    max_restart_wait_s: float = 30.0


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """The cluster at `address`: `local` starts one here, `ray://HOST:PORT` is reached through Ray's client server.

    Each worker takes `gpus` of a machine's (a fraction lets several share one); where no machine has any, there is one
    worker for each. Machines without one of `labels` ("name=value") have none. With `most` above 0, so many workers at
    most are asked of the cluster's autoscaler while jobs wait, and given back after `idle_s` without any.
    """

    address: str
    gpus: float = 1.0
    labels: tuple[str, ...] = ()
    most: int = 0
    idle_s: float = 300.0
    look_every_s: float = 5.0
    local: Mapping[str, Any] = field(default_factory=dict)
