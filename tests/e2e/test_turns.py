"""Several jobs on one worker of `serve`: they take turns, and nothing of it shows in the pictures."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sigmagraph.engine.compose.serving import compose
from sigmagraph.engine.execution.events import NodeProgress
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.jobs.job import Job, State, Submission
from sigmagraph.engine.jobs.service import JobService
from sigmagraph.engine.server.settings import Settings, load_settings

Graphs = Callable[..., dict[str, Any]]
LONG, SHORT = {"steps": 900, "seed": 5}, {"steps": 4, "seed": 6, "sampler_name": "dpmpp_2m"}


def settings(home: Path, output: str, **given: Any) -> Settings:
    return Settings(home=home, output=home / output, database=f"sqlite:///{home / output}.sqlite", **given)


async def submitted(jobs: JobService, graph: dict[str, Any]) -> Job:
    return (await jobs.submit(Submission(parse_workflow(graph)))).job


async def until_step(jobs: JobService, job: Job, step: int) -> None:
    async for event in jobs.follow(job.id):
        if isinstance(event.body, NodeProgress) and event.body.value >= step:
            return


def picture(job: Job, folder: Path) -> bytes:
    assert job.outcome is not None
    (image,) = job.outcome.outputs["7"]["images"]
    return (folder / image["filename"]).read_bytes()


async def alone(home: Path, graph: dict[str, Any], output: str) -> bytes:
    """The picture of a job that has the server to itself, caches and all."""
    jobs, _ = compose(settings(home, output, in_process=True))
    await jobs.start()
    try:
        ended = await jobs.wait((await submitted(jobs, graph)).id, timeout_s=60)
    finally:
        await jobs.stop(5.0)
    return picture(ended, home / output)


@pytest.mark.parametrize("in_process", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["here", "process"])
def test_a_short_job_overtakes_a_long_one_and_both_pictures_are_those_made_alone(
    home: Path, txt2img: Graphs, in_process: bool
) -> None:
    long, short = txt2img(**LONG), txt2img(**SHORT)

    async def case() -> None:
        jobs, _ = compose(settings(home, "together", in_process=in_process))
        await jobs.start()
        try:
            first = await submitted(jobs, long)
            await until_step(jobs, first, 3)
            second = await submitted(jobs, short)
            overtaking = await jobs.wait(second.id, timeout_s=60)
            meanwhile = (await jobs.get(first.id)).state
            overtaken = await jobs.wait(first.id, timeout_s=60)
        finally:
            await jobs.stop(5.0)
        assert (overtaking.state, meanwhile, overtaken.state) == (State.SUCCEEDED, State.RUNNING, State.SUCCEEDED)
        assert picture(overtaking, home / "together") == await alone(home, short, "short")
        assert picture(overtaken, home / "together") == await alone(home, long, "long")

    asyncio.run(asyncio.wait_for(case(), 180))


def test_with_one_slot_they_run_one_after_the_other(home: Path, txt2img: Graphs) -> None:
    async def case() -> None:
        jobs, _ = compose(settings(home, "output", in_process=True, slots=1))
        await jobs.start()
        try:
            first = await submitted(jobs, txt2img(**LONG))
            await until_step(jobs, first, 3)
            second = await submitted(jobs, txt2img(**SHORT))
            await jobs.wait(second.id, timeout_s=60)
            assert (await jobs.get(first.id)).state is State.SUCCEEDED
        finally:
            await jobs.stop(5.0)

    asyncio.run(asyncio.wait_for(case(), 120))


def test_slots_and_shared_evaluations_are_settings_like_all_others(tmp_path: Path) -> None:
    file = tmp_path / "sigmagraph.toml"
    file.write_text("slots = 2\nbatch_evaluations = 3\n", encoding="utf-8")
    read = load_settings(file, {"SIGMAGRAPH_SLOTS": "6"}, {"batch_evaluations": 4})
    assert (read.slots, read.batch_evaluations) == (6, 4)
    assert (Settings().slots, Settings().batch_evaluations) == (4, 1)
