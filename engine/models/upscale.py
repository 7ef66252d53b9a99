"""Networks that enlarge or restore pictures: architectures by spandrel (MIT), read from our files, run tile by tile.

spandrel imports torchvision for two architectures (LaMa, RestoreFormer) that take more than a picture or need not be
here; where torchvision is missing, names stand in for it while spandrel is imported.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue, UnknownModel, is_out_of_memory
from sigmagraph.engine.models.files.read import open_weights
from sigmagraph.engine.models.memory.residency import RESIDENCY

__all__ = ["Upscaler", "load_upscaler", "tiles"]

TILE, OVERLAP, SMALLEST_TILE = 512, 32, 128  # pixels of the input
TORCHVISION = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
INSTALL = "pip install --no-deps spandrel einops"
MAX_PIXELS = 1 << 30  # of one result
MOST_WEIGHTS = 1 << 30  # ten times what any such network has; all are read into memory at once


@dataclass(frozen=True, eq=False)
class Upscaler:
    """A network from pictures [1, 3, h, w] to [1, 3, scale h, scale w], both 0..1, float32 on its device."""

    network: Callable[[Tensor], Tensor]
    scale: int
    device: torch.device
    architecture: str = "unknown"

    @torch.no_grad()
    def enlarged(self, images: Tensor) -> Generator[tuple[int, int], None, Tensor]:
        """Images [B, H, W, 3] enlarged, on the CPU; yields how many tiles of how many are done.

        Where memory does not suffice for a tile, tiles half as large are taken, down to 128 pixels.
        """
        batch, height, width = images.shape[:3]
        if images.shape[-1] != 3:
            raise BadValue("image", f"{images.shape[-1]} channels", "3 channels; split transparency off first")
        if batch * height * width * self.scale**2 > MAX_PIXELS:
            raise BadValue("image", f"{batch} of {width} x {height}", f"at most {MAX_PIXELS:,} pixels once enlarged")
        tile = TILE
        while True:
            try:
                return (yield from self._by_tiles(images.movedim(-1, 1), tile))
            except Exception as error:  # every device's allocator has an error of its own
                if tile <= SMALLEST_TILE or not is_out_of_memory(error):
                    raise
                tile //= 2

    def _by_tiles(self, planes: Tensor, tile: int) -> Generator[tuple[int, int], None, Tensor]:
        height, width = planes.shape[-2:]
        places = list(tiles(height, width, tile, OVERLAP))
        results = []
        for index, one in enumerate(planes.split(1)):
            total = torch.zeros(1, 3, height * self.scale, width * self.scale)
            weights = torch.zeros_like(total[:, :1])
            for done, (rows, columns) in enumerate(places):
                part = self.network(one[..., rows, columns].to(self.device, torch.float32)).float().cpu()
                weight = _faded(part, round(OVERLAP * self.scale) if len(places) > 1 else 0)
                place = (..., self._larger(rows), self._larger(columns))
                total[place] += part * weight
                weights[place] += weight
                yield index * len(places) + done + 1, len(planes) * len(places)
            results.append((total / weights).clamp(0.0, 1.0).movedim(1, -1))
        return torch.cat(results)

    def _larger(self, side: slice) -> slice:
        return slice(side.start * self.scale, side.stop * self.scale)


def tiles(height: int, width: int, tile: int, overlap: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of squares that cover a picture, each sharing `overlap` pixels with the next."""
    for top in _starts(height, tile, overlap):
        for left in _starts(width, tile, overlap):
            yield slice(top, min(top + tile, height)), slice(left, min(left + tile, width))


def _starts(size: int, tile: int, overlap: int) -> list[int]:
    return list(range(0, size - overlap, tile - overlap)) if size > tile else [0]


def _faded(part: Tensor, width: int) -> Tensor:
    """Weights [1, 1, h, w] that rise over `width` places from every edge; never 0, so that edges of pictures count."""
    sides = []
    for size in part.shape[-2:]:
        place = torch.arange(size, dtype=torch.float32)
        near, far = (place + 1).clamp(max=width), (size - place).clamp(max=width)
        sides.append(near * far / max(width, 1) ** 2 if width else torch.ones(size))
    return (sides[0][:, None] * sides[1])[None, None]


def load_upscaler(path: Path, device: torch.device | None = None) -> Upscaler:
    """The network of a safetensors file; its architecture, size and scale are read from its tensors.

    It computes on the chosen device. Raises `RefusedFile` for a pickle, `UnknownModel` where no architecture fits, and
    for one that takes more than a picture.
    """
    file = open_weights(path)
    if (count := sum(prod(stored.shape) for stored in file.weights.values())) > MOST_WEIGHTS:
        raise UnknownModel(f"{path}: {count:,} weights; a network that enlarges pictures has at most {MOST_WEIGHTS:,}")
    spandrel, chosen = _spandrel(), device or RESIDENCY.choices.on
    weights = {name: stored.read().float() for name, stored in file.weights.items()}
    if all(name.startswith("module.") for name in weights):  # saved while it trained on several devices
        weights = {name.removeprefix("module."): weight for name, weight in weights.items()}
    try:
        found = spandrel.ModelLoader(device="cpu").load_from_state_dict(weights)
    except (spandrel.UnsupportedModelError, KeyError, RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnknownModel(f"{path}: no architecture of spandrel's fits its tensors: {reason}") from error
    if not isinstance(found, spandrel.ImageModelDescriptor) or (found.input_channels, found.output_channels) != (3, 3):
        raise UnknownModel(f"{path}: {found.architecture.name} takes more or less than an RGB picture")
    network: Any = found.to(chosen, torch.float32).eval()
    return Upscaler(network, int(found.scale), chosen, str(found.architecture.name))


@cache
def _spandrel() -> ModuleType:
    """The package, imported when the first model is loaded: it brings some forty architectures."""
    if importlib.util.find_spec("spandrel") is None:
        raise UnknownModel(f"upscale models need the package spandrel: {INSTALL}")
    stand_ins: dict[str, Any] = {}
    if importlib.util.find_spec("torchvision") is None:
        stand_ins = {name: ModuleType(name) for name in TORCHVISION}
        for name in ("InterpolationMode", "rotate", "normalize"):
            setattr(stand_ins[TORCHVISION[-1]], name, None)
    sys.modules.update(stand_ins)
    try:
        return importlib.import_module("spandrel")
    finally:
        for name in stand_ins:
            del sys.modules[name]
