"""The plan against what a process really takes: anonymous memory, looked at while a guided run goes on."""

import ctypes
import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.small_machine import anonymous_gb, watched
from sigmagraph.engine.models import Conditioning, load_diffusion_model
from sigmagraph.engine.models.arch import MMDiTShape
from sigmagraph.engine.models.memory.choices import MemoryChoices
from sigmagraph.engine.models.memory.residency import RESIDENCY
from sigmagraph.engine.sampling import ComfyNoise, Sampling, find_schedule, run_sigmas
from tests.weights import drawn_weights

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="RssAnon is Linux's")
OF_DEMO = MMDiTShape(6, 256, 64, 96, 24)  # about the size of the demo model: the plan counts nothing beside it
LARGER = MMDiTShape(6, 512, 64, 96, 48)
BESIDE_GB = 0.1  # what a run of a small network may take beside its weights


@pytest.fixture(autouse=True)
def own_choices() -> Iterator[None]:
    before = RESIDENCY.choices
    RESIDENCY.free()
    yield
    RESIDENCY.choices = before
    RESIDENCY.free()


def taken_and_planned(path: Path, shape: MMDiTShape, memory: str, pixels: int) -> tuple[float, float, float]:
    """The most that a guided run took beyond what was there before, what was planned, and the weights, GB."""
    save_file({name: tensor.half() for name, tensor in drawn_weights(shape).items()}, path)
    RESIDENCY.choices = MemoryChoices.parse("fp32", memory, "cpu")
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free and still ours would be taken again unseen
    before = anonymous_gb()
    with torch.inference_mode(), watched() as peak:
        model = load_diffusion_model(path)
        plan = RESIDENCY.plan([model.recipe])
        sides = [Conditioning(torch.ones(1, rows, 96), torch.ones(1, 64)) for rows in (77, 154)]
        sigmas = run_sigmas(find_schedule("normal"), model.parameterisation.levels, 3, 1.0, False)
        latent = torch.zeros(1, 16, pixels // 8, pixels // 8)
        Sampling(model.guided(*sides, 4.0), latent, sigmas, model.parameterisation, noise=ComfyNoise(1)).run()
    return peak[0] - before, plan.peak_bytes / 1e9, model.recipe.part().dense_bytes / 1e9


def test_a_guided_run_takes_its_weights_and_no_more_than_planned(tmp_path: Path) -> None:
    taken, planned, weights = taken_and_planned(tmp_path / "a.safetensors", LARGER, "resident", 256)
    assert weights > 0.1
    assert 0.8 * weights <= taken <= planned <= 5 * taken
    streamed, planned, _ = taken_and_planned(tmp_path / "b.safetensors", LARGER, "stream", 256)
    assert streamed <= planned


def test_a_run_of_the_demos_size_takes_its_weights_and_a_tenth_of_a_gigabyte(tmp_path: Path) -> None:
    taken, planned, weights = taken_and_planned(tmp_path / "a.safetensors", OF_DEMO, "auto", 128)
    assert 0.02 <= weights < 0.06
    assert taken <= planned + BESIDE_GB
