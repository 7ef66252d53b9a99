"""A whole front process to kill: serves a database with one worker, says what it does on standard output.

`python -m tests.jobs.front FOLDER JOBS`: submit those of so many jobs that are not there, run until all have ended.
One account pays for all of them, a credit each, and has one credit more than that.
"""

import asyncio
import sys
from pathlib import Path

from sigmagraph.engine.jobs.job import JobQuery, Submission
from sigmagraph.engine.units import CREDIT
from tests.jobs import stubs
from tests.jobs.serving import child, service


async def serve(folder: Path, count: int) -> None:
    async with service(folder, [child()], max_deaths=1000) as jobs:
        sys.stdout.write("up\n")
        sys.stdout.flush()
        paying = await jobs.accounts.list() or [(await jobs.accounts.create("me", credits=(count + 1) * CREDIT))[1]]
        known = {job.id for job in (await jobs.find(JobQuery(limit=1000))).jobs}
        for index in range(count):
            if str(index) not in known:
                note = ("Note", {"file": str(folder / "notes"), "text": str(index)})
                steps = ("Steps", {"count": 5, "seconds": 0.01, "salt": str(index)})
                ends = {"end": ("Show", {"value": ["work", 0]}), "noted": ("Show", {"value": ["note", 0]})}
                graph = stubs.workflow(work=steps, note=note, **ends)
                accepted = await jobs.submit(Submission(graph, paying[0].id, str(index), cost=CREDIT))
                sys.stdout.write(f"accepted {accepted.job.id}\n")
                sys.stdout.flush()
        await jobs.drain()
        sys.stdout.write("done\n")


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
