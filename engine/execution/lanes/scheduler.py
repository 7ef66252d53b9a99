"""Many runs at once over shared lanes: one thread for the device, some for the host, one event loop for async nodes.

State, all of it under one lock:
    _queue       jobs that are not admitted yet, by priority and arrival
    _tickets     jobs that are admitted and not over
Threads take work (`_next`), step it without the lock, and report back with it (`_stepped`). The device lane picks anew
after each step, so samplers of several jobs take turns between evaluations. A job has at most one node in the device
lane at a time, in the order its run gives, so its result is the same as if it ran alone. One that runs out of memory
there is tried once more with the device to itself.

What overlaps: B is short and comes while A samples. On one thread, one job after the other; and as it is here:

    one thread   A load | A sample          | A decode | A save   | B load | B sample | B decode | B save
    device lane  A load | A sample | B load | B sample | B decode | A sample, the rest | A decode
    host lane                                                     | B save                      | A save

B begins between two steps of A. The host's work of one job hides behind the device's of the other; within a job,
nothing overlaps what it waits for.
"""

import heapq
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import count
from queue import SimpleQueue
from threading import Condition, RLock, Thread
from typing import Any

from sigmagraph.engine.errors import Cancelled
from sigmagraph.engine.execution import events
from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.cache.result_store import ResultStore, as_store
from sigmagraph.engine.execution.calling.instances import Instances
from sigmagraph.engine.execution.calling.node_task import Around, NodeTask
from sigmagraph.engine.execution.lanes.async_loop import AsyncLoop
from sigmagraph.engine.execution.lanes.batching import answer_together
from sigmagraph.engine.execution.lanes.forecast import Forecast
from sigmagraph.engine.execution.lanes.policy import first
from sigmagraph.engine.execution.lanes.ticket import Ticket
from sigmagraph.engine.execution.report import Emit
from sigmagraph.engine.execution.run import Run
from sigmagraph.engine.execution.vertex import Vertex
from sigmagraph.engine.graph.node import Lane, Services
from sigmagraph.engine.graph.plan import Plan
from sigmagraph.engine.graph.results import Joinable, Progress

IDLE_S = 1.0
log = logging.getLogger(__name__)


class Scheduler:
    """Runs plans. `around` is entered round every step (`torch.inference_mode`); `free` is called when memory ran out.

    At most `most_jobs` are under way at once; the others wait in the order of priority and arrival. Up to
    `batch_evaluations` jobs of one priority share a call for what their nodes ask for (`Joinable`), samplers above all:
    that may change the last bits of their results.
    """

    def __init__(
        self,
        services: Services | None = None,
        cache: MemoryCache | ResultStore | None = None,
        *,
        host_threads: int = 4,
        batch_evaluations: int = 1,
        most_jobs: int = 16,
        around: Around = nullcontext,
        free: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.services, self.store, self.most_jobs = services, as_store(cache), most_jobs
        self.instances = Instances()
        self._around, self._free, self._clock = around, free, clock
        self._most_together = batch_evaluations
        self._changed = RLock()
        self._idle: dict[Lane, Condition] = {"device": Condition(self._changed), "host": Condition(self._changed)}
        self._queue: list[tuple[tuple[int, int], Ticket]] = []
        self._tickets: list[Ticket] = []
        self._stepping: set[Ticket] = set()
        self._arrivals = count()
        self._loop = AsyncLoop()
        self._is_closing = False
        self._forecast = Forecast()
        self._over: SimpleQueue[Ticket | None] = SimpleQueue()
        lanes: list[Lane] = ["device", *(["host"] * host_threads)]  # type: ignore[list-item]  # a literal, repeated
        self._lanes = [Thread(target=self._work, args=(lane,), name=f"{lane} lane", daemon=True) for lane in lanes]
        self._delivery = Thread(target=self._deliver, name="delivery", daemon=True)
        for thread in (*self._lanes, self._delivery):
            thread.start()

    # -- for callers ---------------------------------------------------------------------------------------------

    def submit(
        self,
        plan: Plan,
        emit: Emit = lambda event: None,
        *,
        priority: int = 0,
        extra_data: Mapping[str, Any] | None = None,
        services: Services | None = None,
        reuses_outputs: bool = False,
    ) -> Ticket:
        """Queue a run. `emit` is called from the lanes' threads, must return soon, and must not call back.

        `services` are the ones of this job's owner, where owners have folders of their own. With `reuses_outputs` an
        output node whose files are still there is not run again.
        """
        own, tell = services or self.services, partial(_tell, emit)
        run = Run(plan, own, self.store, tell, extra_data or {}, self._notify, reuses_outputs)
        with self._changed:
            ticket = Ticket(run, priority, next(self._arrivals), arrived_s=self._clock())
            heapq.heappush(self._queue, (ticket.order, ticket))
            self._admit()
        return ticket

    def withdraw(self, ticket: Ticket) -> None:
        """Stop a job: at once where it waits, else at its next progress report."""
        with self._changed:
            ticket.is_withdrawn = True
            ticket.run.give_up()
            for future in list(ticket.waiting):
                future.cancel()
            self._unqueue(ticket)
            self._end_if_over(ticket)
            self._wake()

    def waiting(self) -> list[Ticket]:
        """The jobs whose turn it is not: nothing of them is being worked on, on any thread or in async code."""
        with self._changed:
            admitted = [ticket for ticket in self._tickets if ticket not in self._stepping and ticket.waits_for_a_turn]
            return [*admitted, *(ticket for _, ticket in self._queue)]

    def close(self) -> None:
        """Cancel what is left, stop the threads, write the cache."""
        with self._changed:
            self._is_closing = True
            for ticket in [*self._tickets, *(ticket for _, ticket in self._queue)]:
                self.withdraw(ticket)
            self._wake()
        for thread in self._lanes:
            thread.join()
        self._over.put(None)
        self._delivery.join()
        self._loop.close()
        self.store.close()

    # -- lanes ---------------------------------------------------------------------------------------------------

    def _work(self, lane: Lane) -> None:
        """What each thread does until the end."""
        while (taken := self._take(lane)) is not None:
            ticket, task = taken
            if lane == "device" and task.asked is not None and self._most_together > 1:
                self._join(ticket, task.asked)
                continue
            if ticket.needs_alone and lane == "device" and not task.is_begun:
                self._make_room()
            task.step(self._around)
            while lane == "host" and task.outcome is None and task.pending is None:
                task.step(self._around)
            self._stepped(ticket, task)

    def _join(self, leader: Ticket, asked: Joinable) -> None:
        """Do what several jobs ask for in one call, then a step of each."""
        with self._changed:
            group = [(leader, leader.device_task), *((mate, mate.device_task) for mate in self._mates(leader, asked))]
            self._stepping = {ticket for ticket, _ in group}
        members = [(ticket, task) for ticket, task in group if task is not None]
        if len(members) > 1:
            answer_together([task for _, task in members], self._around, self._clock)
        for ticket, task in members:
            task.step(self._around)
            self._stepped(ticket, task)

    def _mates(self, leader: Ticket, asked: Joinable) -> list[Ticket]:
        """Who else asks for work that can be done in the same call, first come first."""
        alike = [
            ticket
            for ticket in sorted(self._tickets, key=lambda ticket: ticket.order)
            if ticket is not leader
            and ticket.priority == leader.priority
            and not ticket.is_stopping
            and ticket.asks(asked.key)
        ]
        return alike[: self._most_together - 1]

    def _make_room(self) -> None:
        self.store.clear()
        self._free()

    def _take(self, lane: Lane) -> tuple[Ticket, NodeTask] | None:
        """Wait for work; None at the very end."""
        with self._changed:
            self._stepping = set() if lane == "device" else self._stepping
            while True:
                taken = self._next_on_device() if lane == "device" else self._next_on_host()
                if taken is not None:
                    self._wake_another(lane)
                    return taken
                if self._is_closing and not self._tickets:
                    return None
                self._idle[lane].wait(IDLE_S)

    def _wake(self) -> None:
        """Something changed: wake whom it may concern. Of the host's threads one; it wakes another if there is more.

        A thread that wakes for nothing takes the interpreter from the one that works.
        """
        if self._is_closing:
            for idle in self._idle.values():
                idle.notify_all()
            return
        if any(ticket.wants_device() for ticket in self._tickets):
            self._idle["device"].notify()
        if any(ticket.wants_host() or ticket.is_left for ticket in self._tickets):
            self._idle["host"].notify()

    def _wake_another(self, lane: Lane) -> None:
        """One thread has its work; there may be some for the next."""
        if lane == "host" and any(ticket.wants_host() for ticket in self._tickets):
            self._idle["host"].notify()

    def _next_on_host(self) -> tuple[Ticket, NodeTask] | None:
        for ticket in sorted(self._tickets, key=lambda queued: queued.order):
            with _guarded(ticket):
                if (resumed := ticket.take_resumed("host")) is not None:
                    return ticket, resumed
                vertex = ticket.run.take("host")
                if vertex is not None:
                    return ticket, self._task(ticket, vertex)
            self._end_if_over(ticket)
        return None

    def _next_on_device(self) -> tuple[Ticket, NodeTask] | None:
        """The claimant that is first by policy; taking may show that its work is done or somebody's already."""
        while wanting := [ticket for ticket in self._tickets if ticket.wants_device()]:
            ticket = self._first(wanting)
            with _guarded(ticket):
                if ticket.device_task is None:
                    ticket.device_task = ticket.take_resumed("device")
                if ticket.device_task is None and (vertex := ticket.run.take("device")) is not None:
                    ticket.begun(self._task(ticket, vertex))
            if ticket.device_task is not None:
                self._stepping = {ticket}
                return ticket, ticket.device_task
            self._end_if_over(ticket)
        return None

    def _first(self, wanting: list[Ticket]) -> Ticket:
        """One that ran out of memory waits until nobody else is half-way through a node, then has the device alone."""
        if any(ticket.needs_alone for ticket in wanting):
            begun = [ticket for ticket in wanting if ticket.device_task is not None]
            wanting = begun or [ticket for ticket in wanting if ticket.needs_alone]
        if len(wanting) == 1:
            return wanting[0]
        now = self._clock()
        claims = {ticket.claim(now, self._forecast): ticket for ticket in wanting}
        return claims[first(claims)]

    def _task(self, ticket: Ticket, vertex: Vertex) -> NodeTask:
        report = partial(self._report, ticket.run, vertex)
        gathers = self._most_together > 1 and vertex.node.lane == "device"
        task = NodeTask(ticket.run, vertex, self.instances, lambda: ticket.is_stopping, report, self._clock, gathers)
        task.usual_pace_s = self._forecast.pace_s(vertex.node.class_type)
        ticket.active.add(task)
        return task

    def _report(self, run: Run, vertex: Vertex, said: Progress) -> None:
        with self._changed:
            if not run.is_over:
                run.emit(events.NodeProgress(vertex.id, said.value, said.maximum, said.preview))

    # -- after a step --------------------------------------------------------------------------------------------

    def _stepped(self, ticket: Ticket, task: NodeTask) -> None:
        """Put the task where it belongs now. Nobody needs to wake up for a step that leaves it where it was."""
        on_device, is_retry = ticket.device_task is task, task.is_out_of_memory and task.vertex.attempts == 0
        if is_retry and not on_device:
            self._make_room()
        with self._changed:
            self._forecast.learn_pace(task)
            if task.pending is not None:
                self._park(ticket, task)
            elif is_retry and not ticket.run.is_over:
                ticket.ended(task)
                ticket.needs_alone = on_device
                ticket.run.again(task.vertex)
            elif task.outcome is not None:
                if on_device:
                    ticket.needs_alone = ticket.needs_alone and not task.vertex.attempts  # until the second try is over
                    self._forecast.learn_whole(task)
                self._finish(ticket, task)
            else:
                return
            self._wake()

    def _park(self, ticket: Ticket, task: NodeTask) -> None:
        """Wait for async work off the lane."""
        assert task.pending is not None
        if ticket.device_task is task:
            ticket.device_task = None
        future = self._loop.submit(task.pending.work)
        ticket.waiting[future] = task
        future.add_done_callback(partial(self._resume, ticket))
        if ticket.run.is_over:
            future.cancel()

    def _resume(self, ticket: Ticket, future: "Future[list[Any]]") -> None:
        """Async work ended. What is left is to read its results, or to call the node, which is a lane's work."""
        with self._changed:
            task = ticket.waiting.pop(future)
            assert task.pending is not None
            if future.cancelled() or ticket.run.is_over:
                task.close()
                task.outcome = Cancelled(f"stopped on request in node {task.vertex.id}")
            elif (error := future.exception()) is not None:
                task.outcome = error
            elif task.pending.is_last:
                task.resume(future.result())
                task.step(self._around)
            else:
                task.resume(future.result())
                ticket.resumed.append(task)
            if task.outcome is not None:
                self._finish(ticket, task)
            self._wake()

    def _finish(self, ticket: Ticket, task: NodeTask) -> None:
        ticket.ended(task)
        task.report_end()
        self._end_if_over(ticket)

    # -- beginning and end ---------------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Begin queued jobs while there is room."""
        while self._queue and len(self._tickets) < self.most_jobs:
            _, ticket = heapq.heappop(self._queue)
            self._tickets.append(ticket)
            if len(self.instances):
                places = (
                    (i, v.node.class_type) for admitted in self._tickets for i, v in admitted.run.plan.nodes.items()
                )
                self.instances.keep_only(set(places))
            with _guarded(ticket):
                ticket.run.start()
                ticket.look_ahead()
            self._remove_if_over(ticket)
        self._wake()

    def _unqueue(self, ticket: Ticket) -> None:
        """Deliver a job that was cancelled before it began."""
        left = [entry for entry in self._queue if entry[1] is not ticket]
        if len(left) < len(self._queue):
            heapq.heapify(left)
            self._queue = left
            self._over.put(ticket)

    def _end_if_over(self, ticket: Ticket) -> None:
        """Let the next job in when one leaves."""
        if self._remove_if_over(ticket):
            self._admit()

    def _remove_if_over(self, ticket: Ticket) -> bool:
        """Hand the job over for delivery once no thread works on it any more."""
        if not ticket.run.is_over or ticket.active or ticket not in self._tickets:
            return False
        self._tickets.remove(ticket)
        if ticket.run.error is None:
            ticket.run.emit(events.RunSucceeded())
        if self.store.is_flushed:
            ticket.future.set_result(ticket.run.result())
        else:
            self._over.put(ticket)
        return True

    def _deliver(self) -> None:
        """Results go out once what they left in the cache is on disk."""
        while (ticket := self._over.get()) is not None:
            self.store.flush()
            ticket.future.set_result(ticket.run.result())

    def _notify(self) -> None:
        with self._changed:
            self._wake()


@contextmanager
def _guarded(ticket: Ticket) -> Iterator[None]:
    """Whatever goes wrong while a job's next node is looked for ends that job, and no lane."""
    try:
        yield
    except Exception as error:
        log.exception("the engine failed at a job")
        ticket.run.break_off(error)


def _tell(emit: Emit, event: events.Event) -> None:
    """A listener that fails must not stop a lane: whatever it raises is logged, and the run goes on."""
    try:
        emit(event)
    except Exception:  # whose code it is, is not known here
        log.exception("a listener failed on %s", type(event).__name__)
