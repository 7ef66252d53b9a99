"""Ten thousand jobs over three checkpoints that do not fit together: memory stays flat, each load is accounted for."""

import gc
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sigmagraph.engine.compose.worker import build
from sigmagraph.engine.jobs.job import State
from sigmagraph.engine.jobs.workers.runner import Runner
from sigmagraph.engine.jobs.workers.worker import JobAttempt
from sigmagraph.engine.models.load import load_diffusion_model
from sigmagraph.engine.models.memory import residency
from sigmagraph.engine.models.memory.residency import RESIDENCY
from tests.tiny import write_checkpoint

Graph = dict[str, dict[str, Any]]
CPU = torch.device("cpu")
PAGE = os.sysconf("SC_PAGE_SIZE")
TEXTS = ("a red circle", "a blue square on the left", "the green circle", "")


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE


def job(at: int, model: int, text: str) -> Graph:
    """One step of a sampler from a prompt of its own, shown as text: no picture, no file."""
    sampler = {"seed": at, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    links = {"model": ["1", 0], "positive": ["2", 0], "negative": ["2", 0], "latent_image": ["4", 0]}
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": f"{model}.safetensors"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": text, "clip": ["1", 1]}},
        "4": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 32, "height": 32, "batch_size": 1}},
        "5": {"class_type": "KSampler", "inputs": {**sampler, **links}},
        "6": {"class_type": "PreviewAny", "inputs": {"source": ["5", 0]}},
    }


@pytest.fixture
def runner(home: Path) -> Any:
    for seed in range(3):
        write_checkpoint(home / f"models/checkpoints/{seed}.safetensors", seed)
    options: dict[str, Any] = {name: str(home / name) for name in ("models", "input", "output", "temp")}
    one = load_diffusion_model(home / "models/checkpoints/0.safetensors").recipe.part().dense_bytes
    limit = int(2.5 * one)
    made = Runner(build(options | {"cache": "memory=200kB", "memory": f"{limit}", "device": "cpu"}))
    yield made
    made.close()


def ran(runner: Runner, monkeypatch: pytest.MonkeyPatch, count: int, early: int) -> tuple[int, int]:
    """Resident bytes after `early` jobs and at the end, each job having left what it should."""
    RESIDENCY.free()  # what other tests left is not part of the account
    made: list[str] = []
    hollow = residency.hollow

    def counted(build: Callable[[], Any]) -> Any:
        made.append("a network")
        return hollow(build)

    monkeypatch.setattr(residency, "hollow", counted)
    loads, evictions, limit = RESIDENCY.load_count, RESIDENCY.eviction_count, RESIDENCY.choices.limit_bytes
    assert limit is not None
    chance, before = random.Random(7), 0
    for at in range(count):
        text = TEXTS[chance.randrange(len(TEXTS))]
        task = JobAttempt(f"job {at}", "local", 1, job(at, chance.randrange(3), text), (), {})
        ended = runner.run(task, lambda *_: None)
        assert ended.state is State.SUCCEEDED, ended.failure
        assert RESIDENCY.bytes_on(CPU) <= limit
        loaded, left = RESIDENCY.load_count - loads, RESIDENCY.eviction_count - evictions
        assert loaded - left == len(RESIDENCY.held())
        assert loaded == len(made)
        if at + 1 == early:
            before = resident_bytes()
    assert count / 3 < len(made), "three models take turns in the room of two and a half"
    return before, resident_bytes()


def test_sixty_jobs_account_for_each_load(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    ran(runner, monkeypatch, 60, 30)


@pytest.mark.slow
def test_ten_thousand_jobs_leave_memory_as_it_was(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = ran(runner, monkeypatch, 10_000, 2_000)
    assert after - before < 8_000_000
