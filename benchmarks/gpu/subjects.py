"""What is measured: SD3.5 Large and Medium with random weights, tiny ones when dry, driven as nodes drive them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.bench import Bench
from sigmagraph.engine.models.arch import MMDiT, MMDiTShape
from sigmagraph.engine.models.conditioning import Conditioning
from sigmagraph.engine.models.memory.device import Placement
from sigmagraph.engine.models.memory.residency import ready
from sigmagraph.engine.models.spec import sd3_spec
from sigmagraph.engine.models.value import Model
from sigmagraph.engine.sampling import ComfyNoise, NoiseSource, Sampling, find_schedule, find_solver, run_sigmas
from sigmagraph.engine.sampling.rehearsal import rehearsed

LARGE = MMDiTShape(38, 2432, 2048, 4096, 192)
MEDIUM = MMDiTShape(24, 1536, 2048, 4096, 384, dual_attention_blocks=frozenset(range(13)))
TINY_LARGE = MMDiTShape(4, 128, 64, 96, 64)
TINY_MEDIUM = MMDiTShape(4, 128, 64, 96, 64, dual_attention_blocks=frozenset({0}))
GUIDANCE_SCALE = 4.5
TEXT_TOKENS = 154  # CLIP's 77 and T5's 77


@dataclass(frozen=True)
class Subject:
    """A model and the run that is measured: `steps` at `pixels` a side."""

    model: Model
    steps: int
    pixels: int
    tokens: int

    @property
    def network(self) -> MMDiT:
        """The transformer."""
        return self.model.network

    @property
    def shape(self) -> MMDiTShape:
        """Its sizes."""
        return self.model.spec.shape

    def conditionings(self) -> tuple[Conditioning, Conditioning]:
        """Positive and negative, on the CPU, as text encoders leave them."""
        generator = torch.Generator().manual_seed(1)

        def made(*sizes: int) -> Tensor:
            return torch.randn(1, *sizes, generator=generator)

        shape = self.shape
        first, second = (
            Conditioning(made(self.tokens, shape.context_width), made(shape.pooled_width)) for _ in range(2)
        )
        return first, second

    def sampled(
        self,
        *,
        scale: float = GUIDANCE_SCALE,
        steps: int | None = None,
        width: int | None = None,
        height: int | None = None,
        sampler: str = "euler",
        noise: NoiseSource | None = None,
    ) -> Tensor:
        """A picture's latent in model space, through the sampler core, from blank."""
        rows, columns = ((side or self.pixels) // 8 for side in (height, width))
        latent = torch.zeros(1, self.shape.in_channels, rows, columns, device=self.model.placement.device)
        parameterisation = self.model.parameterisation
        sigmas = run_sigmas(find_schedule("normal"), parameterisation.levels, steps or self.steps, 1.0, False)
        denoiser = self.model.guided(*self.conditionings(), scale)
        self.model.expect(rehearsed(find_solver(sampler), sigmas, parameterisation))
        return Sampling(denoiser, latent, sigmas, parameterisation, sampler, noise=noise or ComfyNoise(1)).run()

    def inputs(self, batch: int = 2, pixels: int | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What one forward takes, on the device: latent, timestep, pooled, context."""
        device, side = self.model.placement.device, (pixels or self.pixels) // 8
        generator = torch.Generator(device).manual_seed(2)

        def made(*sizes: int) -> Tensor:
            return torch.randn(batch, *sizes, generator=generator, device=device)

        latent, pooled = made(self.shape.in_channels, side, side), made(self.shape.pooled_width)
        return latent, torch.full((batch,), 500.0, device=device), pooled, made(self.tokens, self.shape.context_width)


def large(bench: Bench) -> Subject:
    """SD3.5 Large; made at the first call and kept until `forget`."""
    return _subject(bench.device, TINY_LARGE if bench.is_dry else LARGE, bench.is_dry)


def medium(bench: Bench) -> Subject:
    """SD3.5 Medium."""
    return _subject(bench.device, TINY_MEDIUM if bench.is_dry else MEDIUM, bench.is_dry)


def forget(bench: Bench) -> None:
    """Free both models."""
    _subject.cache_clear()
    bench.tidy()


@cache
def _subject(device: torch.device, shape: MMDiTShape, is_dry: bool) -> Subject:
    spec, dtype = sd3_spec(shape), torch.bfloat16
    network = randomised(lambda: MMDiT(shape), device, dtype)
    model = Model(ready(network, Placement(device, dtype)), spec, spec.parameterisation)
    return Subject(model, steps=3, pixels=128, tokens=20) if is_dry else Subject(model, 25, 1024, TEXT_TOKENS)


def randomised(build: Callable[[], Any], device: torch.device, dtype: torch.dtype) -> Any:
    """The module that `build` makes, on `device`: matrices normal and scaled by fan-in, norms one, biases zero."""
    with torch.device("meta"):
        module = build().to(dtype)
    module = module.to_empty(device=device).requires_grad_(False).eval()
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            fan_in = parameter[0].numel() if parameter.ndim in (2, 4) else 2500
            parameter.normal_(0.0, 0.5 / fan_in**0.5, generator=generator)
        elif name.endswith("weight"):
            parameter.fill_(1.0)
        else:
            parameter.zero_()
    for buffer in module.buffers():
        buffer.zero_()
    return module


@cache
def operations(shape: MMDiTShape, pixels: int, batch: int, tokens: int) -> float:
    """Floating-point operations of one forward, counted on the meta device."""
    with torch.device("meta"):
        network = MMDiT(shape)
        side = pixels // 8
        latent, timestep = torch.empty(batch, shape.in_channels, side, side), torch.empty(batch)
        pooled, context = torch.empty(batch, shape.pooled_width), torch.empty(batch, tokens, shape.context_width)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(latent, timestep, pooled, context)
    return float(counter.get_total_flops())


def relative_error(found: Tensor, reference: Tensor) -> float:
    """Norm of the difference over the norm of the reference."""
    return float((found.float() - reference.float()).norm() / reference.float().norm())
