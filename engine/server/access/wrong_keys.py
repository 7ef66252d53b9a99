"""Keys that somebody tries: how many wrong ones an address may show before it has to wait. Knows no routes."""

import hashlib
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address

from aiohttp import web

from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.server.access.rates import Buckets

__all__ = ["WRONG_KEYS", "TooManyWrongKeys", "WrongKeys", "may_try_key"]

PER_MINUTE = 60.0
MOST_KNOWN = 10_000
LOOKED_UP_S = 1.0
"""Within which the keys that are looked up now are known to be right or wrong."""


class TooManyWrongKeys(EngineError):
    """Too many wrong keys came from there; the message says how long to wait."""

    code = "too_many_guesses"

    def __init__(self, wait_s: float) -> None:
        self.wait_s = math.ceil(wait_s)
        super().__init__(f"too many wrong keys came from this address: try again in {self.wait_s} s")


class WrongKeys:
    """Wrong keys by address. A key that worked before is never held up: behind a proxy all share one address."""

    def __init__(self, per_minute: float = PER_MINUTE, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._wrong = per_minute, Buckets(clock)
        self._worked: OrderedDict[bytes, None] = OrderedDict()
        self._tried: dict[str, Counter[bytes]] = {}

    def check(self, address: str | None, key: str) -> None:
        """Raises `TooManyWrongKeys` for an unknown key from an address that showed too many."""
        digest = _digest(key)
        if digest not in self._worked:
            self._refuse_too_many(place_of(address), digest)

    @contextmanager
    def trying(self, address: str | None, key: str) -> Iterator[None]:
        """While the key is looked up it counts as a wrong one for others of its address, unless it worked before.

        Raises `TooManyWrongKeys`.
        """
        digest = _digest(key)
        if digest in self._worked:
            yield
            return
        place = place_of(address)
        self._refuse_too_many(place, digest)
        tried = self._tried.setdefault(place, Counter())
        tried[digest] += 1
        try:
            yield
        finally:
            tried[digest] -= 1
            if not tried[digest]:
                del tried[digest]
            if not tried:
                self._tried.pop(place, None)

    def _refuse_too_many(self, place: str, digest: bytes) -> None:
        state = self._wrong.look(place, self._per_minute)
        others = len(self._tried[place].keys() - {digest}) if place in self._tried else 0
        if not state.is_allowed or state.remaining <= others:
            raise TooManyWrongKeys(max(state.wait_s, LOOKED_UP_S))

    def tell(self, address: str | None, key: str, *, is_right: bool) -> None:
        """What became of a key."""
        digest = _digest(key)
        if not is_right:
            self._worked.pop(digest, None)
            self._wrong.take(place_of(address), self._per_minute)
            return
        self._worked[digest] = None
        self._worked.move_to_end(digest)
        if len(self._worked) > MOST_KNOWN:
            self._worked.popitem(last=False)


WRONG_KEYS: web.AppKey[WrongKeys] = web.AppKey("wrong keys", WrongKeys)


@contextmanager
def may_try_key(request: web.Request, key: str) -> Iterator[Callable[[bool], None]]:
    """While the key is looked up, if it may be; yields what wants to know whether it was right."""
    wrong_keys, address = request.app[WRONG_KEYS], request.remote
    with wrong_keys.trying(address, key):
        yield lambda is_right: wrong_keys.tell(address, key, is_right=is_right)


def place_of(address: str | None) -> str:
    """Who counts as one: an IPv4 address, or the /64 network that a household or a machine has of IPv6.

    A server that is bound to `::` sees IPv4 clients as `::ffff:192.0.2.1`: each of those is its IPv4 address.
    """
    try:
        place = ip_address((address or "").partition("%")[0])
    except ValueError:
        return ""
    if isinstance(place, IPv6Address) and place.ipv4_mapped is not None:
        return str(place.ipv4_mapped)
    return str(IPv6Address(int(place) >> 64 << 64)) if isinstance(place, IPv6Address) else str(place)


def _digest(key: str) -> bytes:
    """Keys themselves are not kept in memory."""
    return hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16).digest()
