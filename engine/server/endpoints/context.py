"""What the handlers of this adapter share: the endpoints, the accounts, the rules of time, and who is calling."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from sigmagraph.engine.jobs.billing.accounts import Account
from sigmagraph.engine.jobs.job import LOCAL
from sigmagraph.engine.server.access.keys import KnownKeys
from sigmagraph.engine.server.access.origin import own_origin
from sigmagraph.engine.server.access.rates import Buckets, Taken
from sigmagraph.engine.server.endpoints.endpoint import Endpoint
from sigmagraph.engine.units import DAY_S

__all__ = ["CALLER", "PUBLISHED", "SOURCE", "Caller", "Published", "base_url"]

SOURCE = "endpoint"
"""The `source` of the jobs made here; another protocol's job is not found here."""


@dataclass(frozen=True)
class Published:
    """What the composition root hands over.

    `secret` signs output URLs; `record_s` is how long an ended request can be asked for, `file_s` how long its
    pictures stay in `output_dirs`, which are every owner's. `per_minute` is the rate of keys without their own,
    `local_per_minute` that of a server without keys.
    """

    endpoints: Mapping[str, Endpoint]
    keys: KnownKeys
    secret: bytes
    base_url: str | None = None
    record_s: float = 3600.0
    file_s: float = 7 * DAY_S
    output_dirs: Callable[[], Sequence[Path]] = tuple
    per_minute: float = 600.0
    local_per_minute: float = 60_000.0
    clock: Callable[[], float] = time.time
    buckets: Buckets = field(default_factory=lambda: Buckets(time.monotonic))


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request. `standing` is None on a server without keys; of an open path nobody asks who it is."""

    owner: str = LOCAL
    standing: Account | None = None
    taken: Taken | None = None
    is_known: bool = True


PUBLISHED: web.AppKey[Published] = web.AppKey("published", Published)
CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)


def base_url(request: web.Request) -> str:
    """Where the client reaches this server, without a slash at the end."""
    own = request.app[PUBLISHED].base_url
    return (own if own is not None else own_origin(request)).rstrip("/")
