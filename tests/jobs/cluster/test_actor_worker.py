"""A worker on another machine: files both ways, unfinished work, silence, a full object store. No Ray here."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import pytest

from sigmagraph.engine.graph.node import Optional, Socket, UiResult, node
from sigmagraph.engine.jobs.cluster import actor_worker, device
from sigmagraph.engine.jobs.events import Requeued
from sigmagraph.engine.jobs.job import Job, State, Submission
from sigmagraph.engine.jobs.service import JobService
from sigmagraph.engine.writing import write_file
from tests.jobs import stubs
from tests.jobs.cluster import nodes
from tests.jobs.cluster.links import Place, front, submitted, until
from tests.jobs.cluster.nodes import Anything, Files, expected
from tests.jobs.serving import ends, log, started

Runs = Callable[[Coroutine[Any, Any, Any]], Any]
LARGE = 300_000  # more than travels inside an answer


def filename(job: Job) -> str:
    assert job.outcome is not None, job.failure
    shown: str = job.outcome.outputs["end"]["images"][0]["filename"]
    return shown


def lines(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().split()]


def test_outputs_of_two_machines_lie_in_one_folder_under_names_of_one_series(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        places = [Place("a"), Place("b")]
        async with front(tmp_path, places) as jobs:
            sent = [await submitted(jobs, seed=seed, count=3, seconds=0.02, width=LARGE) for seed in range(4)]
            done = [await jobs.wait(job.id) for job in sent]
            events = await log(jobs, done[0])
        assert {job.worker for job in done} == {"a", "b"}
        assert {filename(job) for job in done} == {f"picture_0000{n}_.bin" for n in (1, 2, 3, 4)}
        for seed, job in enumerate(done):
            assert (tmp_path / "output" / filename(job)).read_bytes() == expected(seed, 3, LARGE)
        told = [body.ui for event in events if (body := event.body) and getattr(body, "ui", None)]
        assert told == [{"images": [{"filename": filename(done[0]), "subfolder": "", "type": "output"}]}]
        assert [path.name for path in (tmp_path / "scratch").rglob("picture*")] == []

    run(case())


def test_a_picture_that_the_front_has_is_not_sent_again(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        place = Place("a")
        async with front(tmp_path, [place]) as jobs:
            first = await jobs.wait((await submitted(jobs, count=2, width=LARGE)).id)
            assert place.fetched == LARGE
            second = await jobs.wait((await submitted(jobs, count=2, width=LARGE)).id)
            assert place.fetched == LARGE
            names = filename(first), filename(second)
            assert names[0] != names[1]
            (tmp_path / "output" / names[1]).write_bytes(b"edited by a person")
            third = await jobs.wait((await submitted(jobs, count=2, width=LARGE)).id)
            assert place.fetched == 2 * LARGE
            assert (tmp_path / "output" / filename(third)).read_bytes() == expected(0, 2, LARGE)

    run(case())


@pytest.mark.parametrize("size", [10, LARGE])
@pytest.mark.parametrize("is_full", [False, True])
def test_an_input_is_brought_once_and_again_when_it_changed(
    run: Runs, tmp_path: Path, size: int, is_full: bool
) -> None:
    async def case() -> None:
        place = Place("a")
        place.is_full = is_full
        async with front(tmp_path, [place]) as jobs:
            for content in (b"1" * size, b"1" * size, b"2" * size):
                (tmp_path / "input" / "given.png").write_bytes(content)
                graph = stubs.workflow(work=("Read", {"file": "given.png"}), end=("Save", {"data": ["work", 0]}))
                done = await jobs.wait((await jobs.submit(Submission(graph))).job.id)
                assert (tmp_path / "output" / filename(done)).read_bytes() == content
            pieces = -(-size // device.INLINE_BYTES) if is_full else 1
            assert place.calls.count("receive") == 2 * pieces
            assert place.calls.count("place") == 2

    run(case())


def test_owners_see_neither_each_others_inputs_nor_outputs(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with front(tmp_path, [Place("a")]) as jobs:
            (tmp_path / "input" / ".owners" / "o").mkdir(parents=True)
            (tmp_path / "input" / ".owners" / "o" / "mine.png").write_bytes(b"mine")
            graph = stubs.workflow(work=("Read", {"file": "mine.png"}), end=("Save", {"data": ["work", 0]}))
            own = await jobs.wait((await jobs.submit(Submission(graph, owner="o"))).job.id)
            assert (tmp_path / "output" / ".owners" / "o" / filename(own)).read_bytes() == b"mine"
            other = await jobs.wait((await jobs.submit(Submission(graph, owner="p"))).job.id)
            assert other.state is State.FAILED
            assert other.failure is not None
            assert "mine.png" in other.failure.message

    run(case())


def test_a_job_of_a_machine_that_went_goes_on_where_it_was_on_another(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        places = [Place("a"), Place("b")]
        tally = tmp_path / "tally"
        async with front(tmp_path, places) as jobs:
            job = await submitted(jobs, seed=5, count=40, seconds=0.02, width=LARGE, record=LARGE, tally=str(tally))
            await started(jobs, job)
            await until(lambda: tally.exists() and len(lines(tally)) >= 10)
            name = (await jobs.get(job.id)).worker
            lost = next(place for place in places if place.name == name)
            lost.is_cut = True
            await asyncio.to_thread(lost.actor.close)
            done = await jobs.wait(job.id)
            events = await log(jobs, job)
        assert (done.state, done.attempt) == (State.SUCCEEDED, 2)
        assert (tmp_path / "output" / filename(done)).read_bytes() == expected(5, 40, LARGE)
        assert ends(events) == 1
        steps = lines(tally)
        assert steps[-1] == 39
        assert len(steps) < 40 + 10, "what was kept was made again"
        assert list((tmp_path / "carried").rglob("*.part")) == []

    run(case())


def test_a_machine_that_froze_past_its_lease_and_woke_ends_no_job_twice(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        places = [Place("a"), Place("b")]
        async with front(tmp_path, places, lease_s=1.0) as jobs:
            job = await submitted(jobs, seed=1, count=30, seconds=0.05)
            await started(jobs, job)
            name = (await jobs.get(job.id)).worker
            frozen, other = places if name == "a" else reversed(places)
            frozen.frozen.clear()
            await asyncio.sleep(1.1)
            other.frozen.clear()  # so that both have it at the end
            frozen.frozen.set()
            await asyncio.sleep(0.2)
            other.frozen.set()
            done = await jobs.wait(job.id)
            await until(lambda: all(status.is_ready for status in jobs.workers()))
            again = await jobs.wait((await submitted(jobs, seed=2, count=2)).id)
            events = await log(jobs, job)
        assert done.state is State.SUCCEEDED
        assert ends(events) == 1
        reasons = [event.body.reason for event in events if isinstance(event.body, Requeued)]
        assert reasons[0] == f"{name} said nothing for 1 s: its machine is frozen or cannot be reached"
        outputs = {path.name: path.read_bytes() for path in (tmp_path / "output").glob("*.bin")}
        assert outputs == {filename(done): expected(1, 30), filename(again): expected(2, 2)}

    run(case())


def test_a_job_that_a_machine_never_takes_goes_to_another(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        places = [Place("a"), Place("b")]
        async with front(tmp_path, places, lease_s=1.0) as jobs:
            for place in places:
                place.is_deaf = True
            job = await submitted(jobs, seed=1, count=2)
            await started(jobs, job)
            name = (await jobs.get(job.id)).worker
            next(place for place in places if place.name != name).is_deaf = False
            done = await asyncio.wait_for(jobs.wait(job.id), 20)
            events = await log(jobs, job)
        assert (done.state, done.attempt) == (State.SUCCEEDED, 2)
        reasons = [event.body.reason for event in events if isinstance(event.body, Requeued)]
        assert reasons == [f"{name} took no message for 1 s, though it speaks"]

    run(case())


def test_a_full_object_store_costs_time_and_no_job(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        place = Place("a")
        place.is_full = True
        async with front(tmp_path, [place]) as jobs:
            done = await jobs.wait((await submitted(jobs, count=2, width=LARGE)).id)
            assert (tmp_path / "output" / filename(done)).read_bytes() == expected(0, 2, LARGE)
            assert place.fetched == place.offered == 0

    run(case())


def test_a_front_whose_disk_takes_no_picture_says_so_at_the_job(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        async with front(tmp_path, [Place("a")]) as jobs:
            (tmp_path / "output").rmdir()
            (tmp_path / "output").write_text("no folder")
            done = await jobs.wait((await submitted(jobs, count=1)).id)
            assert done.state is State.FAILED
            assert done.failure is not None
            assert done.failure.code == "write_failed"
            assert str(tmp_path / "output") in done.failure.message

    run(case())


def test_a_machine_of_another_version_is_named_with_what_to_do(
    run: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = actor_worker.environment()
    monkeypatch.setattr(device, "environment", lambda: {**ours, "sigmagraph": "0.0.1", "python": "3.9"})

    async def case() -> None:
        async with front(tmp_path, [Place("old")], waits=False) as jobs:
            reason = await asyncio.wait_for(jobs.until_hopeless(), 20)
        assert reason.startswith("old did not start, 3 times in a row: cannot work for this server: ")
        assert f"sigmagraph 0.0.1 where the front has {ours['sigmagraph']}, python 3.9 where" in reason
        assert reason.endswith("install the same")

    run(case())


def test_a_machine_with_another_torch_works_and_is_warned_of(
    run: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ours = actor_worker.environment()
    monkeypatch.setattr(device, "environment", lambda: {**ours, "torch": "2.6.0"})

    async def case() -> None:
        async with front(tmp_path, [Place("old")]) as jobs:
            done = await jobs.wait((await submitted(jobs, count=1)).id)
            assert (done.state, done.worker) == (State.SUCCEEDED, "old")

    run(case())
    (warned,) = [line for line in caplog.messages if "last bits" in line]
    assert warned.startswith("old: ")
    assert f"torch 2.6.0 where the front has {ours['torch']}" in warned


def test_a_machine_without_the_model_folder_is_named_with_what_to_do(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        lacking = Place("bare", models=str(tmp_path / "nowhere"))
        async with front(tmp_path, [lacking, Place("whole")]) as jobs:
            await until(lambda: bool(jobs.workers()[0].last_error))
            assert f"has no folder {tmp_path / 'nowhere'}: put the models there" in jobs.workers()[0].last_error
            done = await jobs.wait((await submitted(jobs, count=1)).id)
            assert (done.state, done.worker) == (State.SUCCEEDED, "whole")

    run(case())


def test_a_job_goes_to_a_machine_that_has_its_weights(run: Runs, tmp_path: Path) -> None:
    async def case() -> None:
        for name, files in (("few", ["one"]), ("many", ["one", "two"])):
            (tmp_path / name / "checkpoints").mkdir(parents=True)
            for file in files:
                (tmp_path / name / "checkpoints" / f"{file}.safetensors").touch()
        places = [Place(name, models=str(tmp_path / name)) for name in ("few", "many")]
        async with front(tmp_path, places) as jobs:
            await until(lambda: all(status.is_ready for status in jobs.workers()))
            sent = [await submitted(jobs, seed=n, seconds=0.03, model="two.safetensors") for n in range(4)]
            sent += [await submitted(jobs, seed=9, count=1, model="one.safetensors")]
            done = [await jobs.wait(job.id) for job in sent]
        assert [job.worker for job in done] == ["many"] * 4 + ["few"]
        assert done[4].ended_at is not None
        assert done[1].ended_at is not None
        assert done[4].ended_at < done[1].ended_at, "it overtook what its machine could not do"

    run(case())


class Spoilt(Place):
    """A machine on which something happens whenever a file is fetched from it."""

    def __init__(self, name: str, happens: Callable[["Spoilt", str], None]) -> None:
        super().__init__(name)
        self.happens = happens

    async def call(self, method: str, *arguments: Any) -> Any:
        if method == "value":
            self.happens(self, arguments[1])
        return await super().call(method, *arguments)

    def path(self, digest: str) -> Path:
        assert self.actor._shipping is not None
        found = self.actor._shipping.path(digest)
        assert found is not None
        return found


def test_a_machine_that_freezes_while_a_file_is_fetched_is_given_up(run: Runs, tmp_path: Path) -> None:
    lost: list[str] = []

    def freezes(place: Spoilt, digest: str) -> None:
        if not lost:
            lost.append(place.name)
            place.frozen.clear()

    async def case() -> None:
        async with front(tmp_path, [Spoilt("a", freezes), Spoilt("b", freezes)], lease_s=1.0) as jobs:
            job = await submitted(jobs, seed=1, count=2)
            done = await asyncio.wait_for(jobs.wait(job.id), 15)
            reasons = [event.body.reason for event in await log(jobs, job) if isinstance(event.body, Requeued)]
        assert (done.state, done.attempt) == (State.SUCCEEDED, 2)
        assert reasons == [f"{lost[0]} said nothing for 1 s: its machine is frozen or cannot be reached"]

    run(case())


@pytest.mark.parametrize("is_removed", [False, True])
def test_a_file_that_changed_before_it_was_fetched_fails_its_job_and_no_other(
    run: Runs, tmp_path: Path, is_removed: bool
) -> None:
    """A worker that had sent something else than announced was given up, with all that it ran."""

    def changes(place: Spoilt, digest: str) -> None:
        path = place.path(digest)
        if is_removed:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(b"written again")

    async def case() -> None:
        place = Spoilt("a", changes)
        async with front(tmp_path, [place]) as jobs:
            first = await jobs.wait((await submitted(jobs, count=2)).id)
            place.happens = lambda place, digest: None
            second = await jobs.wait((await submitted(jobs, count=3)).id)
            [status] = jobs.workers()
        assert first.failure is not None
        assert (first.state, first.attempt, first.failure.code) == (State.FAILED, 1, "write_failed")
        assert "changed on its machine before it was brought here" in first.failure.message
        assert (second.state, second.attempt, status.starts) == (State.SUCCEEDED, 1, 1)

    run(case())


@node("Overwrite", category="test", output_node=True, outputs=("BYTES",))
def overwrite(*, data: Anything, after: Annotated[Any, Socket("*"), Optional()] = None, services: Files) -> UiResult:
    """Writes a file of always the same name."""
    (services.output_dir / "same.bin").write_bytes(data)
    return UiResult(data, ui={"images": [{"filename": "same.bin", "subfolder": "", "type": "output"}]})


def test_a_file_that_was_written_again_is_brought_as_it_is_last(
    run: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(nodes.NODES, "Overwrite", overwrite)
    fetched: list[str] = []

    def is_written_again(place: Spoilt, digest: str) -> None:
        fetched.append(digest)
        if len(fetched) == 1:
            write_file(place.path(digest), expected(0, 3))  # in one step: the node writes there, too, and reads

    async def case() -> None:
        graph = stubs.workflow(
            old=("Iterate", {"count": 2}),
            one=("Overwrite", {"data": ["old", 0]}),
            new=("Iterate", {"count": 3}),
            two=("Overwrite", {"data": ["new", 0], "after": ["one", 0]}),
        )
        async with front(tmp_path, [Spoilt("a", is_written_again)]) as jobs:
            job = await jobs.wait((await jobs.submit(Submission(graph))).job.id)
        assert (job.state, job.attempt) == (State.SUCCEEDED, 1)
        assert (tmp_path / "output" / "same.bin").read_bytes() == expected(0, 3)

    run(case())


async def copied(jobs: JobService, file: str) -> Job:
    """The end of a job that saves an input as it is."""
    graph = stubs.workflow(work=("Read", {"file": file}), end=("Save", {"data": ["work", 0]}))
    return await jobs.wait((await jobs.submit(Submission(graph))).job.id)


@pytest.mark.parametrize("is_removed", [False, True])
def test_an_input_that_changes_while_it_is_sent_is_what_it_is_then(run: Runs, tmp_path: Path, is_removed: bool) -> None:
    """It was kept on the machine as what it had been, for later jobs, too; one that was gone cost the worker."""
    given = tmp_path / "input" / "given.png"
    moves = [given.unlink if is_removed else lambda: given.write_bytes(b"newer")]

    class Busy(Place):
        """Somebody writes to the folder of inputs meanwhile."""

        async def call(self, method: str, *arguments: Any) -> Any:
            if method == "place" and moves:
                moves.pop()()
            return await super().call(method, *arguments)

    async def case() -> None:
        async with front(tmp_path, [Busy("a")]) as jobs:
            given.write_bytes(b"first")
            done = await copied(jobs, "given.png")
            if is_removed:
                assert done.failure is not None
                assert (done.state, done.attempt) == (State.FAILED, 1)
                assert "given.png" in done.failure.message
            else:
                assert (tmp_path / "output" / filename(done)).read_bytes() == b"newer"
            given.write_bytes(b"first")
            assert (tmp_path / "output" / filename(await copied(jobs, "given.png"))).read_bytes() == b"first"
            assert [status.starts for status in jobs.workers()] == [1]

    run(case())


def test_a_machine_keeps_no_input_that_nobody_asks_for(
    run: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "SWEEP_EVERY_S", 0.0)
    monkeypatch.setattr(actor_worker, "ASK_AGAIN_S", 0.0)
    monkeypatch.setattr(device, "KEEP_VALUES_S", 50.0)

    async def case() -> None:
        async with front(tmp_path, [Place("a")]) as jobs:
            for name in ("old", "new"):
                (tmp_path / "input" / f"{name}.png").write_bytes(name.encode())
            await copied(jobs, "old.png")
            there = [path for path in (tmp_path / "scratch").rglob("*") if path.is_file() and path.suffix != ".bin"]
            for path in there:
                os.utime(path, (path.stat().st_mtime - 100,) * 2)
            assert len(there) == 2
            await copied(jobs, "new.png")
            assert not any(path.exists() for path in there)
            assert (tmp_path / "output" / filename(await copied(jobs, "old.png"))).read_bytes() == b"old"

    run(case())
