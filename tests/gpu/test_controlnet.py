"""ControlNets on a card: as on the processor, and the same bits streamed. `pytest -m gpu tests/gpu`."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.models import Control, load_controlnet
from sigmagraph.engine.models.load import load_diffusion_model
from sigmagraph.engine.models.memory.choices import MemoryChoices
from sigmagraph.engine.models.memory.residency import RESIDENCY
from tests.gpu.test_product import SHAPE, file, off, own_choices, text  # noqa: F401  # fixtures are used by name
from tests.tiny import write_controlnet

pytestmark = pytest.mark.gpu
HINT = torch.rand(1, 256, 256, 3, generator=torch.Generator().manual_seed(1))


class MeanVae:
    """A stand-in for an autoencoder: the means of 8 x 8 pixels, in every channel."""

    def encode(self, image: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(image.movedim(-1, 1).mean(1, keepdim=True), 8).expand(-1, 16, -1, -1)


def predicted(model: Path, net: Path, device: str, memory: str) -> Tensor:
    """Both sides of guidance at one level, the net on each."""
    RESIDENCY.free()
    RESIDENCY.choices = MemoryChoices.parse("fp32", memory, device)
    loaded, state = load_diffusion_model(model), torch.randn(1, 16, 32, 32, generator=torch.Generator().manual_seed(2))
    acting = Control(load_controlnet(net), HINT, MeanVae(), strength=0.7)
    entries = [text(seed).with_control(acting) for seed in (1, 2)]
    with torch.inference_mode():
        found = loaded.predict(state.to(loaded.placement.device), 0.6, entries)
    return torch.cat(found).cpu()


def test_a_prediction_is_the_processors_and_streamed_the_same_bits(
    cuda: torch.device,
    file: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    net = write_controlnet(tmp_path / "blur.safetensors", SHAPE, kind=0)
    expected = predicted(file, net, "cpu", "auto")
    resident, streamed = (predicted(file, net, "cuda", memory) for memory in ("resident", "stream"))
    assert off(resident, expected) < 1e-4
    assert torch.equal(streamed, resident)
