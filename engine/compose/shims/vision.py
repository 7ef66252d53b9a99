"""A part of torchvision for packs, offered where the real one is not installed: changes of pictures, no networks.

Pictures are Pillow images or tensors [..., C, H, W]; results follow what torchvision documents. Source of the
definitions: the reference of `torchvision.transforms.functional`, release 0.20.
"""

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sigmagraph.engine.compose.shims import vision_colours
from sigmagraph.engine.compose.shims.absent import absent

__all__ = ["names", "offer"]

Picture = Any
"""A Pillow image or a tensor [..., C, H, W]; results are of the same kind."""


class InterpolationMode(Enum):
    """How values between pixels are found."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"

    @classmethod
    def _missing_(cls, value: object) -> "InterpolationMode | None":
        """Pillow's numbers mean the same."""
        return PILLOWS.get(value) if isinstance(value, int) else None


PILLOWS = {int(Image.Resampling[mode.name]): mode for mode in InterpolationMode if mode.name != "NEAREST_EXACT"}
PILLOW = {mode: Image.Resampling[mode.name.removesuffix("_EXACT")] for mode in InterpolationMode}
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def pil_to_tensor(pic: Image.Image) -> Tensor:
    """A Pillow image as a tensor [C, H, W] of its own numbers."""
    rows = np.array(pic, copy=True)
    return torch.from_numpy(rows if rows.ndim == 3 else rows[..., None]).permute(2, 0, 1).contiguous()


def to_tensor(pic: Picture) -> Tensor:
    """An image or array [H, W, C] as [C, H, W]; bytes become 0..1, other numbers stay what they are."""
    if isinstance(pic, np.ndarray):
        made = torch.from_numpy(pic if pic.ndim == 3 else pic[..., None]).permute(2, 0, 1).contiguous()
    else:
        made = pil_to_tensor(pic)
    if made.dtype == torch.bool:
        return made.float()
    return made.float() / 255 if made.dtype == torch.uint8 else made


def to_pil_image(pic: Any, mode: str | None = None) -> Image.Image:
    """A tensor [C, H, W] or [H, W], or an array [H, W, C], as an image; numbers 0..1 are cut to bytes, not rounded."""
    if isinstance(pic, Tensor):
        pic = pic if pic.ndim == 3 else pic.unsqueeze(0)
        pic = pic.mul(255).byte() if pic.is_floating_point() and mode != "F" else pic
        pic = pic.cpu().permute(1, 2, 0).numpy()
    rows = pic if pic.ndim == 3 else pic[..., None]
    if rows.shape[2] not in MODES:
        raise ValueError(f"a picture of {rows.shape[2]} channels; expected 1 to 4")
    image = Image.fromarray(rows[..., 0] if rows.shape[2] == 1 else np.ascontiguousarray(rows))
    return image if mode is None or mode == image.mode else image.convert(mode)


def sides(picture: Picture) -> tuple[int, int]:
    """Height and width."""
    return (picture.height, picture.width) if isinstance(picture, Image.Image) else tuple(picture.shape[-2:])


def _target(picture: Picture, size: int | Sequence[int], max_size: int | None) -> tuple[int, int]:
    """Height and width to scale to; one number is meant for the shorter side."""
    if not isinstance(size, int) and len(size) == 2:
        return int(size[0]), int(size[1])
    asked = size if isinstance(size, int) else size[0]
    height, width = sides(picture)
    short, long = sorted((height, width))
    fresh_short, fresh_long = asked, int(asked * long / short)
    if max_size is not None and fresh_long > max_size:
        fresh_short, fresh_long = int(max_size * fresh_short / fresh_long), max_size
    return (fresh_short, fresh_long) if height <= width else (fresh_long, fresh_short)


def _computed(picture: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """A change of [N, C, H, W] in floating point, for any number of axes; whole numbers are rounded at the end."""
    rows = picture.reshape(-1, *picture.shape[-3:]) if picture.ndim > 2 else picture[None, None]
    is_whole = not picture.is_floating_point()
    made = change(rows.float() if is_whole else rows)
    if is_whole:
        made = made.round()
        made = (made.clamp(0, 255) if picture.dtype == torch.uint8 else made).to(picture.dtype)
    return made.reshape(*picture.shape[:-2], *made.shape[-2:])


def resize(
    img: Picture,
    size: int | Sequence[int],
    interpolation: InterpolationMode = InterpolationMode.BILINEAR,
    max_size: int | None = None,
    antialias: bool | None = True,
) -> Picture:
    """The picture at (height, width), or with its shorter side `size` long and the longer one `max_size` at most."""
    height, width = _target(img, size, max_size)
    interpolation = InterpolationMode(interpolation)
    if isinstance(img, Image.Image):
        return img.resize((width, height), PILLOW[interpolation])
    smooth = interpolation in (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC)
    if not smooth and interpolation not in (InterpolationMode.NEAREST, InterpolationMode.NEAREST_EXACT):
        raise ValueError(f"a tensor resized by {interpolation.value}; expected nearest, bilinear or bicubic")
    more: dict[str, Any] = {"align_corners": False, "antialias": bool(antialias)} if smooth else {}
    return _computed(img, lambda rows: F.interpolate(rows, (height, width), mode=interpolation.value, **more))


def normalize(tensor: Tensor, mean: Sequence[float], std: Sequence[float], inplace: bool = False) -> Tensor:
    """(picture - mean) / std by channel."""
    middle, spread = (torch.as_tensor(one, dtype=tensor.dtype, device=tensor.device) for one in (mean, std))
    if (spread == 0).any():
        raise ValueError(f"std is {list(std)}; expected numbers that are not 0")
    made = tensor if inplace else tensor.clone()
    return made.sub_(middle.view(-1, 1, 1)).div_(spread.view(-1, 1, 1))


def _pair(numbers: Any) -> tuple[Any, Any]:
    """Two numbers, of one or two."""
    listed = list(numbers) if isinstance(numbers, Sequence) else [numbers]
    return listed[0], listed[-1]


def gaussian_blur(img: Picture, kernel_size: Any, sigma: Any = None) -> Picture:
    """Weights exp(-x^2 / 2 sigma^2) over `kernel_size` = (across, down) pixels, edges mirrored."""
    if isinstance(img, Image.Image):
        return to_pil_image(gaussian_blur(pil_to_tensor(img), kernel_size, sigma), img.mode)
    lengths = _pair(kernel_size)
    if any(length % 2 == 0 or length < 1 for length in lengths):
        raise ValueError(f"kernel_size is {kernel_size}; expected odd numbers from 1")
    spreads = [0.15 * length + 0.35 for length in lengths] if sigma is None else _pair(sigma)
    across, down = (_bell(length, spread) for length, spread in zip(lengths, spreads, strict=True))
    kernel, reach = down[:, None] * across[None], [lengths[0] // 2] * 2 + [lengths[1] // 2] * 2

    def blurred(rows: Tensor) -> Tensor:
        weights = kernel.to(rows).expand(rows.shape[1], 1, *kernel.shape)
        return F.conv2d(F.pad(rows, reach, mode="reflect"), weights, groups=rows.shape[1])

    return _computed(img, blurred)


def _bell(length: int, spread: float) -> Tensor:
    places = torch.arange(length, dtype=torch.float32) - (length - 1) / 2
    weights = torch.exp(-0.5 * (places / spread) ** 2)
    return weights / weights.sum()


def crop(img: Picture, top: int, left: int, height: int, width: int) -> Picture:
    """A part of the picture; black where it reaches beyond."""
    if isinstance(img, Image.Image):
        return img.crop((left, top, left + width, top + height))
    rows, columns = sides(img)
    inner = img[..., max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
    before, after = max(min(-left, width), 0), max(min(left + width - columns, width), 0)
    above, below = max(min(-top, height), 0), max(min(top + height - rows, height), 0)
    return F.pad(inner, [before, after, above, below])


def center_crop(img: Picture, output_size: Any) -> Picture:
    """The middle, of (height, width); black is put around a smaller picture."""
    height, width = (int(side) for side in _pair(output_size))
    rows, columns = sides(img)
    return crop(img, _middle(rows, height), _middle(columns, width), height, width)


def _middle(own: int, asked: int) -> int:
    """Where the part begins; of an uneven border the smaller half is before a smaller picture."""
    return round((own - asked) / 2) if own >= asked else -((asked - own) // 2)


def pad(img: Picture, padding: Any, fill: float = 0, padding_mode: str = "constant") -> Picture:
    """Pixels added at the left, top, right and bottom; of two numbers the first is for left and right."""
    if isinstance(img, Image.Image):
        return to_pil_image(pad(pil_to_tensor(img), padding, fill, padding_mode), img.mode)
    listed = list(padding) if isinstance(padding, Sequence) else [padding]
    left, top, right, bottom = listed if len(listed) == 4 else [listed[0], listed[-1]] * 2
    mode = {"edge": "replicate", "symmetric": "symmetric"}.get(padding_mode, padding_mode)
    if mode not in ("constant", "reflect", "replicate"):
        raise ValueError(f"padding_mode {padding_mode!r}; expected constant, edge or reflect")
    value = {"value": float(fill)} if mode == "constant" else {}
    return _computed(img, lambda rows: F.pad(rows, [left, right, top, bottom], mode=mode, **value))


def rotate(
    img: Picture,
    angle: float,
    interpolation: InterpolationMode = InterpolationMode.NEAREST,
    expand: bool = False,
    center: Sequence[float] | None = None,
    fill: Any = None,
) -> Picture:
    """Turned against the clock by `angle` degrees round `center` (x, y); `expand` makes room for the corners."""
    interpolation = InterpolationMode(interpolation)
    if isinstance(img, Image.Image):
        filled = tuple(fill) if isinstance(fill, list) else fill
        where = (float(center[0]), float(center[1])) if center is not None else None
        return img.rotate(angle, PILLOW[interpolation], expand=expand, center=where, fillcolor=filled)
    height, width = sides(img)
    turn = math.radians(angle)
    cosine, sine = math.cos(turn), math.sin(turn)
    out_height, out_width = height, width
    if expand:  # what is 2e-6 over a whole pixel is rounding
        out_width = math.ceil(abs(width * cosine) + abs(height * sine) - 2e-6)
        out_height = math.ceil(abs(width * sine) + abs(height * cosine) - 2e-6)
    off_x, off_y = (center[0] - width / 2, center[1] - height / 2) if center is not None and not expand else (0.0, 0.0)
    x = torch.arange(out_width) - (out_width - 1) / 2 - off_x
    y = torch.arange(out_height)[:, None] - (out_height - 1) / 2 - off_y
    grid = torch.stack(
        [(x * cosine - y * sine + off_x) / (width / 2), (x * sine + y * cosine + off_y) / (height / 2)], -1
    )

    def turned(rows: Tensor) -> Tensor:
        places = grid.to(rows).expand(len(rows), -1, -1, -1)
        beside = torch.cat([rows, torch.ones_like(rows[:, :1])], 1)
        made = F.grid_sample(beside, places, mode=interpolation.value, align_corners=False)
        made, share = made[:, :-1], made[:, -1:]
        return made if fill is None else made + (1 - share) * torch.as_tensor(fill).to(rows).reshape(1, -1, 1, 1)

    return _computed(img, turned)


def convert_image_dtype(image: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Bytes as 0..1 and back; between kinds of floating point nothing but the precision changes."""
    if image.dtype == dtype or image.is_floating_point() == dtype.is_floating_point:
        return image.to(dtype)
    if dtype.is_floating_point:
        return image.to(dtype) / torch.iinfo(image.dtype).max
    return image.mul(torch.iinfo(dtype).max + 1.0 - 1e-3).to(dtype)


def hflip(img: Picture) -> Picture:
    """Left and right exchanged."""
    return img.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if isinstance(img, Image.Image) else img.flip(-1)


def vflip(img: Picture) -> Picture:
    """Top and bottom exchanged."""
    return img.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if isinstance(img, Image.Image) else img.flip(-2)


def as_transform(name: str, function: Callable[..., Any]) -> type:
    """The class of a transform: made with all arguments of a function but the picture, called with that."""

    def keep(self: Any, *arguments: Any, **more: Any) -> None:
        self.arguments, self.more = arguments, more

    def change(self: Any, picture: Any) -> Any:
        return function(picture, *self.arguments, **self.more)

    return type(name, (torch.nn.Module,), {"__init__": _first(keep), "forward": change})


def _first(keep: Callable[..., None]) -> Callable[..., None]:
    """An `__init__` that makes the module first."""

    def init(self: Any, *arguments: Any, **more: Any) -> None:
        torch.nn.Module.__init__(self)
        keep(self, *arguments, **more)

    return init


class Compose:
    """One transform after the other."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = transforms

    def __call__(self, img: Any) -> Any:
        for transform in self.transforms:
            img = transform(img)
        return img


FUNCTIONS: dict[str, Any] = {
    function.__name__: function
    for function in (
        center_crop, convert_image_dtype, crop, gaussian_blur, hflip, normalize, pad, pil_to_tensor, resize, rotate,
        to_pil_image, to_tensor, vflip,
    )
}  # fmt: skip
FUNCTIONS |= vision_colours.named()
FUNCTIONS["affine"] = vision_colours.moved(to_pil_image, pil_to_tensor, lambda mode: InterpolationMode(mode).value)
TRANSFORMS: dict[str, Callable[..., Any]] = {
    "CenterCrop": center_crop, "ConvertImageDtype": convert_image_dtype, "GaussianBlur": gaussian_blur,
    "Normalize": normalize, "PILToTensor": pil_to_tensor, "Pad": pad, "Resize": resize, "ToPILImage": to_pil_image,
    "ToTensor": to_tensor,
}  # fmt: skip


def masks_to_boxes(masks: Tensor) -> Tensor:
    """Left, top, right and bottom of what is not 0 in each mask [N, H, W]; an empty mask has zeros."""
    boxes = torch.zeros(len(masks), 4, device=masks.device)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = torch.where(mask != 0)
        if len(rows):
            box.copy_(torch.stack([columns.min(), rows.min(), columns.max(), rows.max()]))
    return boxes


def names() -> dict[str, dict[str, Any]]:
    """The modules."""
    functional = {**FUNCTIONS, "InterpolationMode": InterpolationMode}
    classes = {name: as_transform(name, function) for name, function in TRANSFORMS.items()}
    transforms: dict[str, Any] = {**classes, "Compose": Compose, "InterpolationMode": InterpolationMode}
    transforms["functional"] = SimpleNamespace(**functional)  # found without an import of its own
    here = SimpleNamespace(**transforms)  # `from torchvision.transforms import transforms` is the same again
    return {
        "torchvision": {},
        "torchvision.models": {},
        "torchvision.models.optical_flow": {
            name: absent(f"torchvision.models.optical_flow.{name}") for name in ("Raft_Large_Weights", "raft_large")
        },
        "torchvision.utils": {"flow_to_image": absent("torchvision.utils.flow_to_image")},
        "torchvision.ops": {"masks_to_boxes": masks_to_boxes},
        "torchvision.transforms": transforms | {"transforms": here},
        "torchvision.transforms.functional": functional,
        "torchvision.transforms.v2": transforms,
        "torchvision.transforms.v2.functional": functional,
    }


class Offer(MetaPathFinder, Loader):
    """Finds the modules for code of packs; for everyone else torchvision stays as absent as it is."""

    def __init__(self, names: Mapping[str, Mapping[str, Any]]) -> None:
        self.names = names

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """A module of ours, where a pack asks."""
        if fullname not in self.names or not _asked_by_pack(sys._getframe(1)):
            return None
        _tell_transformers()
        return ModuleSpec(fullname, self, is_package=True)

    def exec_module(self, module: ModuleType) -> None:
        """Fill it."""
        vars(module).update(self.names[module.__name__])


def offer() -> None:
    """Let packs import these names, unless torchvision itself can be imported."""
    if importlib.util.find_spec("torchvision") is None and not any(type(one) is Offer for one in sys.meta_path):
        sys.meta_path.append(Offer(names()))


ASKERS = ("custom_nodes.", "spandrel.architectures.")


def _asked_by_pack(frame: FrameType | None) -> bool:
    """Whether the code that imports, not the import system itself, is a pack's, or spandrel's, which packs import."""
    while frame is not None and frame.f_globals.get("__name__", "").startswith("importlib"):
        frame = frame.f_back
    return frame is not None and str(frame.f_globals.get("__name__", "")).startswith(ASKERS)


def _tell_transformers() -> None:
    """Let transformers, which asks only once, find that torchvision is not here: it needs more of it than this."""
    if importlib.util.find_spec("transformers") is not None:
        importlib.import_module("transformers.utils.import_utils").is_torchvision_available()
