"""Scaled float8 files: weights are multiplied out, biases keep their precision."""

import torch
from safetensors.torch import load_file

from sigmagraph.engine.models import load_diffusion_model
from tests.models.conftest import Arrays, Unpack


def test_a_scaled_file_gives_the_velocity_of_its_dequantised_weights(unpack: Unpack, arrays: Arrays) -> None:
    model = load_diffusion_model(unpack("mmdit_fp8_scaled.safetensors"))
    io = arrays("mmdit_fp8_scaled")[""]
    with torch.no_grad():
        velocity = model.network(io["x"], io["t"], io["y"], io["context"])
    torch.testing.assert_close(velocity, io["out.dequantised"], rtol=0, atol=1e-4)


def test_rounding_the_biases_to_float8_gives_comfyuis_velocity(unpack: Unpack, arrays: Arrays) -> None:
    """The only difference from ComfyUI on such files, shown by making it."""
    path = unpack("mmdit_fp8_scaled.safetensors")
    stored, model = load_file(path), load_diffusion_model(path)
    for name, parameter in model.network.named_parameters():
        scaled = f"model.diffusion_model.{name.removesuffix('.bias')}.scale_weight"
        if name.endswith(".bias") and scaled in stored:
            parameter.copy_(parameter.to(torch.float8_e4m3fn).float())
    io = arrays("mmdit_fp8_scaled")[""]
    with torch.no_grad():
        velocity = model.network(io["x"], io["t"], io["y"], io["context"])
    torch.testing.assert_close(velocity, io["out.comfy"], rtol=0, atol=1e-4)
