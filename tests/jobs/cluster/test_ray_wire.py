"""Machines in another network, behind a wire with delay and loss. Needs root and namespaces. Run by ray.sh."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from sigmagraph.engine.jobs.job import State
from tests.jobs.cluster import wire
from tests.jobs.cluster.links import submitted
from tests.jobs.cluster.nodes import expected
from tests.jobs.cluster.ray_nodes import (
    MACHINES,
    NEEDS_TUN,
    STORE_BYTES,
    RayStart,
    content,
    fleet,
    free_port,
    front,
    laid,
    on_machines,
    report,
    run,
    started_head,
    until_ready,
)
from tests.jobs.serving import ends, log

FAR = "sgfar"
DELAY_S, LOSS = 0.05, 0.01
JOBS = 60
pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore"), NEEDS_TUN]


def far(*words: str) -> list[str]:
    """What runs a command in the far network."""
    return ["ip", "netns", "exec", FAR, *words]


def round_trip_s() -> float:
    """How long one takes, at least."""
    answer = (
        "import socket; s = socket.create_server(('"
        + wire.THERE
        + "', 9)); print(1, flush=True); [s.accept() for _ in '12345']"
    )
    with subprocess.Popen(far(sys.executable, "-c", answer), stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        found = []
        for _ in range(5):
            began = time.monotonic()
            wire.socket_to(9).close()
            found.append(time.monotonic() - began)
    return min(found)


def test_jobs_end_once_over_a_wire_with_delay_and_loss(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Mixed jobs on two machines there, of which one crashes once and one freezes past its lease."""
    chance = random.Random(7)

    async def case() -> None:
        port = free_port()
        near = await on_machines(partial(started_head, node_ip_address=wire.HERE), port)
        there = [f"--address={near.address}", f"--node-ip-address={wire.THERE}", "--num-cpus=1"]
        there += [f"--object-store-memory={STORE_BYTES}"]
        machines = [RayStart(*there, before=far())]
        try:
            async with front(tmp_path, fleet(tmp_path, f"ray://{wire.HERE}:{port}", lease_s=6.0), 1) as jobs:
                machines.append(RayStart(*there, before=far()))  # two at once would want the same ports
                await until_ready(jobs, 2)
                sent = []
                for seed in range(JOBS):
                    count, width = chance.randint(1, 20), chance.choice((8, 100_000))
                    job = await submitted(jobs, seed=seed, count=count, seconds=0.02, width=width, record=8)
                    sent.append((job, expected(seed, count, width)))
                began = time.monotonic()
                await jobs.wait(sent[JOBS // 3][0].id)
                pids = [status.pid for status in jobs.workers() if status.pid]
                os.kill(pids[0], signal.SIGKILL)
                await jobs.wait(sent[2 * JOBS // 3][0].id)
                pids = [status.pid for status in jobs.workers() if status.pid]
                os.kill(pids[-1], signal.SIGSTOP)
                MACHINES.submit(wake, pids[-1])
                done = [await jobs.wait(job.id) for job, _ in sent]
                took = time.monotonic() - began
                for (job, picture), ended in zip(sent, done, strict=True):
                    assert ended.state is State.SUCCEEDED, ended.failure
                    assert content(tmp_path, ended) == picture
                    assert ends(await log(jobs, job)) == 1
                attempts = sum(ended.attempt for ended in done)
                assert attempts > JOBS, "nothing was lost, so nothing was tested"
                figures = f"{JOBS} jobs, {attempts} attempts in {took:.0f} s"
                report(record_property, "wire", figures)
        finally:
            for machine in machines:
                machine.stop()
            await on_machines(near.shutdown)

    with laid(FAR, DELAY_S, LOSS):  # 100 ms there and back, and 1 % lost each way
        assert round_trip_s() >= 2 * DELAY_S
        run(case())


def wake(pid: int) -> None:
    """After more than a lease."""
    time.sleep(9)
    os.kill(pid, signal.SIGCONT)
