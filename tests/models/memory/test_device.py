"""Choice of precision, and room for what is to be allocated."""

import pytest
import torch

from sigmagraph.engine.models.memory.device import compute_dtype

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
