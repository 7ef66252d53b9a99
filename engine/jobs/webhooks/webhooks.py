"""Telling a client's server about the end of a job: at least once, signed, again and again with longer pauses.

What is owed is a row written together with the job's end, so a killed server still delivers. Who speaks HTTP is
handed in (`Post`): this layer has no client, and where a request may go is decided there, at the time of connecting.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, func, select, update

from sigmagraph.engine.errors import StoreFailed, UnknownJob
from sigmagraph.engine.jobs.job import Job
from sigmagraph.engine.jobs.store.database import Tx
from sigmagraph.engine.jobs.store.job_store import JobStore
from sigmagraph.engine.jobs.store.tables import deliveries, jobs
from sigmagraph.engine.jobs.webhooks.delivery import Attempt, Delivery
from sigmagraph.engine.jobs.webhooks.standard import payload, signature
from sigmagraph.engine.redaction import redacted

__all__ = ["Attempt", "Delivery", "Post", "Webhooks", "deliveries_of", "is_public"]

Post = Callable[[str, bytes, Mapping[str, str]], Awaitable[int]]
"""POST a body with headers to a URL; the status. Raises where there is none."""
Body = Callable[[Job], Mapping[str, Any]]

WAITS_S = (1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 6 * 3600.0)
AT_ONCE = 32
OWNERS_SHARE, ADDRESSES_SHARE = 8, 4
"""Of these, what one owner may have under way, and what may be on its way to one address: one that never answers keeps
nobody else's waiting."""
GONE = 410  # the receiver wants no more of it, by the standard
LONGEST_SLEEP_S = 30.0
OTHERS_S = 2.0
"""How often a server asks itself whether deliveries have become its own."""
TRANSLATED = tuple(map(IPv6Network, ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96")))  # RFC 4291, 2765, 6052


class Webhooks:
    """Delivers what is owed. `body` says what is told about a job; each protocol may have its own words.

    `_flying` are the deliveries under way, each with its owner and address.

    Of several servers on one database one delivers: `is_ours` says whether it is this one.
    """

    def __init__(
        self,
        store: JobStore,
        post: Post,
        body: Body,
        waits_s: Sequence[float] = WAITS_S,
        is_ours: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store, self._post, self._body, self._waits_s, self._is_ours = store, post, body, waits_s, is_ours
        self._task: asyncio.Task[None] | None = None
        self._flying: dict[str, tuple[asyncio.Task[None], str, str]] = {}
        self._wake = asyncio.Event()

    def start(self) -> None:
        """Begin delivering, with what a killed server owed."""
        self._task = asyncio.create_task(self._deliver_all())

    async def stop(self) -> None:
        """Stop; what is owed stays owed."""
        tasks = [task for task, _, _ in self._flying.values()] + ([self._task] if self._task is not None else [])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def look(self) -> None:
        """Something may be owed."""
        self._wake.set()

    async def of(self, job_id: str) -> Sequence[Delivery]:
        """The deliveries of one job, with their logs."""
        return await deliveries_of(self._store, job_id)

    async def _deliver_all(self) -> None:
        while True:
            sleep_s = LONGEST_SLEEP_S if self._is_ours() else OTHERS_S
            if self._is_ours():
                with suppress(StoreFailed):  # the next look finds it
                    await self._begin_due()
                    sleep_s = min(LONGEST_SLEEP_S, await self._next_in_s())
            with suppress(TimeoutError):  # wait_for would lose a cancelling that comes with the event
                async with asyncio.timeout(max(sleep_s, 0.01)):
                    await self._wake.wait()
            self._wake.clear()

    async def _begin_due(self) -> None:
        """Send what is due, as far as there is room; one that comes back makes room, and wakes."""
        while len(self._flying) < AT_ONCE and (due := await self._due()):
            for delivery in due:
                if len(self._flying) < AT_ONCE and self._has_room(delivery.owner, delivery.url):
                    self._begin(delivery)

    def _begin(self, due: "_Due") -> None:
        def landed(task: asyncio.Task[None]) -> None:
            del self._flying[due.id]
            if not task.cancelled() and task.exception() is None:  # or the store fails, and is left alone for a while
                self.look()

        task = asyncio.create_task(self._deliver(due.id, due.job_id, due.url, due.secret))
        self._flying[due.id] = task, due.owner, due.url
        task.add_done_callback(landed)

    def _has_room(self, owner: str, url: str) -> bool:
        owners, urls = self._shares()
        return owners[owner] < OWNERS_SHARE and urls[url] < ADDRESSES_SHARE

    def _shares(self) -> tuple[Counter[str], Counter[str]]:
        """How many are under way, by owner and by address."""
        return (
            Counter(owner for _, owner, _ in self._flying.values()),
            Counter(url for *_, url in self._flying.values()),
        )

    def _may_begin(self) -> ColumnElement[bool]:
        """What is not under way, and whose share is not used up."""
        owners, urls = self._shares()
        return and_(
            deliveries.c.id.not_in(list(self._flying)),
            jobs.c.owner.not_in([owner for owner, count in owners.items() if count >= OWNERS_SHARE]),
            deliveries.c.url.not_in([url for url, count in urls.items() if count >= ADDRESSES_SHARE]),
        )

    async def _due(self) -> Sequence["_Due"]:
        columns = deliveries.c.id, deliveries.c.job_id, deliveries.c.url, deliveries.c.secret, jobs.c.owner
        of_jobs = select(*columns).join(jobs, jobs.c.id == deliveries.c.job_id)
        due = of_jobs.where(deliveries.c.next_at <= self._store.clock(), self._may_begin())
        query = due.order_by(deliveries.c.next_at).limit(AT_ONCE)
        return await self._store.database.read(lambda connection: [_Due(*row) for row in connection.execute(query)])

    async def _next_in_s(self) -> float:
        if len(self._flying) >= AT_ONCE:
            return LONGEST_SLEEP_S
        next_at = select(func.min(deliveries.c.next_at)).join(jobs, jobs.c.id == deliveries.c.job_id)
        query = next_at.where(self._may_begin())
        earliest = await self._store.database.read(lambda connection: connection.execute(query).scalar_one())
        return LONGEST_SLEEP_S if earliest is None else max(0.0, earliest - self._store.clock())

    async def _deliver(self, delivery_id: str, job_id: str, url: str, secret: str) -> None:
        """One try, and what came of it."""
        at = self._store.clock()
        try:
            job = await self._store.get(job_id)
        except UnknownJob:  # deleted meanwhile, and what was owed with it
            return
        sent_s = int(at)
        headers = {"Content-Type": "application/json", "Webhook-Id": delivery_id, "Webhook-Timestamp": str(sent_s)}
        try:
            body = payload(delivery_id, job.state, job.ended_at or at, self._body(job))
            if secret:
                headers["Webhook-Signature"] = signature(secret, delivery_id, sent_s, body)
            attempt = Attempt(at, await self._post(url, body, headers))
        except Exception as error:  # noqa: BLE001  # whatever is raised is what came of this try, and others are told
            attempt = Attempt(at, None, str(redacted("", str(error))) or type(error).__name__)
        await self._store.database.write(lambda tx: self._note(tx, delivery_id, attempt), is_sure=True)

    def _note(self, tx: Tx, delivery_id: str, attempt: Attempt) -> None:
        row = tx.connection.execute(select(deliveries).where(deliveries.c.id == delivery_id)).one_or_none()
        if row is None:  # the job was deleted meanwhile
            return
        is_done = attempt.status is not None and 200 <= attempt.status < 300
        tries_left = row.attempts < len(self._waits_s) and attempt.status != GONE
        next_at = attempt.at + self._waits_s[row.attempts] if tries_left and not is_done else None
        values = {
            "attempts": row.attempts + 1,
            "next_at": next_at,
            "delivered_at": attempt.at if is_done else None,
            "log": [*row.log, [attempt.at, attempt.status, attempt.problem]],
        }
        tx.connection.execute(update(deliveries).where(deliveries.c.id == delivery_id).values(values))


class _Due(NamedTuple):
    """A delivery whose time has come."""

    id: str
    job_id: str
    url: str
    secret: str
    owner: str


async def deliveries_of(store: JobStore, job_id: str) -> Sequence[Delivery]:
    """The deliveries of one job, with their logs."""
    query = select(deliveries).where(deliveries.c.job_id == job_id)
    return await store.database.read(
        lambda connection: [_delivery(dict(row)) for row in connection.execute(query).mappings()]
    )


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet; whoever connects asks for the address it connects to."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    inner = _inner(found) if isinstance(found, IPv6Address) else None
    if inner is not None:
        return is_public(str(inner))
    return found.is_global and not found.is_multicast and not getattr(found, "is_site_local", False)


def _inner(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that a gateway takes from an IPv6 one: mapped, 6to4, or in the last 32 bits of a prefix."""
    if any(address in prefix for prefix in TRANSLATED):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def _delivery(row: dict[str, Any]) -> Delivery:
    log = [Attempt(*attempt) for attempt in row["log"]]
    return Delivery(row["id"], row["job_id"], row["url"], row["attempts"], row["next_at"], row["delivered_at"], log)
