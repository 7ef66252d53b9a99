"""Tensors, state dicts and prompts: `comfy.utils`, `comfy.sd1_clip`, `comfy.latent_formats`."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models.text.prompt import segments
from sigmagraph.engine.sampling.resize import resized
from sigmagraph.nodes.images.sizes import scaled

__all__ = ["names"]

StateDict = dict[str, Any]
HIDDEN = (("\\(", "\0\2"), ("\\)", "\0\1"))


def common_upscale(samples: Tensor, width: int, height: int, upscale_method: str, crop: str) -> Tensor:
    """Samples [B, C, h, w] as [B, C, height, width]; `crop` "center" first takes the middle of their proportions."""
    if upscale_method == "lanczos":
        return scaled(samples.movedim(1, -1), width, height, upscale_method, crop == "center").movedim(-1, 1)
    return resized(samples, width, height, upscale_method, crop=crop == "center")


def repeat_to_batch_size(tensor: Tensor, batch_size: int, dim: int = 0) -> Tensor:
    """The tensor repeated or cut along `dim` to so many entries."""
    own = tensor.shape[dim]
    if own > batch_size:
        return tensor.narrow(dim, 0, batch_size)
    repeats = [1] * tensor.ndim
    repeats[dim] = math.ceil(batch_size / own)
    return tensor.repeat(repeats).narrow(dim, 0, batch_size)


def resize_to_batch_size(tensor: Tensor, batch_size: int) -> Tensor:
    """So many entries: spread over the batch where there are too many, blended between neighbours where too few."""
    own = tensor.shape[0]
    if own == batch_size:
        return tensor
    places = torch.linspace(0, own - 1, batch_size, device=tensor.device)
    if batch_size < own:
        return tensor[places.round().long()]
    low = places.floor().long()
    share = (places - low).reshape(-1, *[1] * (tensor.ndim - 1)).to(tensor.dtype)
    return tensor[low] * (1 - share) + tensor[(low + 1).clamp(max=own - 1)] * share


def get_tiled_scale_steps(width: int, height: int, tile_x: int, tile_y: int, overlap: int) -> int:
    """How many tiles cover a picture."""
    rows = 1 if height <= tile_y else math.ceil((height - overlap) / (tile_y - overlap))
    columns = 1 if width <= tile_x else math.ceil((width - overlap) / (tile_x - overlap))
    return rows * columns


def tiled_scale(
    samples: Tensor,
    function: Callable[[Tensor], Tensor],
    tile_x: int = 64,
    tile_y: int = 64,
    overlap: int = 8,
    upscale_amount: float = 4,
    out_channels: int = 3,
    output_device: str | torch.device = "cpu",
    pbar: Any = None,
) -> Tensor:
    """Samples [B, C, h, w] through `function` tile by tile, blended linearly over the overlap."""
    batch, _, height, width = samples.shape
    out_height, out_width = round(height * upscale_amount), round(width * upscale_amount)
    made = torch.zeros(batch, out_channels, out_height, out_width, device=output_device)
    weights = torch.zeros(1, 1, out_height, out_width, device=output_device)
    for top in _starts(height, tile_y, overlap):
        for left in _starts(width, tile_x, overlap):
            part = function(samples[..., top : top + tile_y, left : left + tile_x]).to(output_device)
            edge = round(overlap * upscale_amount)
            ramp = _ramp(part.shape[-2], edge).unsqueeze(-1) * _ramp(part.shape[-1], edge)
            rows = slice(round(top * upscale_amount), round(top * upscale_amount) + part.shape[-2])
            columns = slice(round(left * upscale_amount), round(left * upscale_amount) + part.shape[-1])
            made[..., rows, columns] += part * ramp.to(output_device)
            weights[..., rows, columns] += ramp.to(output_device)
            if pbar is not None:
                pbar.update(1)
    return made / weights


def tiled_scale_multidim(
    samples: Tensor,
    function: Callable[[Tensor], Tensor],
    tile: tuple[int, ...] = (64, 64),
    overlap: int | tuple[int, ...] = 8,
    upscale_amount: float = 4,
    out_channels: int = 3,
    output_device: str | torch.device = "cpu",
    downscale: bool = False,
    pbar: Any = None,
    **_: Any,
) -> Tensor:
    """The same with sizes as (height, width); `downscale` divides by the amount. Pictures have two sides here."""
    if len(tile) != 2:
        raise BadValue("tile", list(tile), "[height, width]: this engine has no latents of video or sound")
    amount = 1 / upscale_amount if downscale else upscale_amount
    overlaps = (overlap,) * 2 if isinstance(overlap, int) else overlap
    sizes = tile[1], tile[0], max(overlaps), amount, out_channels, output_device
    return tiled_scale(samples, function, *sizes, pbar)


def _starts(size: int, tile: int, overlap: int) -> Iterator[int]:
    if size <= tile:
        yield 0
        return
    step = max(tile - overlap, 1)
    for start in range(0, size - overlap, step):
        yield min(start, size - tile)


def _ramp(size: int, edge: int) -> Tensor:
    """1 inside, falling towards both ends within `edge`."""
    places = torch.arange(size)
    nearest = torch.minimum(places, size - 1 - places) + 1
    return (nearest / (edge + 1)).clamp(max=1.0) if edge else torch.ones(size)


def state_dict_prefix_replace(
    state_dict: StateDict, replace_prefix: Mapping[str, str], filter_keys: bool = False
) -> Any:
    """Names that begin with a prefix begin with another; with `filter_keys` only those are kept."""
    kept = {} if filter_keys else state_dict
    for prefix, other in replace_prefix.items():
        for name in [name for name in state_dict if name.startswith(prefix)]:
            kept[other + name[len(prefix) :]] = state_dict.pop(name)
    return kept


def state_dict_key_replace(state_dict: StateDict, keys_to_replace: Mapping[str, str]) -> StateDict:
    """Some entries under other names."""
    for name, other in keys_to_replace.items():
        if name in state_dict:
            state_dict[other] = state_dict.pop(name)
    return state_dict


def save_torch_file(state_dict: StateDict, path: str, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors."""
    save_file({name: value.contiguous() for name, value in state_dict.items()}, path, metadata=dict(metadata or {}))


def set_attr(obj: Any, path: str, value: Any) -> Any:
    """Set `a.b.c`; what was there before is returned."""
    *inner, last = path.split(".")
    for name in inner:
        obj = getattr(obj, name)
    before = getattr(obj, last)
    setattr(obj, last, value)
    return before


def get_attr(obj: Any, path: str) -> Any:
    """Get `a.b.c`."""
    for name in path.split("."):
        obj = getattr(obj, name)
    return obj


def reshape_mask(mask: Tensor, shape: torch.Size) -> Tensor:
    """A mask [..., h, w] for samples of `shape` [B, C, H, W]: scaled bilinearly, one for each channel and entry."""
    flat = mask.reshape(-1, 1, *mask.shape[-2:])
    fitted = torch.nn.functional.interpolate(flat, size=shape[-2:], mode="bilinear")
    return repeat_to_batch_size(fitted.expand(-1, shape[1], -1, -1), shape[0])


def escape_important(text: str) -> str:
    """Escaped parentheses out of the way of those that weigh."""
    for shown, hidden in HIDDEN:
        text = text.replace(shown, hidden)
    return text


def unescape_important(text: str) -> str:
    """The parentheses back, without their backslashes."""
    return text.replace("\0\1", ")").replace("\0\2", "(")


def token_weights(string: str, current_weight: float) -> list[tuple[str, float]]:
    """A prompt as stretches of text with their weights."""
    return [(segment.text, segment.weight * current_weight) for segment in segments(string)]


@dataclass(frozen=True)
class LatentFormat:
    """How a family's latents are scaled; the numbers are those of the models' own configurations."""

    scale_factor: float = 1.0
    shift_factor: float = 0.0
    latent_channels: int = 4
    latent_dimensions: int = 2
    spacial_downscale_ratio: int = 8
    latent_rgb_factors: Any = None
    latent_rgb_factors_bias: Any = None
    taesd_decoder_name: str | None = None

    def process_in(self, latent: Tensor) -> Tensor:
        """From the autoencoder's units to the model's."""
        return (latent - self.shift_factor) * self.scale_factor

    def process_out(self, latent: Tensor) -> Tensor:
        """From the model's units to the autoencoder's."""
        return latent / self.scale_factor + self.shift_factor


def _format(name: str, *numbers: Any) -> type[LatentFormat]:
    fields = dict(zip(("scale_factor", "shift_factor", "latent_channels"), numbers, strict=False))
    return type(name, (LatentFormat,), {"__init__": lambda self: LatentFormat.__init__(self, **fields), **fields})


FORMATS = {
    "SD15": (0.18215,), "SDXL": (0.13025,), "SD3": (1.5305, 0.0609, 16), "Flux": (0.3611, 0.1159, 16),
}  # fmt: skip


def names() -> dict[str, dict[str, Any]]:
    """The modules of plain arithmetic."""
    formats = {name: _format(name, *numbers) for name, numbers in FORMATS.items()}
    return {
        "comfy.utils": {
            "PROGRESS_BAR_ENABLED": True,
            **{name: {} for name in ("TRANSFORMER_BLOCKS", "UNET_MAP_ATTENTIONS", "UNET_MAP_RESNET")},
            "UNET_MAP_BASIC": set(),  # names of U-Nets' parts: no model here has one
            "bislerp": lambda samples, width, height: resized(samples, width, height, "bislerp"),
            "calculate_parameters": lambda tensors, prefix="": sum(
                value.numel() for name, value in tensors.items() if name.startswith(prefix)
            ),
            "common_upscale": common_upscale,
            "get_attr": get_attr,
            "get_tiled_scale_steps": get_tiled_scale_steps,
            "lanczos": lambda samples, width, height: common_upscale(samples, width, height, "lanczos", "disabled"),
            "repeat_to_batch_size": repeat_to_batch_size,
            "reshape_mask": reshape_mask,
            "resize_to_batch_size": resize_to_batch_size,
            "save_torch_file": save_torch_file,
            "set_attr": set_attr,
            "state_dict_key_replace": state_dict_key_replace,
            "state_dict_prefix_replace": state_dict_prefix_replace,
            "tiled_scale": tiled_scale,
            "tiled_scale_multidim": tiled_scale_multidim,
        },
        "comfy.sd1_clip": {
            "escape_important": escape_important,
            "token_weights": token_weights,
            "unescape_important": unescape_important,
        },
        "comfy.latent_formats": {"LatentFormat": LatentFormat, **formats},
    }
