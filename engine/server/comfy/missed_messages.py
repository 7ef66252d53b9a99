"""What a client has heard of its jobs, and the rest told again from the stored events. No sockets here.

A narrator is a function of a job's events, so the n-th event always gives the same messages; a message's mark is the
event's number and its place among them.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import NamedTuple

from sigmagraph.engine.errors import BadValue, UnknownJob
from sigmagraph.engine.jobs.events import Ended, JobEvent, is_last
from sigmagraph.engine.jobs.protocol import Jobs
from sigmagraph.engine.server.comfy import socket_messages

__all__ = ["NOTHING", "Away", "Mark", "messages_of", "read_marks", "retold"]

MOST_AWAY, MOST_JOBS = 1000, 1000
PAGE = 1000


class Mark(NamedTuple):
    """A message of a job: the number of its event, and which of the event's messages it is."""

    number: int
    place: int
    is_end: bool = False

    @property
    def position(self) -> tuple[int, int]:
        return self.number, self.place


NOTHING = (0, -1)
"""Before the first message."""
Position = tuple[int, int]
Told = dict[str, Position]


class Away:
    """What clients that left had heard of their jobs so far; those who left first are forgotten first."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], Told] = OrderedDict()

    def left(self, owner: str, sid: str, told: Told) -> None:
        """A client is gone."""
        self._known[owner, sid] = told
        if len(self._known) > MOST_AWAY:
            self._known.popitem(last=False)

    def missed(self, owner: str, sid: str, job_id: str) -> None:
        """Something of a job was to be told to a client that is not there."""
        told = self._known.get((owner, sid))
        if told is not None and len(told) < MOST_JOBS:
            told.setdefault(job_id, NOTHING)

    def back(self, owner: str, sid: str) -> Told:
        """A client is there again."""
        return self._known.pop((owner, sid), {})


def read_marks(texts: Iterable[str]) -> Told:
    """`JOB:NUMBER.PLACE`, the `event` of the last message heard, or `JOB` for all from the beginning."""
    told: Told = {}
    for text in texts:
        job_id, colon, position = text.rpartition(":")
        number, _, place = position.partition(".")
        if colon and job_id and _is_count(number) and _is_count(place):
            told[job_id] = int(number), int(place)
        elif text and not colon:
            told[text] = NOTHING
        else:
            raise BadValue("after", text[:200], "JOB:NUMBER.PLACE, or JOB")
    return told


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 16


def messages_of(narrator: socket_messages.Narrator, event: JobEvent) -> Sequence[tuple[socket_messages.Sent, Mark]]:
    """An event's messages with their marks; the last of all says that no node runs any more."""
    sent = narrator.tell(event)
    if isinstance(event.body, Ended) and narrator.has_begun:
        sent = [*sent, socket_messages.executing(event.job_id, None)]
    last = len(sent) - 1 if is_last(event) else -1
    return [(message, Mark(event.number, place, place == last)) for place, message in enumerate(sent)]


async def retold(
    jobs: Jobs, owner: str, sid: str, told: Mapping[str, Position]
) -> AsyncIterator[tuple[str, socket_messages.Sent, Mark]]:
    """What the client with this id has not heard of these jobs; another's jobs are passed over in silence."""
    for job_id, heard in told.items():
        try:
            job = await jobs.get(job_id, owner)
        except UnknownJob:
            continue
        if job.meta.get("client_id") != sid:
            continue
        narrator, after = socket_messages.Narrator(job_id, owner, sid), 0
        while events := await jobs.events(job_id, owner, after=after, limit=PAGE):
            for event in events:
                for sent, mark in messages_of(narrator, event):
                    if mark.position > heard:
                        yield job_id, sent, mark
            after = events[-1].number
