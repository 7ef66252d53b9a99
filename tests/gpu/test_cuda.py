"""What only a CUDA device can show: `pytest -m gpu tests/gpu`. Needs torch and transformers, nothing of the server."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.errors import BadPrediction, OutOfMemory
from sigmagraph.engine.models import autoencoding
from sigmagraph.engine.models.arch import Autoencoder, MMDiT, MMDiTShape, VaeShape, strips
from sigmagraph.engine.models.arch.strips import Keeping
from sigmagraph.engine.models.conditioning import Conditioning
from sigmagraph.engine.models.memory.device import Placement, available_bytes
from sigmagraph.engine.models.memory.plan import Budget, Part, plan
from sigmagraph.engine.models.memory.residency import ready
from sigmagraph.engine.models.spec import sd3_spec
from sigmagraph.engine.models.value import Model
from sigmagraph.engine.sampling import (
    SOLVERS,
    Cfg,
    ComfyNoise,
    NoiseSource,
    PhiloxNoise,
    Sampling,
    Unguided,
    find_schedule,
    run_sigmas,
    sd3,
)

pytestmark = pytest.mark.gpu
SHAPE = MMDiTShape(3, 128, 64, 96, 32, dual_attention_blocks=frozenset({0}))
STEPS = 6


def model(device: torch.device, dtype: torch.dtype = torch.float32) -> Model:
    """The same random network on every device."""
    torch.manual_seed(0)
    network = MMDiT(SHAPE).requires_grad_(False).eval()
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.05)
    spec = sd3_spec(SHAPE)
    return Model(ready(network.to(device, dtype), Placement(device, dtype)), spec, spec.parameterisation)


def conditionings() -> tuple[Conditioning, Conditioning]:
    generator = torch.Generator().manual_seed(1)
    first, second = (
        Conditioning(torch.randn(1, 20, 96, generator=generator), torch.randn(1, 64, generator=generator))
        for _ in range(2)
    )
    return first, second


def sampled(made: Model, sampler: str, noise: NoiseSource) -> Tensor:
    """A run of six guided steps, back on the CPU."""
    latent = torch.zeros(1, 16, 32, 32, device=made.placement.device)
    levels = made.parameterisation.levels
    sigmas = run_sigmas(find_schedule("normal"), levels, STEPS, 1.0, False)
    denoiser = made.guided(*conditionings(), 4.0)
    return Sampling(denoiser, latent, sigmas, made.parameterisation, sampler, noise=noise).run().cpu()


def test_nan_on_the_card_is_told_with_its_step(cuda: torch.device) -> None:
    def predict(x: Tensor, sigma: float, conditionings: Sequence[Any]) -> list[Tensor]:
        estimate = x * 0.5
        return [estimate / 0.0 if sigma == sigmas[3] else estimate for _ in conditionings]

    parameterisation = sd3()
    sigmas = run_sigmas(find_schedule("normal"), parameterisation.levels, 8, 1.0, False)
    latent = torch.zeros(1, 16, 32, 32, device=cuda)
    with pytest.raises(BadPrediction, match="step 4, sigma .*NaN or infinity"):
        Sampling(Unguided(predict, None), latent, sigmas, parameterisation, "euler", noise=ComfyNoise(1)).run()


@pytest.mark.parametrize("source", [ComfyNoise(5), PhiloxNoise(5)], ids=["comfy", "counter"])
def test_initial_noise_is_that_of_a_cpu_bit_for_bit(cuda: torch.device, source: NoiseSource) -> None:
    here = torch.empty(3, 16, 64, 64)
    assert torch.equal(source.initial(here), source.initial(here.to(cuda)).cpu())


@pytest.mark.parametrize("sampler", [name for name in SOLVERS if not name.endswith("_gpu")])
def test_a_run_on_the_card_is_that_of_a_cpu(cuda: torch.device, sampler: str) -> None:
    here, there = (sampled(model(device), sampler, PhiloxNoise(7)) for device in (torch.device("cpu"), cuda))
    assert (here - there).norm() <= 2e-3 * here.norm()


def test_the_same_run_twice_is_equal_bit_for_bit(cuda: torch.device) -> None:
    made = model(cuda, torch.bfloat16)
    assert torch.equal(sampled(made, "dpmpp_2m_sde", ComfyNoise(3)), sampled(made, "dpmpp_2m_sde", ComfyNoise(3)))


def test_a_network_that_cannot_fit_is_refused_before_anything_is_allocated(cuda: torch.device) -> None:
    room, before = available_bytes(cuda), torch.cuda.memory_allocated(cuda)
    part = Part("a network", "model", "float32", 2 * room, 2 * room, largest_bytes=2 * room)
    with pytest.raises(OutOfMemory, match=r"a network takes .* GB on cuda:0, which has .* GB left"):
        plan([part], Budget(str(cuda), room, is_host=False)).require()
    assert torch.cuda.memory_allocated(cuda) == before


def test_guidance_of_both_sides_in_one_forward_is_that_of_two(cuda: torch.device) -> None:
    made = model(cuda)
    positive, negative = conditionings()
    x = torch.randn(1, 16, 32, 32, generator=torch.Generator().manual_seed(2)).to(cuda)
    together = Cfg(made.predict, positive, negative, 4.0)(x, 0.5).denoised
    (cond,), (uncond,) = made.predict(x, 0.5, [positive]), made.predict(x, 0.5, [negative])
    torch.testing.assert_close(together, uncond + (cond - uncond) * 4.0, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sampler", [name for name in SOLVERS if name != "dpm_adaptive"])
def test_after_the_first_step_the_host_never_waits_for_the_card(cuda: torch.device, sampler: str) -> None:
    def first_is_over(_: object) -> None:
        torch.cuda.set_sync_debug_mode("error")

    made = model(cuda)
    latent = torch.zeros(1, 16, 32, 32, device=cuda)
    sigmas = run_sigmas(find_schedule("normal"), made.parameterisation.levels, STEPS, 1.0, False)
    guided = made.guided(*conditionings(), 4.0)
    run = Sampling(guided, latent, sigmas, made.parameterisation, sampler, noise=ComfyNoise(7))
    try:
        run.run(on_tick=first_is_over)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("keeping", [Keeping.BLOCKS, Keeping.LEVELS])
def test_strips_on_the_card_are_the_whole_picture(cuda: torch.device, keeping: Keeping) -> None:
    torch.manual_seed(0)
    network = Autoencoder(VaeShape((32, 64, 64, 64))).requires_grad_(False).eval()
    latent = torch.randn(1, 16, 48, 40)
    expected = network.decode(latent)
    found = strips.decoded(network.to(cuda), latent.to(cuda), keeping).cpu()
    assert (found - expected).abs().max() <= 1e-2 * expected.std()


def test_a_card_too_small_for_the_picture_makes_it_in_strips(cuda: torch.device) -> None:
    network = Autoencoder(VaeShape((32, 64, 64, 64))).requires_grad_(False).eval().to(cuda)
    latent = torch.randn(1, 16, 128, 128, device=cuda)
    whole = network.decode(latent)
    torch.cuda.empty_cache()
    held, total = torch.cuda.memory_reserved(cuda), torch.cuda.get_device_properties(cuda).total_memory
    torch.cuda.set_per_process_memory_fraction((held + 0.55e9) / total, cuda)  # whole it takes 0.74 GB and workspaces
    try:
        found = autoencoding.decoded(network, latent)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, cuda)
    assert (found - whole).abs().max() <= 1e-2 * whole.std()


def test_a_kept_prediction_is_read_when_its_copy_has_arrived(cuda: torch.device) -> None:
    pytest.importorskip("pydantic", reason="nodes need it")
    from sigmagraph.engine.sampling.solver import Prediction
    from sigmagraph.nodes.support.kept_predictions import waiting

    value = torch.randn(1, 16, 128, 128, device=cuda)
    held = waiting(Prediction(value))
    torch.cuda.synchronize(cuda)
    assert held.has_arrived()
    assert torch.equal(held.prediction.denoised, value.cpu())
