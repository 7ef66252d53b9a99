"""Whatever happens to a server that samples: every accepted job ends exactly once, and is what it would have been.

Run with `pytest -m slow tests/e2e/disasters`; SIGMAGRAPH_JOBS and SIGMAGRAPH_KILLS make it smaller.
"""

import os
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.disasters.mixed import mixed, undisturbed
from tests.e2e.disasters.processes import Receiver, Server, disturb, lost_attempts, wait_for

pytestmark = pytest.mark.slow

JOBS, KILLS = (int(os.environ.get(f"SIGMAGRAPH_{name}", usual)) for name, usual in (("JOBS", 40), ("KILLS", 30)))
OURS = "source in ('workflows', 'replay')"  # the server sends itself a job to warm up


class Customer:
    """Submits jobs from a thread of its own, by two routes, whatever happens; `pause` is in starts of the server."""

    def __init__(self, server: Server, count: int, webhook: str, pause: float) -> None:
        self.server, self.count, self.webhook, self.pause_s = server, count, webhook, pause * server.start_s
        self.accepted: dict[str, int] = {}
        self._thread = ThreadPoolExecutor(1)

    def __enter__(self) -> "Customer":
        self._work = self._thread.submit(self._submit_all)
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()
        self._work.result()

    def _submit_all(self) -> None:
        for at in range(self.count):
            self._submit(at)
            time.sleep(self.pause_s)

    def _submit(self, at: int) -> None:
        webhook = {"webhook": {"url": self.webhook, "secret": "whsec_" + "A" * 32}}
        if at % 2:
            answer = self.server.insist("/replay", {"workflow": mixed(at), "wait_s": 0, **webhook}, f"job {at}")
        else:
            self.server.insist(f"/workflows/job{at}", {"workflow": mixed(at)}, "not looked at")
            answer = self.server.insist(f"/workflows/job{at}/run", webhook, f"job {at}")
        assert answer["job_id"] not in self.accepted
        self.accepted[answer["job_id"]] = at


def settle(server: Server, receiver: Receiver, accepted: dict[str, int], timeout_s: float) -> None:
    """Until all have ended and are told of."""
    ended = "select count(*) from jobs where state in ('queued', 'running')"
    wait_for(lambda: server.rows(ended) == [(0,)], timeout_s)
    wait_for(lambda: set(receiver.heard) == set(accepted), 120)


def check(server: Server, receiver: Receiver, accepted: dict[str, int], may_fail: str = "") -> Counter[str]:
    """Every accepted job ended once, is told of under one id, and its pictures are the undisturbed ones."""
    states = dict(server.rows(f"select id, state from jobs where {OURS}"))
    assert set(states) == set(accepted)
    ended = (
        f"select job_id, count(*) from events join jobs on id = job_id where type = 'ended' and {OURS} group by job_id"
    )
    assert dict(server.rows(ended)) == dict.fromkeys(accepted, 1)
    assert {job_id: len(set(ids)) for job_id, ids in receiver.heard.items()} == dict.fromkeys(accepted, 1)
    out = server.home / "out"
    for job_id, at in accepted.items():
        entry = server.call(f"/history/{job_id}")[job_id]
        made = sorted(out.glob(f"job{at:02}x*"))
        if states[job_id] == "failed" and may_fail:
            assert may_fail in str(entry["status"]), entry["status"]
            continue
        assert states[job_id] == "succeeded", (at, entry["status"])
        calm = undisturbed(server.home, mixed(at))
        shown = [image["filename"] for image in entry["outputs"]["7"]["images"]]
        assert [(out / name).read_bytes() for name in shown] == calm, at
        assert {path.read_bytes() for path in made} == set(calm), at  # nothing half-written, nothing else
    assert not list((server.home / "temp").rglob("*.part"))
    return Counter(states.values())


def test_forty_jobs_outlive_thirty_kills(server: Server, receiver: Receiver, webhook: str) -> None:
    def kill_server() -> None:
        assert server.end(signal.SIGKILL) == -signal.SIGKILL
        server.start()

    with Customer(server, JOBS, webhook, pause=0.6) as customer:
        disturb(server, KILLS, [lambda: server.signal_worker(signal.SIGKILL), kill_server], 2.5)
    settle(server, receiver, customer.accepted, 600)
    assert check(server, receiver, customer.accepted) == {"succeeded": JOBS}
    assert lost_attempts(server) >= KILLS // 3  # the kills did hit running jobs


def test_jobs_outlive_being_told_to_stop(server: Server, receiver: Receiver, webhook: str) -> None:
    """SIGTERM stops the server in good order, its running job cut short; a worker leaves the signal to its server."""

    def stop_server() -> None:
        assert server.end(signal.SIGTERM) == 0
        server.start()

    with Customer(server, JOBS * 2 // 5, webhook, pause=0.3) as customer:
        disturb(server, KILLS // 2, [lambda: server.signal_worker(signal.SIGTERM), stop_server], 2.0)
    stop_while_it_samples(server, stop_server)
    settle(server, receiver, customer.accepted, 600)
    assert check(server, receiver, customer.accepted) == {"succeeded": len(customer.accepted)}


def stop_while_it_samples(server: Server, stop_server: Callable[[], None]) -> None:
    """A job with far more to do than the half second a stop waits is stopped at its first steps, whatever came before.

    Its attempt is lost for sure, and the next one ends it.
    """
    graph = mixed(0)
    graph["5"]["inputs"]["steps"], graph["7"]["inputs"]["filename_prefix"] = 2000, "stopped"
    job_id = str(uuid.uuid4())
    server.call("/prompt", {"prompt": graph, "prompt_id": job_id})
    seen = f"select count(*) from events where job_id = '{job_id}' and type = "
    wait_for(lambda: server.rows(seen + "'node_progress'") != [(0,)], 300)
    stop_server()
    assert server.rows(seen + "'requeued'") == [(1,)]
    wait_for(lambda: server.rows(seen + "'ended'") == [(1,)], 300)
    assert server.rows(f"select state from jobs where id = '{job_id}'") == [("succeeded",)]


def test_jobs_outlive_a_disk_that_fills_up(server: Server, receiver: Receiver, webhook: str) -> None:
    """A picture that finds no room fails its job with the reason; submissions wait; everything else goes on."""

    def fill_for_a_while() -> None:
        with server.full_disk():
            time.sleep(4.0)

    def fill_and_kill() -> None:
        with server.full_disk():
            time.sleep(1.0)
            server.signal_worker(signal.SIGKILL)
            time.sleep(0.5)
            server.end(signal.SIGKILL)
        server.start()

    with Customer(server, JOBS * 2 // 5, webhook, pause=0.3) as customer:
        disturb(server, KILLS // 3, [fill_for_a_while, fill_and_kill], 2.0)
    settle(server, receiver, customer.accepted, 600)
    states = check(server, receiver, customer.accepted, may_fail="cannot be written")
    assert states["succeeded"] > len(customer.accepted) // 2
    assert lost_attempts(server) > 0


def test_jobs_outlive_a_database_locked_for_ten_seconds(server: Server, receiver: Receiver, webhook: str) -> None:
    def lock(then: Callable[[], Any] = lambda: None) -> None:
        with server.locked_database():
            time.sleep(5.0)
            then()
            time.sleep(5.0)

    def kill_server() -> None:
        server.end(signal.SIGKILL)
        threading.Timer(0.1, server.start).start()  # it waits for the database

    with Customer(server, JOBS * 2 // 5, webhook, pause=0.3) as customer:
        disturb(server, 4, [lock, lambda: lock(lambda: server.signal_worker(signal.SIGKILL))], 2.0)
        lock(kill_server)
        wait_for(lambda: server.answers("/health"), 60)
    settle(server, receiver, customer.accepted, 600)
    assert check(server, receiver, customer.accepted) == {"succeeded": len(customer.accepted)}
