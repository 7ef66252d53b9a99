"""The device of the tests that need one: where there is none, they fail and say so."""

import pytest
import torch


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """The first CUDA device. These tests are asked for by name (`-m gpu`), so that its absence is a failure.

    Convolutions compute in float32 proper: in TF32, torch's default, two algorithms differ by 2 % of a picture's scale.
    """
    monkeypatch.setattr("torch.backends.cudnn.allow_tf32", False)
    if not torch.cuda.is_available():
        pytest.fail("torch sees no CUDA device on this machine")
    return torch.device("cuda", 0)
