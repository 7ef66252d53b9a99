"""`kill -9` at any moment, of the front or of its worker: every accepted job ends exactly once."""

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from sigmagraph.engine.jobs.events import Ended, Started
from sigmagraph.engine.jobs.job import JobQuery, State
from sigmagraph.engine.units import CREDIT
from tests.jobs.serving import log, service

Runs = Callable[[Coroutine[Any, Any, Any]], Any]


def front(folder: Path, count: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.jobs.front", str(folder), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def worker_of(pid: int) -> int | None:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = children.read_text().split() if children.exists() else []
    return int(found[0]) if found else None


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("count", "kills"), [(20, 5), pytest.param(200, 30, marks=pytest.mark.slow)])
def test_every_accepted_job_ends_once_however_often_server_and_worker_are_killed(
    run: Runs, tmp_path: Path, count: int, kills: int
) -> None:
    dice = random.Random(4)
    accepted: set[str] = set()
    for round_ in range(kills):
        process = front(tmp_path, count)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        time.sleep(dice.uniform(0.3, 0.9))
        worker = worker_of(process.pid)
        if round_ % 2 and worker is not None:
            os.kill(worker, signal.SIGKILL)
            time.sleep(dice.uniform(0.0, 0.3))
            worker = worker_of(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        accepted |= {line.split()[1] for line in process.communicate()[0].splitlines() if line.startswith("accepted")}
        deadline = time.monotonic() + 10
        while worker is not None and not is_gone(worker):  # no orphan goes on
            assert time.monotonic() < deadline
            time.sleep(0.01)
    run(all_ended_once(tmp_path, count, accepted))


async def all_ended_once(folder: Path, count: int, accepted: set[str]) -> None:
    """A last front runs what is left; then every job has ended once, and was paid once."""
    last = front(folder, count)
    said = await asyncio.to_thread(last.communicate, timeout=120)
    assert last.returncode == 0
    accepted = accepted | {line.split()[1] for line in said[0].splitlines() if line.startswith("accepted")}
    assert said[0].endswith("done\n")
    async with service(folder, []) as jobs:
        page = await jobs.find(JobQuery(limit=1000))
        assert {job.id for job in page.jobs} == {str(index) for index in range(count)} >= accepted
        assert Counter(job.state for job in page.jobs) == {State.SUCCEEDED: count}
        for job in page.jobs:
            events = await log(jobs, job)
            assert [event.number for event in events] == list(range(1, job.events + 1))
            assert sum(isinstance(event.body, Ended) for event in events) == 1
            assert isinstance(events[-1].body, Ended)
            starts = [event.body.attempt for event in events if isinstance(event.body, Started)]
            assert starts == list(range(1, job.attempt + 1))
        [account] = await jobs.accounts.list()
        assert (account.credits, account.held, account.spent) == (CREDIT, 0, count * CREDIT)
        entries = await jobs.accounts.ledger(account.id, limit=1000)
        assert sum(entry.amount for entry in entries) == account.credits
        assert len({entry.job_id for entry in entries}) == len(entries) == count + 1
    ran = Counter((folder / "notes").read_text().split())
    assert set(ran) == {str(index) for index in range(count)}


@pytest.mark.parametrize(("moment", "ended"), [("before", 0), pytest.param("after", 1, marks=pytest.mark.slow)])
def test_a_kill_in_the_commit_that_ends_a_job_and_begins_the_next(
    run: Runs, tmp_path: Path, moment: str, ended: int
) -> None:
    """Both are one commit: with the kill just before it neither has happened, just after it both have."""
    count = 5
    script = (
        "import asyncio, os, signal, sys\n"
        "from pathlib import Path\n"
        "from sqlalchemy import Engine, event\n"
        "from sigmagraph.engine.jobs.events import Ended, Started\n"
        "from sigmagraph.engine.jobs.store import database\n"
        "from tests.jobs.front import serve\n"
        "class Tx(database.Tx):\n"
        "    last = None\n"
        "    def __init__(self, connection):\n"
        "        super().__init__(connection)\n"
        "        Tx.last = self\n"
        "def look(*_):\n"
        "    kinds = {type(event.body) for event in Tx.last.events} if Tx.last else set()\n"
        "    if kinds >= {Ended, Started}:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "database.Tx = Tx\n"
        "if sys.argv[3] == 'before':\n"
        "    event.listen(Engine, 'commit', look)\n"
        "else:\n"
        "    tell = database.Database._tell\n"
        "    database.Database._tell = lambda self, *rest: (look(), tell(self, *rest))\n"
        "asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), str(count), moment], stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL

    async def look() -> None:
        database = sqlite3.connect(tmp_path / "jobs.sqlite")
        [found] = database.execute("select count(*) from jobs where state = 'succeeded'").fetchone()
        [running] = database.execute("select count(*) from jobs where state = 'running'").fetchone()
        database.close()
        assert (found, running) == (ended, 1)
        accepted = {line.split()[1] for line in killed.stdout.splitlines() if line.startswith("accepted")}
        await all_ended_once(tmp_path, count, accepted)

    run(look())


def test_a_job_cancelled_just_before_the_kill_does_not_come_back(run: Runs, tmp_path: Path) -> None:
    script = (
        "import asyncio, os, signal, sys\n"
        "from pathlib import Path\n"
        "from tests.jobs.serving import *\n"
        "async def main():\n"
        "    async with service(Path(sys.argv[1]), [child()]) as jobs:\n"
        "        job = await sent(jobs, 'Hang', asked={'job_id': 'x'})\n"
        "        await started(jobs, job)\n"
        "        await jobs.cancel('x')\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)]).returncode == -signal.SIGKILL

    async def look() -> None:
        async with service(tmp_path, []) as jobs:
            assert (await jobs.get("x")).state is State.CANCELLED

    run(look())


def test_events_seen_before_the_kill_are_the_events_read_after_it(run: Runs, tmp_path: Path) -> None:
    script = (
        "import asyncio, os, signal, sys\n"
        "from pathlib import Path\n"
        "from tests.jobs.serving import *\n"
        "from sigmagraph.engine.jobs.event_json import encode\n"
        "import json\n"
        "async def main():\n"
        "    async with service(Path(sys.argv[1])) as jobs:\n"
        "        job = await sent(jobs, count=1000, seconds=0.001, asked={'job_id': 'x'})\n"
        "        async for event in jobs.follow('x'):\n"
        "            print(json.dumps([event.number, *encode(event.body)]), flush=True)\n"
        "            if event.number == 200:\n"
        "                os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert done.returncode == -signal.SIGKILL
    seen = done.stdout.splitlines()

    async def look() -> list[str]:
        import json

        from sigmagraph.engine.jobs.event_json import encode

        async with service(tmp_path, []) as jobs:
            stored = await jobs.events("x")
            return [json.dumps([event.number, *encode(event.body)]) for event in stored]

    stored = run(look())
    assert len(seen) == 200
    assert stored[:200] == seen


def test_recovering_ten_thousand_jobs_takes_less_than_two_seconds(run: Runs, tmp_path: Path) -> None:
    async def case() -> float:
        from sqlalchemy import insert

        from sigmagraph.engine.jobs.store.rows import inserted
        from sigmagraph.engine.jobs.store.tables import jobs as table
        from tests.jobs.test_store import WORK, submission

        async with service(tmp_path, []) as jobs:
            rows = [inserted(submission(job_id=str(i), owner=f"o{i % 7}"), WORK, float(i), 1.0) for i in range(10_000)]
            await jobs.store.database.write(lambda tx: tx.connection.execute(insert(table), rows))
        began = time.process_time()  # a busy machine makes no difference to it
        async with service(tmp_path, []) as jobs:
            took = time.process_time() - began
            assert len(jobs._dispatcher.queue) == 10_000
        return took

    assert run(case()) < 2.0
