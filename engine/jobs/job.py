"""What a job is: its states, the legal moves between them, the records that describe it. Knows no store, no wire."""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from sigmagraph.engine.errors import BadValue, IllegalMove, as_bound
from sigmagraph.engine.graph.problems import Problem
from sigmagraph.engine.graph.workflow import Workflow
from sigmagraph.engine.jobs.webhooks.standard import signing_key

__all__ = [
    "ENDED",
    "FIELDS",
    "LARGEST",
    "LARGEST_COST",
    "LOCAL",
    "LONGEST_NAME",
    "OWNERS",
    "Accepted",
    "Failure",
    "Idempotency",
    "Job",
    "JobQuery",
    "MadeFile",
    "Outcome",
    "Page",
    "Request",
    "State",
    "Submission",
    "Webhook",
    "is_name",
    "move",
]

FIELDS = ("sampler", "schedule", "model", "seed")
"""By which inputs of its nodes a job is found."""
LOCAL = "local"
"""The owner of everything where no keys are in use."""
OWNERS = ".owners"
"""The folder, below one that is shared, with a folder for each owner."""


class State(StrEnum):
    """Where a job stands. The last four are ends: nothing leaves them.

    QUEUED --a worker takes it--> RUNNING --its run ends--> SUCCEEDED, FAILED or CANCELLED
      | ^                           |
      | +------ attempt lost -------+  (too often: FAILED; while it was to stop: CANCELLED)
      |
      +--> CANCELLED, EXPIRED, or FAILED where it can never run
    """

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_end(self) -> bool:
        """Whether the job is over."""
        return self in ENDED


ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED})
MOVES: Mapping[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLED, State.EXPIRED, State.FAILED}),
    State.RUNNING: frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.QUEUED}),  # queued: next attempt
    **{end: frozenset[State]() for end in ENDED},
}


def move(job_id: str, state: State, to: State) -> State:
    """The new state, or `IllegalMove`: the one place that decides."""
    if to not in MOVES[state]:
        raise IllegalMove(job_id, state, to)
    return to


LONGEST_NAME = 255
LONGEST_URL = 2048
HOST_LACKS = frozenset(' <>"|\\^`{}')
LARGEST = 2**31 - 1
LARGEST_COST = 10**15
MOST_OWN = 1000


def is_name(text: str) -> bool:
    """Whether both databases can hold it as an id or key: not empty, not long, no control characters, real text."""
    return 0 < len(text) <= LONGEST_NAME and text.isprintable()


def _named(place: str, text: str) -> None:
    if not is_name(text):
        raise BadValue(place, text[: LONGEST_NAME + 1], f"1 to {LONGEST_NAME} printable characters")


def _within(place: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:  # NaN is not within anything
        raise BadValue(place, value, f"{as_bound(low)} to {as_bound(high)}")


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A client's key for one submission; the same key with another body is refused. Remembered for 24 hours."""

    key: str
    digest: str

    def __post_init__(self) -> None:
        _named("idempotency key", self.key)

    @classmethod
    def of(cls, key: str, body: bytes) -> "Idempotency":
        """The key for this body."""
        return cls(key, hashlib.sha256(body).hexdigest())


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where to tell about a job's end; `secret` (`whsec_...`) signs the body as Standard Webhooks says."""

    url: str
    secret: str = ""

    def __post_init__(self) -> None:
        if not self.url.isprintable() or len(self.url) > LONGEST_URL:
            raise BadValue("webhook url", self.url[: LONGEST_URL + 1], f"at most {LONGEST_URL} printable characters")
        if not _has_host(self.url):
            raise BadValue("webhook url", self.url, "an address such as https://example.com/told")
        if self.secret:
            signing_key(self.secret)


def _has_host(url: str) -> bool:
    """Whether there is somebody to connect to: what lacks that is refused now, and not tried for hours."""
    try:
        parts = urlsplit(url)
        return parts.hostname is not None and HOST_LACKS.isdisjoint(parts.hostname) and parts.port != 0
    except ValueError:  # half an IPv6 address, a port that has letters
        return False


@dataclass(frozen=True, slots=True)
class Submission:
    """What a protocol asks for. `cost` (millionths of a credit) is reserved now and charged on success only.

    `number` orders an owner's jobs, smaller first (None: the running counter); `front` puts the job before all
    counter numbers. A larger `priority` goes before everything of a smaller one, whoever's it is; a larger
    `own_priority` before what the same owner sent with a smaller one. `meta` is the adapter's own
    (client id, endpoint): kept, never read here. A job not begun within `expires_s` seconds ends as expired.
    `shows` is a node that has to show pictures: a run that ends without any has failed. With `reuses_outputs` output
    nodes are not run again where what they wrote is still there.
    """

    workflow: Workflow
    owner: str = LOCAL
    job_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    targets: Sequence[str] | None = None
    extra_data: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    number: float | None = None
    front: bool = False
    priority: int = 0
    own_priority: int = 0
    cost: int = 0
    expires_s: float | None = None
    keep_s: float | None = None
    idempotency: Idempotency | None = None
    webhook: Webhook | None = None
    retry_of: str | None = None
    shows: str | None = None
    reuses_outputs: bool = False

    def __post_init__(self) -> None:
        _named("job id", self.job_id)
        _named("owner", self.owner)
        _within("number", self.number, -1e300, 1e300)
        _within("priority", self.priority, -LARGEST, LARGEST)
        _within("own_priority", self.own_priority, -MOST_OWN, MOST_OWN)
        _within("cost", self.cost, 0, LARGEST_COST)
        _within("expires_s", self.expires_s, 0, 1e9)
        _within("keep_s", self.keep_s, 0, 1e10)


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be run: the prompt in API form, the output nodes that can run, and what travels with it.

    `shows` is the node without whose pictures the run has failed; `reuses_outputs` is the submission's.
    """

    prompt: Mapping[str, Any]
    targets: Sequence[str]
    extra_data: Mapping[str, Any] = field(default_factory=dict)
    shows: str | None = None
    reuses_outputs: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed: a stable code, a message, and the place where a node was to blame."""

    code: str
    message: str
    node_id: str = ""
    class_type: str = ""
    exception_type: str = ""


def _counted(node_id: str) -> list[tuple[int, str]]:
    """Orders ids that count something: `a.2.b` before `a.10.b`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in node_id.split(".")]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt left: what nodes show (`ui` by node id), and per node class, outcome and milliseconds."""

    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    nodes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def shown_by(self, node_id: str) -> Mapping[str, Any]:
        """What a node of the prompt shows; of one in a loop, what its turns show, one behind the other."""
        if node_id in self.outputs:
            return self.outputs[node_id]
        turns = [i for i in self.outputs if self.nodes.get(i, {}).get("display_id") == node_id]
        shown: dict[str, list[Any]] = {}
        for turn in sorted(turns, key=_counted):
            for name, entries in self.outputs[turn].items():
                shown.setdefault(name, []).extend(entries if isinstance(entries, list | tuple) else ())
        return shown


@dataclass(frozen=True, slots=True)
class Job:
    """One accepted run as the store has it. Times are seconds since 1970; `events` is the last event's number.

    `request` and `outcome` are None where the caller asked for a list without them.
    """

    id: str
    owner: str
    state: State
    number: float
    priority: int
    attempt: int
    created_at: float
    started_at: float | None = None
    ended_at: float | None = None
    expires_at: float | None = None
    cancel_requested: bool = False
    worker: str = ""
    source: str = ""
    cost: int = 0
    events: int = 0
    retry_of: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    request: Request | None = None
    outcome: Outcome | None = None

    @property
    def is_withdrawn(self) -> bool:
        """Whether it was cancelled before it ever began."""
        return self.state is State.CANCELLED and self.attempt == 0

    @property
    def run_s(self) -> float | None:
        """Seconds from its last start to its end."""
        return None if self.started_at is None or self.ended_at is None else self.ended_at - self.started_at


@dataclass(frozen=True, slots=True)
class Accepted:
    """A submission that is committed. `problems` are those of outputs that will not run; a repeat made no new job."""

    job: Job
    problems: Sequence[Problem] = ()
    is_repeat: bool = False


@dataclass(frozen=True, slots=True)
class JobQuery:
    """Which jobs to list. `owner` None means everyone's; `by` is the column the order follows.

    `with_withdrawn` False leaves out what was cancelled before it ever began. `text` stands somewhere in the request's
    JSON, in any case of ASCII letters. `fields` say what an input of some node is (a model: what its name holds).
    Created from `since` on and before `until`, seconds since 1970. `longest_request` leaves out larger ones, by the
    characters of their JSON. `older_than` is the `created_at` and the id of a job: a page from there on is the same
    whatever came, or went, since that job was read. `sooner_than` is a priority and a number: what goes before those.
    """

    owner: str | None = None
    states: frozenset[State] | None = None
    source: str | None = None
    by: str = "created_at"
    newest_first: bool = True
    limit: int = 64
    offset: int = 0
    with_request: bool = False
    with_withdrawn: bool = True
    text: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    since: float | None = None
    until: float | None = None
    longest_request: int | None = None
    older_than: tuple[float, str] | None = None
    sooner_than: tuple[int, float] | None = None

    def __post_init__(self) -> None:
        _within("limit", self.limit, 0, LARGEST)
        _within("offset", self.offset, 0, LARGEST)
        _within("text", len(self.text), 0, LONGEST_NAME)
        for name, value in self.fields.items():
            if name not in FIELDS or not 0 < len(value) <= LONGEST_NAME:
                raise BadValue(
                    f"field {name}", value[:LONGEST_NAME], f"one of {', '.join(FIELDS)}, 1 to 255 characters"
                )


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list, and how many there are in all."""

    jobs: Sequence[Job]
    total: int


@dataclass(frozen=True, slots=True)
class MadeFile:
    """A file that a node of a job wrote, as the node names it; `seq` counts all files of the store."""

    seq: int
    job_id: str
    at: float
    node_id: str
    kind: str
    subfolder: str
    filename: str
