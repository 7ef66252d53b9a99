"""A whole front process to kill: serves a database with one worker, says what it does on standard output.

`python -m tests.jobs.front FOLDER JOBS`: submit so many jobs if the database is new, run until all have ended.
"""

import asyncio
import sys
from pathlib import Path

from engine.jobs.job import JobQuery, Submission
from tests.jobs import stubs
from tests.jobs.serving import child, service


async def serve(folder: Path, count: int) -> None:
    async with service(folder, [child()], max_deaths=1000) as jobs:
        sys.stdout.write("up\n")
        sys.stdout.flush()
        known = {job.id for job in (await jobs.find(JobQuery(limit=1000))).jobs}
        for index in range(count):
            if str(index) not in known:
                note = ("Note", {"file": str(folder / "notes"), "text": str(index)})
                steps = ("Steps", {"count": 5, "seconds": 0.01, "salt": str(index)})
                ends = {"end": ("Show", {"value": ["work", 0]}), "noted": ("Show", {"value": ["note", 0]})}
                accepted = await jobs.submit(
                    Submission(stubs.workflow(work=steps, note=note, **ends), job_id=str(index))
                )
                sys.stdout.write(f"accepted {accepted.job.id}\n")
                sys.stdout.flush()
        await jobs.drain()
        sys.stdout.write("done\n")


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
