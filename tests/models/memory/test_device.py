"""Choice of precision, and room for what is to be allocated."""

import pytest
import torch

from sigmagraph.engine.errors import OutOfMemory
from sigmagraph.engine.models.memory.device import compute_dtype, placement, require_room

GIB = 2**30
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("device", "stored", "expected"),
    [
        (CPU, torch.float16, torch.float32),
        (CPU, torch.float8_e4m3fn, torch.float32),
        (CUDA, torch.float16, torch.float16),
        (CUDA, torch.bfloat16, torch.bfloat16),
        (CUDA, torch.float8_e4m3fn, torch.bfloat16),
        (CUDA, torch.float32, torch.float32),
    ],
)
def test_the_precision_follows_the_device_and_the_file(
    device: torch.device, stored: torch.dtype, expected: torch.dtype
) -> None:
    assert compute_dtype(device, stored) == expected
    assert placement(stored, device).dtype == expected


def test_what_cannot_fit_is_refused_with_both_figures() -> None:
    with pytest.raises(OutOfMemory, match=r"the model takes 1000000000\.00 GB on cpu, which has \d+\.\d\d GB left"):
        require_room("the model", 10**18, CPU)
    require_room("the model", 1, CPU)
