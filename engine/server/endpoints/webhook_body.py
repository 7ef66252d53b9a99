"""What a webhook says about a request: what its status URL would say, and the output with it."""

from collections.abc import Callable
from typing import Any

from sigmagraph.engine.jobs.job import Job, State
from sigmagraph.engine.server.context import OwnerFolders
from sigmagraph.engine.server.endpoints import job_json, outputs
from sigmagraph.engine.server.endpoints.context import Published

__all__ = ["teller"]


def teller(published: Published, folders: Callable[[str], OwnerFolders]) -> Callable[[Job], dict[str, Any]]:
    """A function that puts an ended request into this protocol's words; what is left of credits is not told."""

    def body(job: Job) -> dict[str, Any]:
        base = str(job.meta.get("base", ""))
        found = job_json.state_body(job, None, job.ended_at or published.clock(), base)
        found["metrics"].pop("remaining_credits", None)
        if job.state is State.SUCCEEDED:
            count = len(outputs.files_of(job, folders(job.owner)))
            urls = outputs.output_urls(published.secret, job, base, count, published.file_s)
            found |= {"output": urls[0] if count == 1 else urls, "seed": job.meta.get("seed")}
        return found

    return body
