"""A T5 encoder without its tokenizer is told when the graph is validated: before a digest, before a weight is read."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sigmagraph.engine.compose.owners import folders_of
from sigmagraph.engine.compose.worker import build
from sigmagraph.engine.compose.workspace import Workspace
from sigmagraph.engine.errors import InvalidWorkflow, WorkerLost
from sigmagraph.engine.execution.digests import Digests
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.jobs.service import JobService
from sigmagraph.engine.jobs.settings import JobSettings, StoreSettings
from sigmagraph.engine.jobs.workers.inprocess import InProcessWorker
from sigmagraph.engine.jobs.workers.runner import Runner
from sigmagraph.engine.jobs.workers.worker import JobAttempt
from sigmagraph.engine.models.memory.residency import RESIDENCY

Graph = dict[str, dict[str, Any]]
TOLD = (
    r"node 1 \(CheckpointLoaderSimple\)\.ckpt_name: tiny\.safetensors holds a T5 encoder, .*fetch tokenizers` brings it"
)


@pytest.fixture
def bare(home: Path, tiny_checkpoint: Path) -> Path:
    """The home folder, its checkpoint without tokenizers in the metadata."""
    place = home / "models/checkpoints/tiny.safetensors"
    place.unlink()
    save_file(load_file(tiny_checkpoint), place)
    return home


@pytest.fixture
def space(bare: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setattr(Digests, "of", lambda self, path: pytest.fail(f"{path} was read for its digest"))
    return Workspace(bare, bare / "output")


def test_it_is_told_before_anything_is_read(space: Workspace, txt2img: Callable[..., Graph]) -> None:
    loads = RESIDENCY.load_count
    with pytest.raises(InvalidWorkflow, match=TOLD):
        space.validated(parse_workflow(txt2img()))
    assert RESIDENCY.load_count == loads


def test_encoders_that_an_adapter_changes_are_followed_to_the_prompt(
    space: Workspace, txt2img: Callable[..., Graph]
) -> None:
    graph = txt2img()
    graph["8"] = {"class_type": "CLIPSetLastLayer", "inputs": {"clip": ["1", 1], "stop_at_clip_layer": -2}}
    graph["2"]["inputs"]["clip"] = graph["3"]["inputs"]["clip"] = ["8", 0]
    with pytest.raises(InvalidWorkflow, match=TOLD):
        space.validated(parse_workflow(graph))


def test_encoders_that_no_text_goes_through_need_none(space: Workspace) -> None:
    graph = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny.safetensors"}},
        "4": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 64, "height": 48, "batch_size": 1}},
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "picture"}},
    }
    assert space.validated(parse_workflow(graph)).roots == ["7"]


def test_a_tokenizer_in_the_models_folders_is_enough(
    space: Workspace, tiny_checkpoint: Path, txt2img: Callable[..., Graph]
) -> None:
    with safe_open(tiny_checkpoint, "pt") as file:
        text = file.metadata()["tokenizer.t5xxl"]
    (space.home / "models/tokenizers").mkdir()
    (space.home / "models/tokenizers/t5xxl.tokenizer.json").write_text(text, "utf-8")
    assert space.validated(parse_workflow(txt2img())).roots == ["7"]


def test_a_servers_worker_ends_the_job_so(space: Workspace, txt2img: Callable[..., Graph]) -> None:
    runner = Runner(build({name: str(space.home / name) for name in ("models", "input", "output", "temp")}))
    try:
        ended = runner.run(JobAttempt("job", "local", 1, txt2img(), (), {}), lambda *_: None)
    finally:
        runner.close()
    assert ended.failure is not None
    assert "tiny.safetensors holds a T5 encoder" in ended.failure.message
    assert "`sigmagraph fetch tokenizers` brings it" in ended.failure.message


def test_a_servers_front_refuses_it_and_asks_once_for_files_that_are_complete(
    space: Workspace, tiny_checkpoint: Path, txt2img: Callable[..., Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The front reads no header: a worker does, for each set of files as they are now."""
    folders = {name: space.home / name for name in ("models", "input", "output", "temp")}
    front = folders_of(Folders(*folders.values()))
    worker = InProcessWorker(build({name: str(path) for name, path in folders.items()}))
    asked: list[str] = []
    answer = worker.ask
    monkeypatch.setattr(worker, "ask", lambda *given: asked.append(given[0]) or answer(*given))

    async def case() -> None:
        jobs = JobService(JobSettings(StoreSettings(url=f"sqlite:///{space.home}/jobs.sqlite")), [worker], front)
        await jobs.start()
        try:
            asked.clear()
            for _ in range(2):
                with pytest.raises(InvalidWorkflow, match=TOLD):
                    await jobs.check(parse_workflow(txt2img()), None, "ann")
            assert asked == ["check"] * 2  # what lacks something is looked at again: it may have come
            with safe_open(tiny_checkpoint, "pt") as file:
                text = file.metadata()["tokenizer.t5xxl"]
            (space.home / "models/tokenizers").mkdir()
            (space.home / "models/tokenizers/t5xxl.tokenizer.json").write_text(text, "utf-8")
            for _ in range(3):
                assert (await jobs.check(parse_workflow(txt2img()), None, "ann")).roots == ("7",)
            assert asked == ["check"] * 3
            (space.home / "models/checkpoints/tiny.safetensors").touch()
            await jobs.check(parse_workflow(txt2img()), None, "ann")
            assert asked == ["check"] * 4
            monkeypatch.setattr(worker, "ask", silent)
            (space.home / "models/checkpoints/tiny.safetensors").touch()
            assert (await jobs.check(parse_workflow(txt2img()), None, "ann")).roots == ("7",)
        finally:
            await jobs.stop(0.0)

    asyncio.run(case())


async def silent(*_: object) -> None:
    raise WorkerLost("it did not answer")
