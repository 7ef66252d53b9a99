from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.execution.cache.checkpoint import Checkpoints
from sigmagraph.engine.graph.kept import Kept
from sigmagraph.engine.sampling import SOLVERS, Cfg, ComfyNoise, Sampling, sd3
from sigmagraph.engine.sampling.solver import Prediction
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support import kept_predictions
from sigmagraph.nodes.support.kept_predictions import KeptPredictions, packed, resumed, unpacked

CPU = torch.device("cpu")
SIGMAS = [1.0, 0.85, 0.6, 0.35, 0.15, 0.0]


class Counted:
    """A model of two lines that counts its calls, and dies at one of them."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.calls, self.dies_at = 0, dies_at

    def __call__(self, x: Tensor, sigma: float, conditionings: Any) -> list[Tensor]:
        self.calls += 1
        if self.calls == self.dies_at:
            raise KeyboardInterrupt
        return [torch.tanh(x * (1.0 + sigma) + conditioning) / 2 for conditioning in conditionings]


def run(name: str, model: Counted, recording: KeptPredictions) -> Tensor:
    denoiser = Cfg(model, 0.3, -0.2, 3.0)  # type: ignore[arg-type]  # conditionings are whatever the model takes
    latent = torch.zeros(2, 4, 3, 3)
    steps = Sampling(denoiser, latent, SIGMAS, sd3(3.0), name, noise=ComfyNoise(5)).ticks(recording)
    try:
        while True:
            next(steps)
    except StopIteration as end:
        result: Tensor = end.value
        return result
    finally:
        steps.close()
        recording.leave()


def eager(kept: Kept) -> KeptPredictions:
    recording = resumed(kept, CPU)
    recording.budget = float("inf")
    return recording


@pytest.fixture
def kept(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path)


@pytest.mark.parametrize("name", list(SOLVERS))
def test_a_killed_run_resumes_to_the_same_bits_with_fewer_calls(name: str, kept: Checkpoints) -> None:
    whole = Counted()
    undisturbed = run(name, whole, KeptPredictions())
    killed = Counted(dies_at=whole.calls)
    with pytest.raises(KeyboardInterrupt):
        run(name, killed, eager(kept.of("key")))
    second = Counted()
    assert torch.equal(run(name, second, eager(kept.of("key"))), undisturbed)
    assert second.calls <= 3 < whole.calls  # the newest prediction is not written; splitting solvers count per image


def test_a_finished_run_leaves_nothing_behind(kept: Checkpoints) -> None:
    recording = eager(kept.of("key"))
    run("euler", Counted(), recording)
    recording.done()
    second = Counted()
    run("euler", second, eager(kept.of("other")))
    assert second.calls == len(SIGMAS) - 1


def test_predictions_pass_through_bytes_unchanged() -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        made = Prediction(torch.randn(2, 3, 4).to(dtype), None, torch.randn(1).to(dtype))
        read = unpacked(packed(made), CPU)
        assert torch.equal(read.denoised, made.denoised)
        assert read.uncond is None
        assert read.memory is not None
        assert torch.equal(read.memory, made.memory)  # type: ignore[arg-type]  # set two lines above


def test_another_device_or_library_begins_anew(kept: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        run("euler", Counted(dies_at=4), eager(kept.of("key")))
    monkeypatch.setattr("sigmagraph.nodes.support.kept_predictions.environment", lambda: {"torch": "another"})
    assert resumed(kept.of("key"), CPU).predictions == []


def test_writing_stays_within_its_share_of_the_time(kept: Checkpoints) -> None:
    moments = iter(float(n) for n in range(1000))  # every look at the clock is one second later: a write takes one
    recording = resumed(kept.of("key"), CPU)
    recording.clock = lambda: next(moments)
    for _ in range(300):
        recording.add(Prediction(torch.zeros(1)))
    recording.leave()
    assert recording.spent_s <= 4
    assert len(resumed(kept.of("key"), CPU).predictions) > 100


def test_every_node_that_samples_keeps_its_unfinished_work() -> None:
    for name in ("KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced"):
        assert [declared.name for declared in NODES[name].inputs if declared.type == "KEPT"] == ["unfinished"]
        assert "unfinished" not in str(NODES[name].object_info())


class Late:
    """An event of a device: it has passed once the device came that far."""

    def __init__(self, device: "Device") -> None:
        self.device, self.at = device, device.queued

    def query(self) -> bool:
        return self.device.now >= self.at


class Device:
    """An asynchronous device: steps are queued at once, and each takes a tenth of a second. Also the run's clock."""

    def __init__(self) -> None:
        self.now = self.queued = 0.0

    def __call__(self) -> float:
        return self.now


def test_predictions_of_an_asynchronous_device_are_written_once_their_copies_arrived(
    kept: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device()
    monkeypatch.setattr(
        kept_predictions, "waiting", lambda prediction: kept_predictions.Waiting(prediction, Late(device))
    )  # type: ignore[arg-type]
    recording = resumed(kept.of("a"), CPU)
    recording.clock = device
    for _ in range(24):
        device.queued += 0.1
        device.now = max(device.now, device.queued - 0.35)  # the host runs three steps ahead
        recording.add(Prediction(torch.zeros(1, 4, 3, 3)))
    recording.leave()
    written = len(kept.of("a").begin().records()) - 1  # the first says by which software
    assert 20 <= written < 24
