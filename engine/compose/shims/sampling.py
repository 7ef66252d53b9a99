"""Noise, solver parts and previews: `comfy.sample`, `comfy.k_diffusion`, `latent_preview`."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sigmagraph.engine.compose.shims.arithmetic import repeat_to_batch_size
from sigmagraph.engine.compose.shims.helpers import LatentPreviewMethod
from sigmagraph.engine.execution.packs.progress import ProgressBar
from sigmagraph.engine.sampling import SOLVERS
from sigmagraph.engine.sampling.noise import ComfyNoise
from sigmagraph.nodes.support.packs.samplers import called_by_packs

__all__ = ["names"]


def prepare_noise(latent_image: Tensor, seed: int, noise_inds: Any = None) -> Tensor:
    """The noise that a seed means for a latent, drawn on the CPU; `noise_inds` are the places in the batch."""
    places = [int(place) for place in noise_inds] if noise_inds is not None else None
    return ComfyNoise(seed).initial(latent_image.to("cpu"), places or None)


def fix_empty_latent_channels(model: Any, latent_image: Tensor, *_: Any) -> Tensor:
    """A blank latent with as many channels as the model's; any other as it is."""
    channels = model.get_model_object("latent_format").latent_channels
    if latent_image.shape[1] == channels or torch.count_nonzero(latent_image):
        return latent_image
    return repeat_to_batch_size(latent_image, channels, dim=1)


def to_d(x: Tensor, sigma: Tensor, denoised: Tensor) -> Tensor:
    """The slope of the probability-flow ODE (Karras 2022, eq. 3): (x - denoised) / sigma."""
    return (x - denoised) / append_dims(sigma, x.ndim)


def append_dims(x: Tensor, target_dims: int) -> Tensor:
    """The tensor with axes of one added at its end."""
    return x[(...,) + (None,) * (target_dims - x.ndim)]


def get_ancestral_step(sigma_from: Any, sigma_to: Any, eta: float = 1.0) -> tuple[Any, Any]:
    """How far to go down, and how much noise to add, so that the step ends at `sigma_to`."""
    if not eta:
        return sigma_to, 0.0
    up = min(sigma_to, eta * (sigma_to**2 * (sigma_from**2 - sigma_to**2) / sigma_from**2) ** 0.5)
    return (sigma_to**2 - up**2) ** 0.5, up


def default_noise_sampler(x: Tensor, seed: int | None = None) -> Callable[[Any, Any], Tensor]:
    """Unit normal noise like `x`, step after step."""
    generator = torch.Generator("cpu").manual_seed(seed) if seed is not None else None
    return lambda sigma, sigma_next: torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)


def spread(n: int, low: float, high: float, rho: float, *, is_in_logarithm: bool, device: Any = "cpu") -> Tensor:
    """`n` levels from `high` to `low`, then 0: even in the rho-th root (Karras 2022, eq. 5) or in the logarithm."""
    ramp = torch.linspace(1, 0, n, dtype=torch.float64)
    if is_in_logarithm:
        levels = torch.exp(ramp**rho * (math.log(high) - math.log(low)) + math.log(low))
    else:
        levels = (low ** (1 / rho) + ramp * (high ** (1 / rho) - low ** (1 / rho))) ** rho
    return torch.cat([levels, torch.zeros(1, dtype=torch.float64)]).float().to(device)


def get_sigmas_karras(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0, device: Any = "cpu") -> Tensor:
    """Karras' levels."""
    return spread(n, sigma_min, sigma_max, rho, is_in_logarithm=False, device=device)


def get_sigmas_polyexponential(
    n: int, sigma_min: float, sigma_max: float, rho: float = 1.0, device: Any = "cpu"
) -> Tensor:
    """Powers in the logarithm of the level."""
    return spread(n, sigma_min, sigma_max, rho, is_in_logarithm=True, device=device)


def get_sigmas_exponential(n: int, sigma_min: float, sigma_max: float, device: Any = "cpu") -> Tensor:
    """Even steps in the logarithm of the level."""
    return get_sigmas_polyexponential(n, sigma_min, sigma_max, 1.0, device)


def prepare_callback(model: Any, steps: int, x0_output_dict: dict[str, Any] | None = None) -> Callable[..., None]:
    """What a sampler calls after each step: it reports progress, and keeps the last estimate where it is asked to."""
    bar = ProgressBar(steps)

    def after_step(step: int, x0: Tensor, x: Tensor, total_steps: int) -> None:
        if x0_output_dict is not None:
            x0_output_dict["x0"] = x0
        bar.update_absolute(step + 1, total_steps)

    return after_step


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None, **_: Any) -> Tensor:
    """Attention of queries, keys and values [B, N, heads * D] as [B, N, heads * D]."""
    batch, width = q.shape[0], q.shape[-1]
    q, k, v = (rows.view(batch, -1, heads, width // heads).transpose(1, 2) for rows in (q, k, v))
    found = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return found.transpose(1, 2).reshape(batch, -1, width)


class FolderOfImages:
    """Packs ask it for the endings of pictures."""

    IMG_EXTENSIONS = frozenset((".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))


def names() -> dict[str, dict[str, Any]]:
    """The modules of sampling."""
    own = (append_dims, default_noise_sampler, get_ancestral_step, to_d)
    levels = (get_sigmas_exponential, get_sigmas_karras, get_sigmas_polyexponential)
    steps = {function.__name__: function for function in (*own, *levels)}
    samplers = {f"sample_{name}": partial(called_by_packs, SOLVERS[name]) for name in SOLVERS}
    return {
        "comfy.sample": {
            "fix_empty_latent_channels": fix_empty_latent_channels,
            "np": np,
            "prepare_noise": prepare_noise,
        },
        "comfy.k_diffusion": {},
        "comfy.k_diffusion.sampling": {**samplers, **steps},
        "comfy.k_diffusion.utils": {"FolderOfImages": FolderOfImages, "append_dims": append_dims},
        "comfy.ldm.modules.attention": {
            "attention_basic": attention,
            "attention_pytorch": attention,
            "optimized_attention": attention,
            "optimized_attention_masked": attention,
            "wrap_attn": lambda function: function,
        },
        "latent_preview": {
            "LatentPreviewMethod": LatentPreviewMethod,
            "get_previewer": lambda *_, **__: None,
            "prepare_callback": prepare_callback,
            "set_preview_method": lambda *_, **__: None,
        },
    }
