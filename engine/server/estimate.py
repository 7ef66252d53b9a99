"""`POST /estimate`: what a workflow will cost before it runs: evaluations of the model, and seconds as far as known."""

import asyncio
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.graph.sweep import Sweep
from sigmagraph.engine.graph.workflow import Workflow
from sigmagraph.engine.jobs.job import JobQuery, State
from sigmagraph.engine.server.access.auth import require_any_graph
from sigmagraph.engine.server.comfy.finding import found
from sigmagraph.engine.server.context import JOBS, OWNER, reply
from sigmagraph.engine.server.likely_time import is_sampler, likely_time, part_of_run
from sigmagraph.engine.server.pages_inspect import read_any_workflow
from sigmagraph.engine.server.request_fields import changed, declarations, read_request_fields
from sigmagraph.engine.server.sampling_facts import sampling_facts
from sigmagraph.engine.server.unpriced import levels_told

__all__ = ["estimate"]

LOOKED_AT = 48  # of the owner's last jobs
LONGEST = 512 * 1024
"""Characters of a request that is looked at: 48 of them take some 60 MB for a moment."""
MOST_SAMPLERS = 8
Row = dict[str, Any]


async def estimate(request: web.Request) -> web.Response:
    """Evaluations of the model and the seconds that a workflow will likely take; nothing is sampled.

    It comes as for `POST /inspect`, with `set` as for `POST /replay`. The answer has `evaluations` (null where a
    sampler is not one with `sampler_name`, `scheduler` and `steps`), `samplers` (per such node its evaluations, or the
    `problem`), `seconds` by the owner's last jobs of the same model and size (null where there are none), and `runs`,
    how many those are.
    """
    require_any_graph(request)
    incoming = await read_request_fields(request)
    known = await declarations(request)
    workflow, _ = await read_any_workflow(request, incoming, known)
    workflow = changed(workflow, incoming.fields.get("set"), await request.app[JOBS].nodes())
    prompt = workflow.prompt()
    rows = {name: await _row(request, workflow, name, known) for name in _samplers(prompt)}
    past = JobQuery(
        request[OWNER], frozenset({State.SUCCEEDED}), limit=LOOKED_AT, with_request=True, longest_request=LONGEST
    )
    jobs = (await found(request, past)).jobs
    guess = await asyncio.to_thread(likely_time, prompt, jobs, sampling_facts(request)["samplers"])
    counts = [row["evaluations"] for row in rows.values()]
    is_whole = bool(counts) and None not in counts
    answer = {"evaluations": sum(counts) if is_whole else None, "samplers": rows}
    return reply(answer | {"seconds": guess.seconds, "runs": guess.runs})


def _samplers(prompt: Mapping[str, Any]) -> list[str]:
    return [name for name, node in prompt.items() if is_sampler(node)][:MOST_SAMPLERS]


async def _row(request: web.Request, workflow: Workflow, name: str, known: Mapping[str, Any]) -> Row:
    """What one sampler asks of its model; a worker knows, by the model's own levels."""
    sweep = Sweep(workflow, name, "")
    inputs = sweep.values
    try:
        asked = sweep.levels(str(inputs["sampler_name"]), str(inputs["scheduler"]), str(inputs["steps"]))
        [[row]] = await levels_told(request, known, [asked])
    except EngineError as error:
        return {"evaluations": None, "problem": str(error)}
    if row["problem"] is not None:
        return {"evaluations": None, "problem": row["problem"]}
    return {"evaluations": round(row["evaluations"] * part_of_run(inputs)), "problem": None}
