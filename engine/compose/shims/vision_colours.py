"""Further functions of torchvision for packs: colours weakened or strengthened, and pictures moved as a whole.

Definitions as in `vision`. Tensors are [..., C, H, W], numbers 0..1 or bytes.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance
from torch import Tensor

__all__ = ["moved", "named"]

LUMA = (0.2989, 0.587, 0.114)


def rgb_to_grayscale(img: Any, num_output_channels: int = 1) -> Any:
    """Brightness by BT.601, as one channel or as three equal ones."""
    if isinstance(img, Image.Image):
        plane = img.convert("L")
        return plane if num_output_channels == 1 else Image.merge("RGB", (plane, plane, plane))
    grey = _grey(img).to(img.dtype)
    return grey if num_output_channels == 1 else grey.repeat_interleave(3, dim=-3)


def adjust_brightness(img: Any, brightness_factor: float) -> Any:
    """Towards black below 1, away from it above."""
    if isinstance(img, Image.Image):
        return ImageEnhance.Brightness(img).enhance(brightness_factor)
    return _blended(img, torch.zeros_like(img), brightness_factor)


def adjust_contrast(img: Any, contrast_factor: float) -> Any:
    """Towards the mean brightness below 1, away from it above."""
    if isinstance(img, Image.Image):
        return ImageEnhance.Contrast(img).enhance(contrast_factor)
    return _blended(img, _grey(img).mean(dim=(-3, -2, -1), keepdim=True), contrast_factor)


def adjust_saturation(img: Any, saturation_factor: float) -> Any:
    """Towards grey below 1, away from it above."""
    if isinstance(img, Image.Image):
        return ImageEnhance.Color(img).enhance(saturation_factor)
    return _blended(img, _grey(img), saturation_factor)


def _grey(img: Tensor) -> Tensor:
    """Brightness [..., 1, H, W]; of bytes in whole numbers."""
    if img.shape[-3] == 1:
        return img.float() if not img.is_floating_point() else img
    red, green, blue = img.float().unbind(-3) if not img.is_floating_point() else img.unbind(-3)
    grey = (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue).unsqueeze(-3)
    return grey if img.is_floating_point() else grey.floor()


def _blended(img: Tensor, other: Tensor, share: float) -> Tensor:
    bound = 1.0 if img.is_floating_point() else 255.0
    return (share * img + (1.0 - share) * other).clamp(0, bound).to(img.dtype)


def moved(back: Callable[[Tensor], Any], forth: Callable[[Any], Tensor], modes: Callable[[Any], str]) -> Any:
    """`affine`, given how Pillow images become tensors of bytes and tensors images, and how values are found."""

    def affine(
        img: Any,
        angle: float,
        translate: Sequence[float],
        scale: float,
        shear: Any,
        interpolation: Any = "nearest",
        fill: Any = None,
        center: Sequence[float] | None = None,
    ) -> Any:
        """Turned by degrees with the clock, sheared, scaled round `center` (x, y), then shifted by pixels."""
        picture = forth(img) if isinstance(img, Image.Image) else img
        rows = picture.reshape(-1, *picture.shape[-3:]).float()
        height, width = rows.shape[-2:]
        middle = (width / 2, height / 2) if center is None else center
        inverse = torch.linalg.inv(_change(angle, scale, shear).double())
        y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        from_middle = torch.stack([x - middle[0] - translate[0], y - middle[1] - translate[1]], -1).double()
        places = from_middle @ inverse.T + torch.tensor(middle, dtype=torch.float64)
        grid = (places / torch.tensor([width / 2, height / 2]) - 1).float().expand(len(rows), -1, -1, -1)
        beside = torch.cat([rows, torch.ones_like(rows[:, :1])], 1)
        made = F.grid_sample(beside, grid.to(rows.device), mode=modes(interpolation), align_corners=False)
        made, share = made[:, :-1], made[:, -1:]
        if fill is not None:
            made = made + (1 - share) * torch.as_tensor(fill).to(rows).reshape(1, -1, 1, 1)
        made = made if picture.is_floating_point() else made.round().clamp(0, 255)
        result = made.to(picture.dtype).reshape(picture.shape)
        return back(result) if isinstance(img, Image.Image) else result

    return affine


def _change(angle: float, scale: float, shear: Any) -> Tensor:
    """The linear map from a place in the picture to where it goes, y downwards; shears in degrees along x and y."""
    along = (shear, 0.0) if isinstance(shear, int | float) else (*shear, 0.0)[:2]
    turn, first, second = (math.radians(value) for value in (angle, *along))
    a, c = math.cos(turn - second) / math.cos(second), math.sin(turn - second) / math.cos(second)
    b, d = -a * math.tan(first) - math.sin(turn), -c * math.tan(first) + math.cos(turn)
    return scale * torch.tensor([[a, b], [c, d]])


def named() -> dict[str, Callable[..., Any]]:
    """The functions of colours by their names."""
    functions = (adjust_brightness, adjust_contrast, adjust_saturation, rgb_to_grayscale)
    return {function.__name__: function for function in functions}
