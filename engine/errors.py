"""Every exception the project raises on purpose, as one tree with stable codes.

    EngineError
    ├── UnknownName            a name no registry, folder or file knows; carries the nearest ones
    ├── DuplicateName          two parts registered under one name
    ├── BadValue               a value of the wrong type, out of range, or not allowed here
    ├── FileProblem
    │   ├── MissingFile        not there
    │   ├── RefusedFile        there, but of a kind we never open (a pickle, say)
    │   ├── CorruptFile        truncated, or its header contradicts its size
    │   ├── StaleFile          written to while it was in use
    │   ├── UnreadableImage    not a picture, too large, or damaged
    │   ├── WriteFailed        disk full, folder missing or read-only
    │   └── FetchFailed        the model hub could not be reached, or refused
    ├── ModelProblem
    │   ├── UnknownModel       the tensors fit no model family we know
    │   └── TensorMismatch     missing, surplus or misshapen tensors, listed
    ├── SamplingProblem
    │   ├── BadPrediction      NaN, infinity or a wrong shape, at a named step and sigma
    │   ├── BadSampler         a sampler's function that does not speak the protocol of requests and steps
    │   └── Cancelled          stopped on request between two evaluations
    ├── WorkflowProblem
    │   ├── BadDocument        not a workflow at all
    │   └── InvalidWorkflow    a workflow with problems; carries every one of them
    ├── JobProblem
    │   ├── UnknownJob         no job of that id, or another's
    │   ├── DuplicateJob       a job of that id is there already
    │   ├── IllegalMove        a job cannot go from this state to that one
    │   ├── IdempotencyConflict  the same key came with another request
    │   ├── NotAccepting       draining or stopping, too many jobs, or no worker to check the workflow
    │   │   └── QueueShareUsed   this owner has as many jobs waiting as one owner may
    │   ├── WorkerLost         the worker died or missed its step deadline
    │   ├── ClusterUnusable    the Ray cluster cannot be reached, or is of another version
    │   ├── StoreFailed        the database is full, locked, damaged or away; nothing was accepted
    │   └── StoreInUse         another server works on this database
    ├── AccountProblem
    │   ├── UnknownKey         wrong, revoked or of no account
    │   ├── InsufficientCredits  balance and cost are named
    │   └── SpendLimitReached  the account's own limit
    ├── ServerProblem          what a client of a server meets
    │   ├── ServerUnreachable  nobody answers at that address, or the connection broke
    │   └── ServerRefused      the server answered with an error, or its job failed; carries status and kind
    ├── NodeFailed             a node raised; carries node id, class and cause
    └── OutOfMemory            the device or the host ran out

A `code` never changes once released: clients match on it. Messages name the place, the value and what is allowed.
"""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from sigmagraph.engine.redaction import redacted, shortened, shown

ALLOCATORS_SAY = (  # each in the words of one allocator: torch's CPU, CUDA's, the libraries' behind it, MPS, mmap
    "can't allocate memory",
    "out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cannot allocate memory",
    "could not create a memory",
    "invalid buffer size",
)
LONGEST_NAME = 1000  # nobody mistyped more than that, and comparing takes time by the square


class EngineError(Exception):
    """The root: anything a user can cause. Programming mistakes are `AssertionError` and friends instead."""

    code = "engine_error"


_COMPARISONS: ContextVar[list[int] | None] = ContextVar("comparisons", default=None)


@contextmanager
def few_hints(comparisons: int = 20_000) -> Iterator[None]:
    """Within it, `nearest` compares so many names in all and then says None: a document may be wrong everywhere."""
    token = _COMPARISONS.set([comparisons])
    try:
        yield
    finally:
        _COMPARISONS.reset(token)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None where nothing comes close."""
    left = _COMPARISONS.get()
    if len(name) > LONGEST_NAME or (left is not None and left[0] <= 0):
        return None
    folded = {candidate.lower(): candidate for candidate in sorted(known)}
    if left is not None:
        left[0] -= len(folded)
        if left[0] < 0:
            return None
    matches = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    return folded[matches[0]] if matches else None


def suggestion(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'euler'?`, or nothing: the tail of every unknown-name message."""
    match = nearest(name, known)
    return f"; did you mean {match!r}?" if match is not None else ""


def with_article(noun: str) -> str:
    """`a string`, `an INT`: a type's name as messages say it."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def as_bound(value: float) -> str:
    """A bound as messages and tables say it: whole numbers to the last digit, others short."""
    return str(value) if isinstance(value, int) else f"{value:g}"


class UnknownName(EngineError, KeyError):
    """`name` is not a known `kind`; the message offers the nearest known name."""

    code = "unknown_name"

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, tuple(known)
        given: object = name  # of callers without a type checker
        self.nearest = nearest(name, self.known) if isinstance(given, str) else None
        super().__init__(kind, name)

    def __str__(self) -> str:
        hint = suggestion(self.name, self.known) if self.nearest is not None else ""
        listed = f" (known: {', '.join(sorted(self.known))})" if len(self.known) <= 12 else ""
        return f"{shown(self.name)} is not a known {shortened(self.kind)}{hint or listed}"


class DuplicateName(EngineError):
    """Two parts claim one name."""

    code = "duplicate_name"


class BadValue(EngineError, ValueError):
    """A value that cannot be used: the message is `place: value ..., allowed ...`; a secret is not repeated."""

    code = "bad_value"

    def __init__(self, place: str, value: object, allowed: str) -> None:
        self.place, self.value, self.allowed = shortened(place), redacted(place, value), allowed
        super().__init__(f"{self.place}: {shown(self.value)} is not allowed; expected {allowed}")


class FileProblem(EngineError):
    """Something about one file; `path` says which."""

    code = "file_problem"

    def __init__(self, path: object, message: str) -> None:
        self.path = str(path)
        super().__init__(f"{shortened(self.path)}: {message}")


class MissingFile(FileProblem):
    """The file is not there."""

    code = "missing_file"


class RefusedFile(FileProblem):
    """The file is of a kind that is never opened, whatever its name says."""

    code = "refused_file"


class CorruptFile(FileProblem):
    """The file contradicts itself: truncated, or its header lies."""

    code = "corrupt_file"


class StaleFile(FileProblem):
    """The file was written to while values that were made of it are in use."""

    code = "stale_file"


class UnreadableImage(FileProblem):
    """The file is not a picture we can decode within limits."""

    code = "unreadable_image"


class WriteFailed(FileProblem):
    """The file could not be written; nothing half-written was left behind."""

    code = "write_failed"


class FetchFailed(FileProblem):
    """A file could not be brought from the model hub."""

    code = "fetch_failed"


class ModelProblem(EngineError):
    """Something about weights as a model, not about the file as a file."""

    code = "model_problem"


class UnknownModel(ModelProblem):
    """The tensors belong to no model family we know."""

    code = "unknown_model"


class TensorMismatch(ModelProblem):
    """Tensors are missing, surplus or misshapen; the message lists them."""

    code = "tensor_mismatch"


class SamplingProblem(EngineError):
    """Something that went wrong while a solver ran."""

    code = "sampling_problem"


class BadPrediction(SamplingProblem):
    """The model returned NaN, infinity or a wrong shape; the message names step and sigma."""

    code = "bad_prediction"


class BadSampler(SamplingProblem):
    """A sampler's function does not speak the protocol; the message names what it gave and what is expected."""

    code = "bad_sampler"

    def __init__(self, name: str, given: object, expected: str) -> None:
        super().__init__(f"sampler {name} {given}; expected {expected}")


class BadSchedule(SamplingProblem):
    """A schedule's function is written wrong; the message names what it gave and what is expected."""

    code = "bad_schedule"

    def __init__(self, name: str, given: object, expected: str) -> None:
        super().__init__(f"schedule {name} {given}; expected {expected}")


class Cancelled(SamplingProblem):
    """Stopped on request."""

    code = "cancelled"


class WorkflowProblem(EngineError):
    """Something about a workflow document."""

    code = "workflow_problem"


class BadDocument(WorkflowProblem):
    """The document is not a workflow in any form we read."""

    code = "bad_document"


class InvalidWorkflow(WorkflowProblem):
    """The workflow was read but cannot run; `problems` holds every reason, one record each."""

    code = "invalid_workflow"

    def __init__(self, problems: Iterable[object]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class JobProblem(EngineError):
    """Something about a job as a job, not about what it runs."""

    code = "job_problem"


class UnknownJob(JobProblem, KeyError):
    """There is no job of that id, or it belongs to someone else: the two look the same."""

    code = "unknown_job"

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(job_id)

    def __str__(self) -> str:
        return f"there is no job {shown(self.job_id)}"


class DuplicateJob(JobProblem):
    """A job of that id is there already."""

    code = "duplicate_job"

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"a job {shown(job_id)} is there already")


class IllegalMove(JobProblem):
    """A job in this state cannot do that."""

    code = "illegal_move"

    def __init__(self, job_id: str, state: str, to: str) -> None:
        self.job_id, self.state, self.to = job_id, str(state), str(to)
        super().__init__(f"job {shown(job_id)} is {state}; it cannot become {to}")


class IdempotencyConflict(JobProblem):
    """The idempotency key was used for another request."""

    code = "idempotency_conflict"

    def __init__(self, key: str, job_id: str) -> None:
        self.key, self.job_id = key, job_id
        super().__init__(f"idempotency key {shown(key)} belongs to another request (job {job_id!r})")


class NotAccepting(JobProblem):
    """New jobs are not taken now; the message says why."""

    code = "not_accepting"


class QueueShareUsed(NotAccepting):
    """The owner's share of the queue is used up; others are served as before."""

    code = "queue_share_used"


class WorkerLost(JobProblem):
    """The worker died, missed its deadline, or cannot be reached."""

    code = "worker_lost"


class ClusterUnusable(JobProblem):
    """The machines that workers are to run on cannot be used; the message says what to do."""

    code = "cluster_unusable"

    def __init__(self, address: str, reason: str) -> None:
        self.address, self.reason = address, reason
        super().__init__(f"cluster {address}: {reason}")


class StoreFailed(JobProblem):
    """The database could not do it; nothing was half done."""

    code = "store_failed"


class StoreInUse(StoreFailed):
    """Another server works on this database."""

    code = "store_in_use"


class AccountProblem(EngineError):
    """Something about a key and its credits."""

    code = "account_problem"


class UnknownKey(AccountProblem):
    """The key is wrong, revoked, or of no account."""

    code = "unknown_key"


class InsufficientCredits(AccountProblem):
    """The balance, less what running jobs hold, does not cover the cost. Amounts are millionths of a credit."""

    code = "insufficient_credits"

    def __init__(self, available: int, cost: int) -> None:
        self.available, self.cost = available, cost
        super().__init__(f"Insufficient credits: {available / 1e6:g} available, this costs {cost / 1e6:g}")


class SpendLimitReached(AccountProblem):
    """The account's own limit of spending does not allow it. Amounts are millionths of a credit."""

    code = "spend_limit_reached"

    def __init__(self, spent: int, limit: int, cost: int) -> None:
        self.spent, self.limit, self.cost = spent, limit, cost
        super().__init__(f"Spend limit reached: {spent / 1e6:g} of {limit / 1e6:g} spent, this costs {cost / 1e6:g}")


class OutOfMemory(EngineError):
    """The device or the host has no memory left for this."""

    code = "out_of_memory"


class ServerProblem(EngineError):
    """What a client of a server meets."""

    code = "server_problem"


class ServerUnreachable(ServerProblem):
    """Nobody answers at `url`, or the connection broke."""

    code = "server_unreachable"

    def __init__(self, url: str, reason: str) -> None:
        self.url, self.reason = url, reason
        super().__init__(f"{url} cannot be reached: {reason}; `sigmagraph serve` starts a server")


class ServerRefused(ServerProblem):
    """The server answered a call with an error, or the job it made failed; `status` is HTTP's."""

    code = "server_refused"

    def __init__(self, place: str, status: int, kind: str, message: str) -> None:
        self.status, self.kind = status, kind
        super().__init__(f"{place}: {message}")


def is_out_of_memory(error: object) -> bool:
    """Whether an error says that a device or the host has no memory left, whichever library or allocator says so."""
    if isinstance(error, MemoryError | OutOfMemory) or type(error).__name__ == "OutOfMemoryError":
        return True
    said = str(error).lower() if isinstance(error, RuntimeError | OSError) else ""
    return any(words in said for words in ALLOCATORS_SAY)


class NodeFailed(EngineError):
    """A node raised while running; `__cause__` is the original exception."""

    code = "node_failed"

    def __init__(self, node_id: str, class_type: str, reason: str) -> None:
        self.node_id, self.class_type, self.reason = node_id, class_type, reason
        super().__init__(f"node {node_id} ({class_type}): {reason}")
