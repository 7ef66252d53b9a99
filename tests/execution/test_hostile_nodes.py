"""Node code that ends in ways nobody plans for costs its own job: no lane, no event loop, no other job."""

import asyncio
import sys
import threading
from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Generator, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any

import pytest

from sigmagraph.engine.errors import MissingFile, NodeFailed
from sigmagraph.engine.execution.cache.memory import Entry, MemoryCache
from sigmagraph.engine.execution.cache.result_store import ResultStore
from sigmagraph.engine.execution.calling.instances import Instances
from sigmagraph.engine.execution.inline import execute
from sigmagraph.engine.execution.lanes import scheduler as scheduler_module
from sigmagraph.engine.execution.lanes.scheduler import Scheduler
from sigmagraph.engine.execution.run import Run
from sigmagraph.engine.graph.comfy.comfy_class import from_class
from sigmagraph.engine.graph.node import FileIn, Node, Progress, node
from sigmagraph.engine.graph.plan import Plan, plan
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.results import Joinable
from sigmagraph.engine.graph.validate import validate
from tests.execution.running import with_nodes
from tests.graph.small import Anything, checked, prompt


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scheduler]:
    """Threads that sleep until they are woken: one that nobody wakes is a job that does not end."""
    monkeypatch.setattr(scheduler_module, "IDLE_S", 3600.0)
    made = Scheduler()
    yield made
    made.close()


def class_of(method: Callable[..., Any], **attributes: Any) -> Node:
    """A node class of the convention with this method."""
    made = {
        "RETURN_TYPES": ("INT",),
        "FUNCTION": "run",
        "INPUT_TYPES": classmethod(lambda cls: {"required": {}}),
        "run": method,
    }
    return from_class(type("Hostile", (), made | attributes), method.__name__)


def plan_of(*nodes: Node) -> Plan:
    """The first of the nodes, and an output behind it."""
    document = prompt(n=(nodes[0].class_type, {"value": 1}), s=("Show", {"value": ["n", 0]}))
    return plan(checked(document, with_nodes(*nodes)))


def cancels_itself(self: Any) -> Any:
    raise asyncio.CancelledError


def leaves_a_generator(self: Any) -> Any:
    raise GeneratorExit


def exits(self: Any) -> Any:
    sys.exit(3)


def is_interrupted(self: Any) -> Any:
    raise KeyboardInterrupt


async def awaits_what_was_cancelled(self: Any) -> Any:
    other = asyncio.ensure_future(asyncio.sleep(10))
    other.cancel()
    await other


async def exits_while_it_waits(self: Any) -> Any:
    await asyncio.sleep(0)
    sys.exit(3)


async def is_interrupted_while_it_waits(self: Any) -> Any:
    await asyncio.sleep(0)
    raise KeyboardInterrupt


async def waits_a_moment(self: Any) -> Any:
    await asyncio.sleep(0)
    return (7,)


SYNC = [cancels_itself, leaves_a_generator, exits, is_interrupted]
ASYNC = [awaits_what_was_cancelled, exits_while_it_waits, is_interrupted_while_it_waits]


@pytest.mark.parametrize("method", [*SYNC, *ASYNC])
def test_however_a_node_ends_its_job_fails_and_the_next_one_runs(method: Any, scheduler: Scheduler) -> None:
    bad = scheduler.submit(plan_of(class_of(method))).wait(20)
    assert isinstance(bad.error, NodeFailed)
    assert bad.error.node_id == "n"
    good = scheduler.submit(plan_of(class_of(waits_a_moment))).wait(20).or_raise()
    assert good.ui["s"] == {"shown": [7]}


@pytest.mark.parametrize("method", [awaits_what_was_cancelled, exits_while_it_waits])
def test_the_inline_driver_fails_such_a_run_too(method: Any) -> None:
    assert isinstance(execute(plan_of(class_of(method))).error, NodeFailed)


def test_a_keyboard_interrupt_on_the_main_thread_is_the_users() -> None:
    with pytest.raises(KeyboardInterrupt):
        execute(plan_of(class_of(is_interrupted)))


def test_a_node_that_was_asked_asynchronously_is_called_in_its_lane(scheduler: Scheduler) -> None:
    """Not on the event loop's thread, where it would hold up all that waits, and with its steps between two reports."""
    threads: list[str] = []

    async def needs_nothing(self: Any) -> list[str]:
        await asyncio.sleep(0)
        return []

    def steps(self: Any) -> Generator[Progress, None, tuple[int]]:
        for done in range(3):
            threads.append(threading.current_thread().name)
            yield Progress(done + 1, 3)
        return (5,)

    result = scheduler.submit(plan_of(class_of(steps, check_lazy_status=needs_nothing))).wait(20).or_raise()
    assert result.ui["s"] == {"shown": [5]}
    assert threads == ["device lane"] * 3


def test_a_job_cancelled_between_its_question_and_its_call_ends() -> None:
    called = threading.Event()
    asked = threading.Event()

    async def needs_nothing(self: Any) -> list[str]:
        asked.set()
        await asyncio.sleep(10)
        return []

    def is_called(self: Any) -> tuple[int]:
        called.set()
        return (5,)

    scheduler = Scheduler()
    ticket = scheduler.submit(plan_of(class_of(is_called, check_lazy_status=needs_nothing)))
    assert asked.wait(10)
    scheduler.withdraw(ticket)
    assert ticket.wait(20).is_cancelled
    assert not called.is_set()
    scheduler.close()


@node("Offers", category="test", lane="device")
def offers(*, value: int = 0) -> Generator[Any, Any, int]:
    """Offers work four times, and is given too few answers where several ask."""
    total = 0
    yield Progress(0, 4)
    for done in range(4):
        offer = Joinable("k", value, _too_few)
        answer = yield offer
        total += offer.alone() if answer is None else int(answer)
        yield Progress(done + 1, 4)
    return total


def _too_few(values: Sequence[Any]) -> list[Any]:
    return list(values)[:1]


def test_a_shared_call_with_too_few_answers_is_made_again_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    opened = threading.Event()

    @node("Hold", category="test", lane="device")
    def hold(*, value: int = 0) -> int:
        """Holds the lane until everyone has come."""
        opened.wait(10)
        return value

    made = with_nodes(offers, hold)
    scheduler = Scheduler(batch_evaluations=4)
    first = scheduler.submit(plan(checked(prompt(h=("Hold", {"value": 1}), s=("Show", {"value": ["h", 0]})), made)))
    plans = [prompt(o=("Offers", {"value": i}), s=("Show", {"value": ["o", 0]})) for i in range(3)]
    tickets = [scheduler.submit(plan(checked(written, made))) for written in plans]
    opened.set()
    assert first.wait(20).error is None
    assert [ticket.wait(20).or_raise().ui["s"]["shown"] for ticket in tickets] == [[0], [4], [8]]
    assert "1 answers to 3 questions" in caplog.text
    scheduler.close()


class Unreadable:
    """Something with elements that cannot even be compared."""

    nbytes, shape, dtype = 4, (1,), "odd"

    def copy(self) -> "Unreadable":
        return self

    def __ne__(self, other: object) -> bool:
        raise RuntimeError("cannot be compared")

    __hash__ = None  # type: ignore[assignment]  # as arrays have none


def test_a_value_that_cannot_be_looked_at_is_not_kept_and_whoever_waits_for_it_makes_his_own(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    entered, opened = threading.Event(), threading.Event()

    @node("Odd", category="test")
    def odd(*, value: int = 0) -> Anything:
        """Gives what cannot be looked at."""
        entered.set()
        opened.wait(10)
        return Unreadable()

    first = scheduler.submit(plan_of(odd))
    assert entered.wait(10)
    second = scheduler.submit(plan_of(odd))
    opened.set()
    outcomes = [ticket.wait(20).or_raise().nodes["n"].outcome for ticket in (first, second)]
    assert outcomes == ["executed", "executed"]
    assert "a result is not kept: RuntimeError: cannot be compared" in caplog.text


def test_a_value_that_contains_itself_is_kept_like_any_other() -> None:
    @node("Ring", category="test")
    def ring(*, value: int = 0) -> Anything:
        """A list in itself."""
        made: list[Any] = [value]
        made.append(made)
        return made

    cache = MemoryCache()
    assert execute(plan_of(ring), None, cache).error is None
    assert execute(plan_of(ring), None, cache).nodes["n"].outcome == "memory"


def test_a_result_that_appears_while_a_lane_looks_for_work_wakes_the_other_lane() -> None:
    """The host lane finds what another job made meanwhile; what reads it is for the device lane, which sleeps."""

    @node("Load", category="test")
    def load(*, value: int = 0) -> int:
        """Host work."""
        return value

    @node("Use", category="test", lane="device")
    def use(*, value: int = 0) -> int:
        """Device work behind it."""
        return value

    document = prompt(l=("Load", {"value": 1}), u=("Use", {"value": ["l", 0]}), s=("Show", {"value": ["u", 0]}))
    made, store, woken = plan(checked(document, with_nodes(load, use))), ResultStore(), []
    run = Run(made, None, store, lambda event: None, {}, lambda: woken.append(True))
    run.start()
    store.keep(made.key("l"), Entry(([1],)))
    assert run.peek("device") is None
    assert run.take("host") is None
    assert run.peek("device") is not None
    assert woken


# -- values that somebody goes on writing into


class Accumulates:
    """Hands out what it keeps, and writes into it in its next call: many packs do."""

    RETURN_TYPES = ("LIST", "BYTES")
    FUNCTION = "run"
    INPUT_TYPES = classmethod(lambda cls: {"required": {"x": ("INT",)}})

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.raw = bytearray()

    def run(self, x: int) -> Any:
        self.seen.append(x)
        self.raw.append(x)
        return {"ui": {"seen": self.seen}, "result": (self.seen, self.raw)}


class Containers:
    """Every kind of container."""

    RETURN_TYPES = ("*",)
    FUNCTION = "run"
    INPUT_TYPES = classmethod(lambda cls: {"required": {}})
    Pair = namedtuple("Pair", "one other")

    def run(self) -> Any:
        plain: list[Any] = [{}, [], OrderedDict(), defaultdict(int), deque(), set(), bytearray()]
        return ([*plain, self.Pair([], {})],)


class EditsThemAll:
    """Writes into everything it is given."""

    RETURN_TYPES = ("INT",)
    FUNCTION = "run"
    INPUT_TYPES = classmethod(lambda cls: {"required": {"values": ("*",)}})

    def run(self, values: Any) -> Any:
        for value in values:
            self.edit(value)
        return (len(values),)

    def edit(self, value: Any) -> None:
        match value:
            case dict():
                value["edited"] = 1
            case list() | deque() | bytearray():
                value.append(1)
            case set():
                value.add(1)
            case tuple():
                self.run(value)


def test_what_an_object_writes_into_what_it_returned_does_not_reach_the_cache() -> None:
    nodes, cache, instances = with_nodes(from_class(Accumulates, "Accumulates")), MemoryCache(), Instances()

    def shown(x: int) -> tuple[Any, str]:
        document = prompt(a=("Accumulates", {"x": x}), s=("Show", {"value": ["a", 0]}), t=("Show", {"value": ["a", 1]}))
        result = execute(plan(checked(document, nodes)), None, cache, instances=instances).or_raise()
        return dict(result.ui), result.nodes["a"].outcome

    first, _ = deepcopy(shown(1))
    shown(2)
    assert shown(1) == (first, "memory")


def test_no_kind_of_container_can_be_edited_for_others() -> None:
    nodes = with_nodes(from_class(Containers, "Containers"), from_class(EditsThemAll, "EditsThemAll"))
    document = prompt(
        c=("Containers", {}),
        e=("EditsThemAll", {"values": ["c", 0]}),
        z=("Show", {"value": ["e", 0]}),
        s=("Show", {"value": ["c", 0]}),
    )
    (values,) = execute(plan(checked(document, nodes))).or_raise().ui["s"]["shown"]
    assert len(values) == 8
    assert not any(values[:7])
    assert values[7] == ([], {})


# -- files that change under way


class Shelf:
    """Files by name; their text is their digest."""

    def __init__(self, texts: dict[str, str]) -> None:
        self.texts = texts

    def files(self, folder: str) -> list[str]:
        return list(self.texts)

    def path(self, folder: str, name: str) -> Path:
        return Path(name)

    def lacking(self, vertices: object) -> list[object]:
        return []

    def content_hash(self, path: Path, like: str | None = None) -> str:
        if path.name not in self.texts:
            raise MissingFile(path, "gone")
        return self.texts[path.name]


@pytest.mark.parametrize("changed", [{"a": "new"}, {}])
def test_what_was_made_from_a_file_that_changed_after_planning_is_not_kept(changed: dict[str, str]) -> None:
    """Neither the node that read it nor what stands behind it, under a key that tells of another content."""
    texts = {"a": "old"}

    @node("Read", category="test")
    def read(*, name: Annotated[str, FileIn("input")]) -> str:
        """The file's text."""
        return texts.get(name, "gone")

    nodes, cache = with_nodes(read), MemoryCache()
    shelf: Any = Shelf(texts)
    document = prompt(
        r=("Read", {"name": "a"}),
        j=("Join", {"first": ["r", 0], "second": "!"}),
        s=("Show", {"value": ["j", 0]}),
    )

    def made() -> Plan:
        return plan(validate(parse_workflow(document), nodes, shelf), shelf)

    late = made()
    texts.clear()
    texts.update(changed)
    result = execute(late, shelf, cache).or_raise()
    assert result.nodes["r"].outcome == result.nodes["j"].outcome == "executed"
    texts["a"] = "old"
    again = execute(made(), shelf, cache).or_raise()
    assert again.ui["s"] == {"shown": ["old!"]}
    assert execute(made(), shelf, cache).or_raise().nodes["j"].outcome == "memory"
