"""Networks whose tensors are put in their places."""

import torch
from torch import nn

from sigmagraph.engine.models.memory.resident import filled, hollow


def test_a_tensor_made_in_inference_mode_fills_a_network_outside_of_it() -> None:
    """A run's network and that of an adapter beside it share what the adapter does not change."""
    with torch.inference_mode():
        made = nn.Parameter(torch.ones(2, 3), requires_grad=False)
    module = filled(hollow(lambda: nn.Linear(3, 2, bias=False)), {"weight": made})
    assert module.weight is made or module.weight.data_ptr() == made.data_ptr()
    assert not module.weight.requires_grad
    assert torch.equal(module(torch.ones(1, 3)), torch.full((1, 2), 3.0))
